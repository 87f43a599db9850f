"""R5: whatever happens at whichever write-side call, the target is the old bytes or the new bytes,
and after the next run nothing else is left.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import planc
from planc.files.disk import stream
from tests.crash.faults import BROKEN, DONE, FAULTS, KILLED, REFUSED, run
from tests.files.cut.test_files import PLAN, mlp_plan, sharded
from tests.scripts.promises import Goal

Contents = dict[str, bytes]
Operation = Callable[[Path], Any]


class Net(nn.Module):
    """Enough for a checkpoint with an extra file."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 3)
        self.register_buffer("scale", torch.ones(8), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.down(torch.relu(self.up(x)) * self.scale)
        return result


def contents(directory: Path) -> Contents:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def save_plan(directory: Path) -> None:
    planc.save_plan(PLAN, directory / "a.planc")


def save_file(directory: Path) -> None:
    planc.save(directory / "a.safetensors", *_PRUNED)


def save_directory(directory: Path) -> None:
    planc.save(directory / "out", *_PRUNED, shard_size=100, overwrite=True)


def apply_shards(directory: Path) -> None:
    planc.apply_files(PLAN, directory / "in", directory / "out")


def apply_and_keep(directory: Path) -> None:
    planc.apply_files(
        PLAN, directory / "in", directory / "out", keep_removed=directory / "kept", overwrite=True
    )


WIDE = mlp_plan(width=2048, layers=2)


def apply_directly(directory: Path) -> None:
    """As if the shards were long: each of them is written in several blocks."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(stream, "BLOCK", 8192)
        patched.setattr(stream, "LONG", 0)
        planc.apply_files(WIDE, directory / "in", directory / "out")


def _pruned() -> tuple[nn.Module, planc.Plan]:
    torch.manual_seed(0)
    model = Net().eval()
    plan = planc.compile(model, torch.zeros(1, 4), ratio=0.5)
    return planc.apply(plan, model), plan


_PRUNED: Any = _pruned()


def _old_plan(directory: Path) -> None:
    (directory / "a.planc").write_bytes(b"old")


def _old_file(directory: Path) -> None:
    model, plan = _PRUNED
    other = planc.apply(planc.compile(model, torch.zeros(1, 4), ratio=0.0), model)
    with torch.no_grad():
        other.up.weight.zero_()
        other.scale.zero_()
    planc.save(directory / "a.safetensors", other, plan)


def _old_directory(directory: Path) -> None:
    (directory / "out").mkdir()
    (directory / "out" / "old").write_bytes(b"old")


def _source(directory: Path) -> None:
    sharded(directory / "in")


def _wide_source(directory: Path) -> None:
    sharded(directory / "in", WIDE)
    (directory / "in" / "config.json").unlink()


# what is written, what was there before, which files of it are the target, and whether those of
# the target may be moved aside (a directory cannot be exchanged for another in one step)
CASES: dict[str, tuple[Operation, Operation, str, bool]] = {
    "plan": (save_plan, _old_plan, "a.planc", False),
    "checkpoint": (save_file, _old_file, "a", False),
    "sharded checkpoint": (save_directory, _old_directory, "out", True),
    "sharded apply": (apply_shards, _source, "out", False),
    "sharded apply in blocks": (apply_directly, _wide_source, "out", False),
    "sharded apply with what is removed": (apply_and_keep, _source, "out", False),
}


def target(found: Contents, name: str) -> Contents:
    return {path: content for path, content in found.items() if path.startswith(name)}


def loadable(found: Contents, directory: Path) -> Contents:
    """A checkpoint's file with the extra file that it speaks of: another one may lie beside it."""
    if "a.safetensors" not in found:
        return found
    names = {shard.name for shard in planc.inspect(directory / "a.safetensors").shards}
    return {path: content for path, content in found.items() if path in names}


@pytest.mark.long
@pytest.mark.promise("R5 faults")
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("case", CASES)
def test_the_target_is_old_or_new_at_every_call(
    case: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, goal: Goal
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # the machine stays up
    operation, prepare, name, moves = CASES[case]
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    prepare(before)
    shutil.copytree(before, after)
    operation(after)
    old, new = contents(before), contents(after)
    endings, call = Counter[str](), 0
    while True:
        call += 1
        place = tmp_path / "place"
        shutil.copytree(before, place)
        ending, reached = run(partial(operation, place), call, fault)
        if not reached:
            break
        endings[ending] += 1
        assert ending != BROKEN
        found = target(contents(place), name)
        whole = loadable(found, place)
        aside = moves and not found
        assert whole in (target(old, name), target(new, name)) or aside, f"call {call}"
        if ending == DONE:
            assert whole == target(new, name), f"call {call}"
        assert target(contents(place), "in") == target(old, "in")
        operation(place) if found != target(new, name) else operation_again(operation, place, name)
        assert contents(place) == new, f"call {call}: the next run"
        assert leftovers(place) == [], f"call {call}"
        shutil.rmtree(place)
    assert call > 5
    expected = {"kill": KILLED, "kill after": KILLED, "short write": DONE}.get(fault, REFUSED)
    assert endings[expected] > 0
    assert endings[KILLED] == 0 or expected == KILLED
    goal.count(call - 1)


def operation_again(operation: Operation, place: Path, name: str) -> None:
    """The next run, where the result is there already: refused if it is not to be replaced."""
    try:
        operation(place)
    except planc.PlancError as error:
        assert "exists" in str(error)  # noqa: PT017


def leftovers(place: Path) -> list[str]:
    return [path.name for path in place.rglob(".*")]
