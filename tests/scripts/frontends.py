"""The differential test of the recorder: where torch can export a model, too, the exported graph
leads to the same groups.

    python -m tests.scripts.frontends [MODEL ...] [--programs 200] [--length 6]

Without names it compares all of torchvision's models that can be exported (classification,
segmentation, video, optical flow), then random programs. A line says how many operators each front
end saw, the seconds each took, the groups, and what differs. Exits with 1 if anything does.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import planc
from planc.ir.graph import Graph
from planc.ir.groups import Group
from tests.exported import export
from tests.programs import write
from tests.zoo import torchvision as zoo


@dataclass(frozen=True)
class Seen:
    """What one front end saw of a model."""

    frontend: str
    operators: int
    seconds: float
    groups: tuple[Group, ...]


def seen(
    trace: Callable[..., Graph], model: nn.Module, args: Any, kwargs: Mapping[str, Any] | None
) -> Seen:
    begin = time.perf_counter()
    graph = trace(model, args, kwargs)
    seconds = time.perf_counter() - begin
    return Seen(graph.frontend, len(graph.nodes), seconds, planc.analyze(graph).groups)


def both(model: nn.Module, args: Any, kwargs: Mapping[str, Any] | None = None) -> tuple[Seen, Seen]:
    """What the recorder and the export front end see of one call."""
    return seen(planc.trace, model, args, kwargs), seen(export, model, args, kwargs)


def difference(recorded: Seen, exported: Seen) -> str:
    """The first group that only one of them has, or has otherwise; empty if there is none."""
    here, there = (
        {group.name: _telling(group) for group in found.groups} for found in (recorded, exported)
    )
    for name in [*here, *there]:
        if here.get(name) != there.get(name):
            return f"{name}: recorded {here.get(name)}, exported {there.get(name)}"
    return "" if list(here) == list(there) else "the order of the groups"


def _telling(group: Group) -> tuple[Any, ...]:
    return (group.kind, group.size, group.rows, group.members)


def main() -> int:
    """Compares and returns the exit code."""
    parser = argparse.ArgumentParser(description="compare the groups of both front ends")
    parser.add_argument("models", nargs="*", help="torchvision models; all if none is named")
    parser.add_argument("--programs", type=int, default=200, help="random programs after them")
    parser.add_argument("--length", type=int, default=6, help="steps of each")
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = options.models or [
        name
        for name in zoo.names()
        if zoo.task_of(name) != "detection"  # its control flow depends on values
    ]
    failures = 0
    for name in names:
        failures += _line(name, zoo.unweighted(name).eval(), zoo.example_inputs(name))
    for seed in range(options.programs if not options.models else 0):
        program = write(seed, length=options.length)
        failures += _line(f"program {seed}", program.model(), program.inputs())
    print(f"{failures} differ or fail")
    return int(failures > 0)


def _line(name: str, model: nn.Module, args: Any) -> bool:
    """Prints what was seen of one model; whether anything is wrong."""
    try:
        recorded, exported = both(model.eval(), args)
    except planc.PlancError as error:
        print(f"{name:<32} failed: {error}", flush=True)
        return True
    what = difference(recorded, exported)
    counts = f"{recorded.operators:>5} {exported.operators:>5} operators"
    times = f"{recorded.seconds:6.2f} {exported.seconds:6.2f} s"
    print(f"{name:<32} {counts} {times} {len(recorded.groups):>4} groups  {what or 'the same'}")
    return bool(what)


if __name__ == "__main__":
    raise SystemExit(main())
