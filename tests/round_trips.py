"""Checkpoints of every torchvision classification model, as a script.

    python -m tests.round_trips [NAME ...]

Each model is pruned by half, saved, loaded by replay into a fresh model on the meta device and by
verify, and applied to as a file; all must hold the same bits, and compute the same.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision import models

import planc
from planc.codec import decode_plan, encode_plan
from tests.small import contents

State = Mapping[str, torch.Tensor]


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


def same_everywhere(plan: planc.Plan, model: nn.Module, fresh: nn.Module) -> None:
    """A plan does the same to a module, to its state dict and to its file, bit for bit, and is
    undone; what it makes is saved and loaded as it is. ``fresh`` is as ``model`` was built.

    Raises:
        AssertionError: something differs.
    """
    assert decode_plan(encode_plan(plan)) == plan
    smaller, removed = planc.apply(plan, model, keep_removed=True, validate=False)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    cut, taken = planc.apply(plan, state, keep_removed=True)
    expected = smaller.state_dict()
    assert_equal(cut, expected)
    assert_equal(planc.restore(plan, cut, taken), state)
    if plan.target == "module":
        restored = planc.restore(plan, smaller, removed)
        assert contents(restored) == contents(model)
    with tempfile.TemporaryDirectory() as name:
        saved = Path(name) / "saved.safetensors"
        planc.save(saved, smaller, plan)
        if plan.target == "module":
            loaded = planc.load(saved, fresh)
            _same_as_file(plan, state, expected, Path(name))
        else:  # what only the model's code can make of a file
            loaded = planc.load(saved, planc.apply(plan, fresh, validate=False), "verify")
        assert_same(loaded, smaller)


def _same_as_file(plan: planc.Plan, state: State, expected: State, directory: Path) -> None:
    whole, applied, back = (directory / f"{name}.safetensors" for name in ("whole", "cut", "back"))
    save_file(dict(state), whole)
    planc.apply_files(plan, whole, applied, keep_removed=directory / "kept")
    assert_equal(load_file(applied), expected)
    assert planc.restore_files(applied, directory / "kept", back)
    assert back.read_bytes() == whole.read_bytes()


def assert_equal(found: State, expected: State) -> None:
    """The same names, and for each the same bits."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert tensor.dtype == found[name].dtype
        bits = (t.contiguous().reshape(-1).view(torch.uint8) for t in (found[name], tensor))
        assert torch.equal(*bits), name


def assert_same(first: nn.Module, second: nn.Module) -> None:
    assert_equal(first.state_dict(), second.state_dict())


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
