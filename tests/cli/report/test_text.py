"""Shown plans name what people look for; plain data loses nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from rich.console import Console, RenderableType

from planc.cli.report.plain import plan_from_json, plan_json
from planc.cli.report.text import diff_table
from planc.errors import FileError
from planc.plan.diff import diff
from planc.plan.plan import AttributeChange, Plan
from tests.support.strategies import complete, example_plan, plans

PLAN = example_plan()


def text(renderable: RenderableType, width: int = 140) -> str:
    console = Console(width=width, no_color=True)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def row(shown: str, first: str) -> list[str]:
    """The cells of the table row that begins with ``first``."""
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.splitlines()]
    return next(cells for cells in rows if cells and cells[0] == first)


@given(plans())
def test_plain_data_loses_nothing(plan: Plan) -> None:
    plain = json.loads(json.dumps(plan_json(plan)))
    assert plain == plan_json(plan)
    assert plan_from_json(plain) == plan


@given(plans(), plans())
def test_every_difference_can_be_shown(a: Plan, b: Plan) -> None:
    assert (text(diff_table(diff(a, b))) == "the plans are equal\n") == (a == b)


def test_a_shown_difference_names_both_sides() -> None:
    groups = (replace(PLAN.groups[0], removed=(1, 2, 3)), *PLAN.groups[1:])
    changes = (AttributeChange("a", "out_features", 6, 3),)
    other = complete(PLAN.tensors, PLAN.modules, groups, changes).replace(target="graph")
    shown = text(diff_table(diff(PLAN, other)))
    assert "module in a, graph in b" in shown
    assert row(shown, "a.weight:0")[3:6] == ["1", "4 (1)", "2-3 (2)"]
    assert row(shown, "a.out_features") == ["a.out_features", "6 -> 4", "6 -> 3"]
    assert row(shown, "a.scale") == ["a.scale", "0.5 -> 0.25", "left as it is"]
    assert row(shown, "parameters")[3].startswith("-")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("fingerprint", "0" * 64),
        ("target", "moon"),
        ("groups", None),
        ("shapes", "xyz"),
        ("source", {"tensors": ""}),
        ("requires", ["magic"]),
        ("inputs", [1]),
        ("cost_after", {"macs": 1.5, "params": 1, "bytes": 1}),
    ],
)
def test_plain_data_that_is_no_plan_is_refused(field: str, value: Any) -> None:
    with pytest.raises(FileError):
        plan_from_json(plan_json(PLAN) | {field: value})
    missing = plan_json(PLAN)
    del missing[field]
    with pytest.raises(FileError):
        plan_from_json(missing)
