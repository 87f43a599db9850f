"""Pruning in steps that is killed at any moment, and started again from its files alone, ends as if
nothing had happened.

The loop under test is the one that users write: a step, some training, one checkpoint that holds
plan and weights. A process that begins reads the checkpoint, if there is one; it has nothing else.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import planc
from planc.plan.plan import Plan
from tests.crash.faults import DONE, KILLED, run

SCHEDULE = planc.Schedule(macs=0.3, steps=2)
FILE = "pruned.safetensors"
Event = Callable[[str], None]


def fresh() -> tuple[nn.Module, torch.Tensor]:
    """The original, as the script builds it whenever it starts."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 8), nn.Linear(8, 3))
    return model.eval(), torch.zeros(1, 4)


def nothing(event: str) -> None:
    """What happens at an event where nothing is to happen."""


def prune_in_steps(directory: Path, at: Event = nothing) -> Plan:
    """Goes on from what is in the directory to the end of the schedule; returns the whole plan."""
    original, inputs = fresh()
    model, done = original, None
    if (directory / FILE).exists():
        model, done = planc.load(directory / FILE, original), planc.inspect(directory / FILE).plan
    at("begun")
    while step := planc.next_step(SCHEDULE, model, inputs, done):
        at(f"compiled {step.number}")
        model, done = planc.apply(step.plan, model), step.total
        at(f"applied {step.number}")
        tune(model, step.number)
        at(f"tuned {step.number}")
        planc.save(directory / FILE, model, done)
        at(f"saved {step.number}")
    assert done is not None
    return done


def prune_by_plans(directory: Path, at: Event = nothing) -> Plan:
    """The same where the plan file alone is kept: training is lost, what has gone stays gone."""
    original, inputs = fresh()
    model, done, file = original, None, directory / "pruned.planc"
    if file.exists():
        done = planc.load_plan(file)
        model = planc.apply(done, original)
    while step := planc.next_step(SCHEDULE, model, inputs, done):
        model, done = planc.apply(step.plan, model), step.total
        at(f"applied {step.number}")
        planc.save_plan(done, file)
        at(f"saved {step.number}")
    assert done is not None
    return done


def tune(model: nn.Module, seed: int) -> None:
    """What training leaves: other weights, the same for the same step."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn(parameter.shape, generator=generator) * 0.1


def killed_at(event: str, operation: Callable[..., Any], directory: Path) -> bool:
    """Runs the loop in a process that is killed at an event; whether it got that far."""

    def kill(found: str) -> None:
        if found == event:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        try:
            operation(directory, kill)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def events(operation: Callable[..., Any], directory: Path) -> list[str]:
    found: list[str] = []
    operation(directory, found.append)
    return found


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


@pytest.mark.parametrize("operation", [prune_in_steps, prune_by_plans])
def test_killed_between_and_within_steps_it_ends_as_if_it_had_not_been(
    operation: Callable[..., Plan], tmp_path: Path
) -> None:
    (whole := tmp_path / "whole").mkdir()
    passed = events(operation, whole)
    assert passed[-1] == "saved 2"
    for number, event in enumerate(passed):
        (place := tmp_path / str(number)).mkdir()
        assert killed_at(event, operation, place), event
        operation(place)
        assert contents(place) == contents(whole), event


def test_killed_at_every_event_in_turn_it_still_gets_to_the_end(tmp_path: Path) -> None:
    (whole := tmp_path / "whole").mkdir()
    (place := tmp_path / "place").mkdir()
    for event in events(prune_in_steps, whole):
        killed_at(event, prune_in_steps, place)
    prune_in_steps(place)
    assert contents(place) == contents(whole)


@pytest.mark.long
@pytest.mark.parametrize("fault", ["kill", "kill after"])
def test_killed_at_any_write_it_ends_as_if_it_had_not_been(fault: str, tmp_path: Path) -> None:
    (whole := tmp_path / "whole").mkdir()
    expected = prune_in_steps(whole)
    call = 0
    while True:
        call += 1
        (place := tmp_path / f"{call}").mkdir()
        ending, reached = run(partial(prune_in_steps, place), call, fault)
        if not reached:
            assert ending == DONE
            break
        assert ending == KILLED
        assert prune_in_steps(place) == expected
        assert contents(place) == contents(whole), f"call {call}"  # and no other file
    assert call > 2 * len(("open", "write", "replace"))  # two checkpoints were written


def test_the_end_meets_the_schedule(tmp_path: Path) -> None:
    plan = prune_in_steps(tmp_path)
    original, inputs = fresh()
    assert plan.cost_after.macs <= 0.3 * plan.cost_before.macs
    assert len(plan.provenance) == 2
    planc.verify(plan, original, planc.apply(plan, original), inputs)
    assert prune_in_steps(tmp_path) == plan
