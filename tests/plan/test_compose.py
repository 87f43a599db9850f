"""Composition is what two plans do one after the other, and it is associative."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planc.errors import PolicyError, StalePlan
from planc.files.formats import decode_plan, encode_plan
from planc.ir.groups import Member, Over, Run, compress
from planc.plan.compose import compose
from planc.plan.fingerprint import modules_after, tensors_after
from planc.plan.plan import AttributeChange, OutputChange, Plan, PlanGroup, TensorSpec
from tests.support.strategies import (
    arrays,
    complete,
    cut_arrays,
    example_plan,
    plans,
    retraced,
    successors,
)


def unpruned(plan: Plan) -> Plan:
    """The plan that leaves what ``plan`` produces as it is."""
    tensors = tensors_after(plan.tensors, plan.cuts)
    modules = modules_after(plan.modules, plan.attributes)
    empty = complete(tensors, modules, retraced(plan), ())
    return empty.replace(provenance=(), cost_before=plan.cost_after, shapes=plan.shapes)


@pytest.mark.long
@given(st.data())
@settings(max_examples=200)
def test_a_composed_plan_cuts_as_its_parts_do_in_turn(data: st.DataObject) -> None:
    first = data.draw(plans())
    second = data.draw(successors(first))
    composed = compose(first, second)
    whole = arrays(first)
    at_once = cut_arrays(composed, whole)
    in_turn = cut_arrays(second, cut_arrays(first, whole))
    for name, array in in_turn.items():
        np.testing.assert_array_equal(at_once[name], array)
    assert composed.source == first.source
    assert composed.result == second.result
    assert composed.provenance == first.provenance + second.provenance
    assert (composed.cost_before, composed.cost_after) == (first.cost_before, second.cost_after)


@pytest.mark.long
@given(st.data())
@settings(max_examples=200)
def test_composition_is_associative(data: st.DataObject) -> None:
    first = data.draw(plans())
    second = data.draw(successors(first))
    third = data.draw(successors(second))
    left = compose(compose(first, second), third)
    right = compose(first, compose(second, third))
    assert left == right
    assert encode_plan(left) == encode_plan(right)


@given(st.data())
def test_a_composed_plan_can_be_saved(data: st.DataObject) -> None:
    first = data.draw(plans())
    composed = compose(first, data.draw(successors(first)))
    assert decode_plan(encode_plan(composed)) == composed


@given(plans())
def test_composing_with_nothing_changes_nothing(plan: Plan) -> None:
    empty = unpruned(plan)
    assert compose(plan, empty.replace(result=plan.result)) == plan


def test_removing_a_head_then_cells_fills_the_removed_head_from_below() -> None:
    plan = heads_and_cells(heads=(1,), cells=())
    second = pruned(unpruned(plan), cells=(2, 3))
    composed = compose(plan, second)
    assert [group.removed for group in composed.groups] == [(1,), (2, 3, 6)]
    # row 1 is gone anyway: its first cell stands for the one each other row loses
    assert composed.cuts["q"].kept[0] is not None
    assert composed.cuts["q"].kept[0].tolist() == [0, 1, 7, 8]


def test_removing_cells_then_a_head_takes_the_whole_head() -> None:
    plan = heads_and_cells(heads=(), cells=(0, 4, 8))
    second = pruned(unpruned(plan), heads=(2,))
    composed = compose(plan, second)
    assert [group.removed for group in composed.groups] == [(2,), (0, 4, 8)]


def test_heads_of_one_cell_are_still_heads() -> None:
    plan = heads_and_cells(heads=(), cells=(0, 1, 3, 4, 6, 7))
    second = pruned(unpruned(plan), heads=(0,))
    assert compose(plan, second).groups[0].removed == (0,)


def test_attributes_are_chained_and_those_that_return_are_dropped() -> None:
    plan = example_plan()
    modules = modules_after(plan.modules, plan.attributes)
    changes = (
        AttributeChange("a", "out_features", 4, 6),
        AttributeChange("a", "shape", (4, (1, 2)), (3, (1, 2))),
        AttributeChange("tied", "out_features", 6, 5),
    )
    second = complete(tensors_after(plan.tensors, plan.cuts), modules, retraced(plan), changes)
    assert compose(plan, second).attributes == (
        AttributeChange("a", "scale", 0.5, 0.25),
        AttributeChange("a", "shape", (6, (1, 2)), (3, (1, 2))),
        AttributeChange("tied", "out_features", 6, 5),
    )


def test_a_break_in_the_chain_of_an_attribute_is_named() -> None:
    plan = example_plan()
    modules = modules_after(plan.modules, plan.attributes)
    changes = (AttributeChange("a", "scale", 0.5, 0.125),)
    second = complete(tensors_after(plan.tensors, plan.cuts), modules, retraced(plan), changes)
    with pytest.raises(StalePlan, match=r"a\.scale: 0\.5 -> 0\.25"):
        compose(plan, second)


def test_a_plan_for_other_tensors_is_stale() -> None:
    plan = example_plan()
    with pytest.raises(StalePlan, match=r"tensors differ: a\.weight: expected shape \(4, 1\)"):
        compose(plan, plan)


def test_a_plan_for_other_attributes_is_stale() -> None:
    plan = example_plan()
    second = complete(tensors_after(plan.tensors, plan.cuts), plan.modules, retraced(plan), ())
    with pytest.raises(StalePlan, match="attributes differ: a: expected out_features = 4"):
        compose(plan, second)


def test_plans_for_different_targets_do_not_compose() -> None:
    plan = example_plan()
    with pytest.raises(PolicyError, match="'module', the second for 'graph'"):
        compose(plan, unpruned(plan).replace(target="graph"))


def test_a_group_that_the_first_plan_does_not_know_is_refused() -> None:
    plan = heads_and_cells(heads=(), cells=())
    pairs = PlanGroup("odd", "pairs", 3, 1, (Member("k", 0, (Run(0, 3, 0, 3, 2),)),), "", (0,))
    second = complete(plan.tensors, (), (pairs,), ())
    with pytest.raises(StalePlan, match=r"odd \(3 pairs\)"):
        compose(plan, second)


def test_a_group_with_members_missing_is_refused() -> None:
    plan = heads_and_cells(heads=(), cells=())
    cells = plan.groups[1]
    partial = replace(cells, members=cells.members[:1], removed=(0, 3, 6))
    second = complete(plan.tensors, (), (partial,), ())
    with pytest.raises(StalePlan, match="v: no removal of groups of the first plan"):
        compose(plan, second)


def heads_and_cells(heads: tuple[int, ...], cells: tuple[int, ...]) -> Plan:
    """Three heads of three cells: in ``q`` one after another, in ``v`` as rows with columns."""
    units = np.arange(9)
    columns = tuple(
        Member("v", 1, compress(np.arange(3) + 3 * head, np.arange(3)), Over(0, head, head + 1))
        for head in range(3)
    )
    groups = (
        PlanGroup(
            "heads",
            "heads",
            3,
            1,
            (Member("q", 0, compress(units // 3, units)), Member("v", 0, (Run(0, 3, 0, 1),))),
            "",
            heads,
        ),
        PlanGroup(
            "cells", "cells", 9, 3, (Member("q", 0, (Run(0, 9, 0, 1),)), *columns), "", cells
        ),
    )
    tensors = tuple(
        TensorSpec((name,), shape, "parameter")
        for name, shape in (("q", (9,)), ("v", (3, 3)), ("k", (9, 2)))
    )
    return complete(tensors, (), groups, ())


def pruned(plan: Plan, heads: tuple[int, ...] = (), cells: tuple[int, ...] = ()) -> Plan:
    chosen = {"heads": heads, "cells": cells}
    groups = tuple(replace(group, removed=chosen[group.name]) for group in plan.groups)
    return complete(plan.tensors, plan.modules, groups, ())


@st.composite
def output_chains(draw: st.DrawFn) -> list[tuple[int, tuple[int, ...]]]:
    """Sizes and kept indices of one output that shrinks three times."""
    size, chain = draw(st.integers(4, 12)), []
    for least in (3, 2, 1):
        indices = st.sets(st.integers(0, size - 1), min_size=least, max_size=size - 1)
        chain.append((size, tuple(sorted(draw(indices)))))
        size = len(chain[-1][1])
    return chain


@given(output_chains())
def test_an_output_that_shrinks_again_keeps_indices_of_the_original(
    chain: list[tuple[int, tuple[int, ...]]],
) -> None:
    base = example_plan()
    empty = unpruned(base).replace(result=base.result)
    again = unpruned(empty).replace(result=base.result)
    steps = [
        plan.replace(outputs=(OutputChange("y", 1, *change), OutputChange(name, 0, 2, (1,))))
        for name, plan, change in zip("abc", (base, empty, again), chain, strict=True)
    ]
    composed = compose(compose(steps[0], steps[1]), steps[2])
    assert composed == compose(steps[0], compose(steps[1], steps[2]))
    original = np.arange(chain[0][0])
    for _, kept in chain:
        original = original[list(kept)]
    first = composed.outputs[0]
    assert (first.size, first.kept) == (chain[0][0], tuple(original.tolist()))
    assert [output.name for output in composed.outputs] == ["y", "a", "b", "c"]
    assert decode_plan(encode_plan(composed)) == composed


def test_an_output_of_another_size_than_the_first_plan_left_is_refused() -> None:
    base = example_plan()
    empty = unpruned(base).replace(result=base.result)
    first = base.replace(outputs=(OutputChange("y", 1, 6, (0, 2)),))
    second = empty.replace(outputs=(OutputChange("y", 1, 3, (0,)),))
    with pytest.raises(StalePlan, match=r"keeps 2 indices of dimension 1, the second .* for 3"):
        compose(first, second)


def test_scores_of_two_computations_are_not_composed() -> None:
    base = example_plan()
    scores = np.zeros(6, "<f4").tobytes()
    groups = (replace(base.groups[0], scores=scores), *base.groups[1:])
    composed = compose(base.replace(groups=groups), unpruned(base).replace(result=base.result))
    assert all(group.scores is None for group in composed.groups)
