"""The record of a page: the flow of a group, by the layout of torch's layers."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from planc.cli.report.record import record
from planc.cli.report.sides import Sides
from planc.ir.groups import Member, Run
from planc.plan.plan import ModuleSpec, Plan, PlanGroup, TensorSpec
from tests.support.strategies import complete, example_plan, plans

WHOLE = (Run(0, 4, 0, 1),)


def nodes(
    class_name: str, shape: tuple[int, ...], dim: int, kind: str = "parameter", groups: int = 1
) -> list[list[Any]]:
    """The nodes of a group with one member, in a module ``m`` of that class."""
    group = PlanGroup("g", "channels", 4, 1, (Member("m.weight", dim, WHOLE),))
    attributes = (("class", class_name), ("groups", groups))
    plan = complete(
        (TensorSpec(("m.weight",), shape, kind),), (ModuleSpec("m", attributes),), (group,), ()
    )
    found: list[list[Any]] = json.loads(record(Sides((plan,))))["groups"][0]["nodes"]
    return found


@pytest.mark.parametrize(
    ("class_name", "shape", "dim", "role"),
    [
        ("Linear", (4, 8), 0, "writes"),
        ("Linear", (8, 4), 1, "reads"),
        ("Conv2d", (4, 8, 3, 3), 0, "writes"),
        ("Conv2d", (8, 4, 3, 3), 1, "reads"),
        ("ConvTranspose2d", (4, 8, 3, 3), 0, "reads"),
        ("ConvTranspose2d", (8, 4, 3, 3), 1, "writes"),
        ("Embedding", (100, 4), 1, "writes"),
        ("LayerNorm", (4,), 0, "carries"),
        ("Encoder", (1, 197, 4), 2, "carries"),
    ],
)
def test_layers_write_or_read_a_group(
    class_name: str, shape: tuple[int, ...], dim: int, role: str
) -> None:
    assert nodes(class_name, shape, dim) == [["m", role, [[0, dim]]]]


def test_depthwise_convolutions_and_buffers_carry_a_group() -> None:
    assert nodes("Conv2d", (4, 1, 3, 3), 0, groups=4)[0][1] == "carries"
    assert nodes("Conv2d", (4, 1, 3, 3), 0)[0][1] == "writes"
    assert nodes("Table", (4, 8), 0, kind="buffer")[0][1] == "carries"


def test_a_bias_goes_with_its_weight() -> None:
    members = (Member("m.bias", 0, WHOLE), Member("m.weight", 0, WHOLE))
    tensors = (
        TensorSpec(("m.bias",), (4,), "parameter"),
        TensorSpec(("m.weight",), (4, 2), "parameter"),
    )
    plan = complete(tensors, (), (PlanGroup("g", "channels", 4, 1, members),), ())
    found = json.loads(record(Sides((plan,))))["groups"][0]["nodes"]
    assert found == [["m", "writes", [[0, 0], [1, 0]]]]


@settings(max_examples=25)
@given(plans())
def test_bitmaps_hold_the_removed_units(plan: Plan) -> None:
    for group, drawn in zip(plan.groups, json.loads(record(Sides((plan,))))["groups"], strict=True):
        side = drawn["sides"][0]
        octets = np.frombuffer(b64decode(side["bits"]), dtype=np.uint8)
        units = np.flatnonzero(np.unpackbits(octets, bitorder="little")).tolist()
        assert units == list(group.removed)
        assert side["size"] == group.size
        assert side["removed"] == len(group.removed)


def test_shapes_are_given_after_each_plan() -> None:
    plan = example_plan()
    whole = complete(plan.tensors, plan.modules, (), ())
    found = json.loads(record(Sides((plan, whole))))
    assert found["tensors"][0] == ["a.weight", [6, 1], [4, 1], 0]
    assert found["groups"][0]["sides"][1] is None
    assert found["attributes"][0] == ["a.out_features", "6", "4", "6"]


def test_a_unit_costs_a_fraction_of_a_byte() -> None:
    size = 100_000
    run = (Run(0, size, 0, 1),)
    group = PlanGroup("g", "c", size, 1, (Member("m.w", 0, run),), "", tuple(range(0, size, 2)))
    plan = complete((TensorSpec(("m.w",), (size,), "parameter"),), (), (group,), ())
    assert len(record(Sides((plan,)))) < size / 5
