"""A difference of plans is what one removes that the other does not, and nothing for equal ones."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from planc.plan.diff import AttributeDiff, GroupDiff, diff
from planc.plan.plan import AttributeChange, Cost, Plan
from tests.support.strategies import complete, example_plan, plans, successors

PLAN = example_plan()


@given(plans())
def test_a_plan_does_not_differ_from_itself(plan: Plan) -> None:
    difference = diff(plan, plan)
    assert not difference
    assert difference.same_source
    assert difference.to_json()["equal"]


@given(plans(), plans())
def test_plans_differ_exactly_when_they_are_unequal(a: Plan, b: Plan) -> None:
    assert bool(diff(a, b)) == (a != b)


@given(st.data())
def test_a_plan_for_the_result_has_another_source(data: st.DataObject) -> None:
    plan = data.draw(plans())
    second = data.draw(successors(plan))
    assert diff(plan, second).same_source == (plan.source == second.source)


@given(plans(), plans())
def test_the_difference_backwards_swaps_both_sides(a: Plan, b: Plan) -> None:
    there, back = diff(a, b), diff(b, a)
    assert there.groups_only_a == back.groups_only_b
    assert {(g.name, g.only_a) for g in there.groups} == {(g.name, g.only_b) for g in back.groups}
    assert json.loads(json.dumps(there.to_json())) == there.to_json()


def with_group(index: int, **changes: object) -> Plan:
    groups = list(PLAN.groups)
    groups[index] = replace(groups[index], **changes)  # type: ignore[arg-type]
    return complete(PLAN.tensors, PLAN.modules, tuple(groups), PLAN.attributes)


def test_units_are_sorted_into_those_of_one_and_of_both() -> None:
    difference = diff(PLAN, with_group(0, removed=(1, 2, 3)))
    assert difference.groups == (
        GroupDiff("a.weight:0", "channels", 6, (4,), (2, 3), both=(1,), kept=(4, 3)),
    )
    assert difference.groups[0].overlap == 1 / 4
    assert difference.to_json()["groups"][0]["overlap"] == 1 / 4
    assert difference.same_source
    assert difference.cost_after[1].params < difference.cost_after[0].params


def test_a_group_that_is_described_differently_is_listed() -> None:
    (group,) = diff(PLAN, with_group(0, kind="features", mixing="")).groups
    assert group.described == ("kind", "mixing")
    assert (group.only_a, group.only_b, group.both) == ((), (), (1, 4))


def test_groups_of_one_plan_only_are_named() -> None:
    fewer = complete(PLAN.tensors, PLAN.modules, PLAN.groups[1:], PLAN.attributes)
    difference = diff(PLAN, fewer)
    assert difference.groups_only_a == ("a.weight:0",)
    assert difference.groups_only_b == ()
    assert difference.source == "the groups or their members differ"


def test_attributes_that_change_differently_are_listed() -> None:
    other = PLAN.replace(attributes=(AttributeChange("a", "out_features", 6, 5),))
    assert diff(PLAN, other).attributes == (
        AttributeDiff("a", "out_features", (6, 4), (6, 5)),
        AttributeDiff("a", "scale", (0.5, 0.25), None),
        AttributeDiff("a", "shape", ((6, (1, 2)), (4, (1, 2))), None),
    )


def test_a_different_order_is_a_difference() -> None:
    assert diff(PLAN, PLAN.replace(groups=PLAN.groups[::-1])).others == ("order of groups",)
    reordered = PLAN.replace(attributes=PLAN.attributes[::-1])
    assert diff(PLAN, reordered).others == ("order of attributes",)


def test_everything_else_that_differs_is_named() -> None:
    other = PLAN.replace(target="graph", provenance=(), cost_before=Cost(1, 2, 3), shapes=bytes(32))
    difference = diff(PLAN, other)
    assert difference.target == ("module", "graph")
    assert difference.provenance == (PLAN.provenance, ())
    assert difference.cost_before == (PLAN.cost_before, Cost(1, 2, 3))
    assert difference.others == ("shapes",)
    assert difference.to_json()["target"] == ["module", "graph"]
