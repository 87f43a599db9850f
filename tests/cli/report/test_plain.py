"""Plain data of plans loses nothing, and is checked on the way back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given

from planc.cli.report.plain import plan_from_json, plan_json
from planc.errors import FileError
from planc.plan.plan import Plan
from tests.support.strategies import example_plan, plans

PLAN = example_plan()


@given(plans())
def test_plain_data_loses_nothing(plan: Plan) -> None:
    plain = json.loads(json.dumps(plan_json(plan)))
    assert plain == plan_json(plan)
    assert plan_from_json(plain) == plan


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
