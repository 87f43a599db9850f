"""Checkpoints of every torchvision classification model, as a script.

    python -m tests.round_trips [NAME ...]

Each model is pruned by half, saved, loaded by replay into a fresh model on the meta device and by
verify, and applied to as a file; all must hold the same bits, and compute the same.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models

import planc


def round_trip(name: str, directory: Path) -> str:
    """What was found equal, as a line to print."""
    torch.manual_seed(0)
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}  # slow
    model = models.get_model(name, weights=None, **options).eval()
    image = torch.randn(2, 3, *((299, 299) if name == "inception_v3" else (224, 224)))
    plan = planc.compile(model, image, ratio=0.5)
    smaller = planc.apply(plan, model)
    path = directory / f"{name}.safetensors"
    began = time.perf_counter()
    planc.save(path, smaller, plan)
    saved = time.perf_counter()
    with torch.device("meta"):
        fresh = models.get_model(name, weights=None, **options).eval()
    loaded = planc.load(path, fresh)
    read = time.perf_counter()
    assert_same(loaded, smaller)
    assert_same(planc.load(path, planc.apply(plan, model), "verify"), smaller)
    with torch.no_grad():
        assert torch.equal(loaded(image), smaller(image))
    state = {key: value.clone() for key, value in model.state_dict().items()}
    save_file(state, directory / "whole.safetensors")
    applied = directory / "applied.safetensors"
    planc.apply_files(plan, directory / "whole.safetensors", applied)
    assert_same(planc.load(applied, model), smaller)
    return (
        f"{name}: {path.stat().st_size >> 10} KiB, saved in {saved - began:.2f} s, loaded in "
        f"{read - saved:.2f} s, equal"
    )


def assert_same(first: nn.Module, second: nn.Module) -> None:
    found, expected = first.state_dict(), second.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def main() -> None:
    names = sys.argv[1:] or models.list_models(models)
    failed = []
    for name in names:
        with tempfile.TemporaryDirectory() as directory:
            try:
                print(round_trip(name, Path(directory)), flush=True)
            except (planc.PlancError, AssertionError) as error:
                failed.append(name)
                print(f"{name}: {type(error).__name__}: {str(error)[:300]}", flush=True)
    print(f"{len(names) - len(failed)} of {len(names)} models; failed: {failed}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
