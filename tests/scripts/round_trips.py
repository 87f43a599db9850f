"""Checkpoints of every torchvision classification model, as a script.

    python -m tests.scripts.round_trips [NAME ...] [--jobs 2]

Each model is pruned by half and saved, as float32 and as bfloat16; loaded by replay into a fresh
model on the meta device, and by verify; its unpruned weights are written with nothing of planc's
but the header's layout, and the plan is applied to that file. Every result holds the bits of what
``planc.apply`` makes in memory, computes the same bits, and does so again in a process that never
saw the model. Each model has two processes of its own, forked from one that has imported torch.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import init

import planc
from tests.support.measure import forked
from tests.zoo.torchvision import classification_models, example_input, unweighted

_HEAVY = {"regnet_y_128gf", "vit_h_14"}  # 2.5 GB of weights each
_LIMIT = 600.0  # seconds for one model
_PRELOAD = [
    "planc.files.checkpoint",
    "planc.compile",
    "planc.files.cut",
    "planc.verify",
    "torchvision",
]
_NOISE = 65_537  # a prime: no two rows of a weight hold the same part of the noise


def main() -> int:
    """Runs the round trips and returns the exit code."""
    options = _options()
    names = options.models or classification_models()
    begin, failures, cpu = time.perf_counter(), 0, 0.0
    calls = {name: (name,) for name in names}
    preload = [*_PRELOAD, "tests.scripts.round_trips"]
    for name, answer in forked(round_trip, calls, preload, _HEAVY, options.jobs, _LIMIT):
        cpu += answer.get("cpu", 0.0)
        failures += "failed" in answer
        print(f"{name}: {answer.get('failed') or answer['said']}", flush=True)
    minutes = (time.perf_counter() - begin) / 60
    print(
        f"\n{len(names)} models, {failures} failures, {minutes:.1f} minutes, "
        f"{cpu / 60:.1f} of CPU time"
    )
    return int(failures > 0)


def round_trip(name: str) -> dict[str, Any]:
    """What was found equal, as a line to print, or why it was not."""
    torch.set_num_threads(1)
    with reopening(name) as reopen, tempfile.TemporaryDirectory() as directory:
        try:
            said = _round_trip(name, Path(directory), reopen)
        except (planc.PlancError, AssertionError) as error:
            return {"failed": f"{type(error).__name__}: {str(error)[:300]}", "cpu": _cpu()}
    return {"said": said, "cpu": _cpu()}


def _round_trip(name: str, directory: Path, reopen: Connection) -> str:
    image = example_input(name)
    model = _fill(fresh(name))
    plan = planc.compile(model, image, ratio=0.5)
    smaller = planc.apply(plan, model, validate=False)
    whole, path = directory / "whole.safetensors", directory / f"{name}.safetensors"
    _write(model, whole)
    del model  # two of the largest are more than many machines hold
    empty = _empty(name)
    began = time.perf_counter()
    planc.save(path, smaller, plan)
    saved = time.perf_counter()
    loaded = planc.load(path, empty)
    read = time.perf_counter()
    assert_same(loaded, smaller, "replay")
    with torch.no_grad():
        expected = smaller(image)
        assert expected.isfinite().all(), "the outputs are no numbers"
        assert torch.equal(loaded(image), expected), "replay: other outputs"
    reopen.send(path)
    assert_same(planc.load(path, loaded, "verify"), smaller, "verify")
    planc.apply_files(plan, whole, directory / "applied.safetensors")
    assert_same(planc.load(directory / "applied.safetensors", empty), smaller, "file")
    answer = reopen.recv()  # before the file is written again
    assert answer == expected.numpy().tobytes(), f"a new process: {answer[:300]!r}"
    smaller.bfloat16()
    planc.save(path, smaller, plan)
    assert_same(planc.load(path, empty), smaller, "bfloat16")
    return (
        f"{path.stat().st_size >> 9} KiB, saved in {saved - began:.2f} s, loaded in "
        f"{read - saved:.2f} s, equal"
    )


def _empty(name: str) -> nn.Module:
    """The model without memory for its tensors."""
    try:
        with torch.device("meta"):
            return fresh(name)
    except NotImplementedError:  # regnets compute their widths with tensors
        return fresh(name).to("meta")


@contextmanager
def reopening(name: str) -> Iterator[Connection]:
    """Gives the connection to a process that takes the path of a checkpoint and gives the bytes of
    what the model in it computes. It begins before there is a model.
    """
    context = multiprocessing.get_context("fork")
    mine, its = context.Pipe()
    process = context.Process(target=_reopen, args=(name, its))
    process.start()
    its.close()
    try:
        yield mine
    finally:
        process.kill()
        process.join()


def _reopen(name: str, connection: Connection) -> None:
    path = connection.recv()
    try:
        empty = _empty(name)
        with torch.no_grad():
            connection.send(planc.load(path, empty)(example_input(name)).numpy().tobytes())
    except Exception as error:
        connection.send(f"a new process: {type(error).__name__}: {error}")


def fresh(name: str) -> nn.Module:
    """The model as its class makes it, with whatever the memory of its parameters holds."""
    public = [item for item in vars(init) if item.endswith("_") and not item.startswith("_")]
    kept = {item: getattr(init, item) for item in public}
    try:
        for item in public:
            setattr(init, item, lambda tensor, *_, **__: tensor)
        return unweighted(name).eval()
    finally:
        for item, function in kept.items():
            setattr(init, item, function)


def _fill(model: nn.Module) -> nn.Module:
    """Gives every parameter and running statistic values of its own, as fast as memory is."""
    torch.manual_seed(0)
    noise = torch.randn(_NOISE)
    tensors = [*model.named_parameters(), *model.named_buffers()]
    with torch.no_grad():
        for number, (name, tensor) in enumerate(tensors):
            if not tensor.is_floating_point() or name.endswith(("_index", "_table_index")):
                continue
            values = noise.roll(97 * number).repeat(-(-tensor.numel() // _NOISE))
            values = values[: tensor.numel()].view(tensor.shape)
            if name.endswith("running_var"):
                tensor.copy_(values.abs() + 0.5)
            elif tensor.ndim > 1:
                tensor.copy_(values / math.sqrt(tensor[0].numel()))
            else:
                tensor.copy_(0.1 * values + float(name.endswith("weight")))
    return model


def _write(model: nn.Module, path: Path) -> None:
    """A safetensors file, tensor by tensor: the package would hold all of them twice."""
    from planc.files.checkpoint.elements import dtype_name
    from planc.files.tensors.header import aligned, place, write_header
    from planc.modules.memory import bytes_of

    state = model.state_dict()
    entries = place(aligned((n, dtype_name(t, n), tuple(t.shape)) for n, t in state.items()))
    with path.open("wb") as file:
        file.write(write_header(entries, {"format": "pt"}))
        for entry in entries:
            file.write(bytes_of(state[entry.name]).data)


def assert_same(first: nn.Module, second: nn.Module, what: str) -> None:
    """Raises AssertionError if the state dicts of two models do not hold the same bits."""
    found, expected = first.state_dict(), second.state_dict()
    assert found.keys() == expected.keys(), what
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, f"{what}: {name}"
        assert torch.equal(found[name], tensor), f"{what}: {name}"


def _cpu() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="NAME")
    parser.add_argument("--jobs", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
