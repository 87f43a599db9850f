"""Mask plans are sets of elements: they combine as sets do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from planc import diff
from planc.errors import PlancError, StalePlan
from planc.plan.maskdiff import diff_masks
from planc.plan.masks import MaskPlan, mask_plan
from planc.plan.plan import TensorSpec
from tests.masks.drawn import mask_plans, several_for_one
from tests.support.strategies import example_plan

TABLE = (TensorSpec(("w", "tied"), (2, 3), "parameter"), TensorSpec(("b",), (3,), "buffer"))


def elements(plan: MaskPlan) -> set[tuple[str, tuple[int, ...]]]:
    """The removed elements, spelt out."""
    return {
        (spec.name, tuple(place))
        for spec in plan.tensors
        for place in np.argwhere(plan.elements(spec.name)).tolist()
    }


@given(several_for_one(3))
def test_plans_combine_as_sets_of_elements(plans: tuple[MaskPlan, ...]) -> None:
    a, b, c = plans
    assert elements(a | b) == elements(a) | elements(b)
    assert elements(a & b) == elements(a) & elements(b)
    assert elements(a - b) == elements(a) - elements(b)
    assert ((a | b) | c).masks == (a | (b | c)).masks
    assert (a | b).masks == (b | a).masks
    assert (a | a) == a


@given(mask_plans())
def test_a_plan_is_made_of_its_elements(plan: MaskPlan) -> None:
    removed = {spec.names[-1]: plan.elements(spec.names[-1]) for spec in plan.tensors}
    assert mask_plan(plan.tensors, removed, plan.provenance) == plan
    assert plan.removed == len(elements(plan)) <= plan.size
    assert hash(plan) == hash(mask_plan(plan.tensors, removed, plan.provenance))


@given(several_for_one(2))
def test_a_difference_counts_what_each_removes_alone(plans: tuple[MaskPlan, ...]) -> None:
    a, b = plans
    found = diff(a, b)
    assert bool(found) == (a != b)
    assert sum(t.only_a for t in found.tensors) == (a - b).removed
    assert sum(t.only_b for t in found.tensors) == (b - a).removed
    assert found.to_json()["equal"] == (a == b)


def test_plans_for_unlike_tensors_do_not_combine() -> None:
    other = mask_plan((TensorSpec(("w",), (3, 2), "parameter"),), {"w": np.ones((3, 2), bool)})
    mine = mask_plan(TABLE, {"w": np.ones((2, 3), bool)})
    with pytest.raises(StalePlan, match="different models: tied: expected"):
        mine | other
    found = diff_masks(mine, other)
    assert found.source is not None
    assert [(t.only_a, t.only_b, t.both) for t in found.tensors] == [(6, 6, 0)]
    with pytest.raises(PlancError, match="two of one kind"):
        diff(example_plan(), mine)


def test_bad_masks_are_named() -> None:
    ones = np.ones((2, 3), dtype=bool)
    with pytest.raises(StalePlan, match="v: a mask for a tensor that the model does not have"):
        mask_plan(TABLE, {"v": ones})
    with pytest.raises(StalePlan, match=r"w: a mask of bool\[3\] for a tensor of shape \[2, 3\]"):
        mask_plan(TABLE, {"w": np.ones(3, dtype=bool)})
    with pytest.raises(StalePlan, match=r"a mask of float64\[2, 3\]"):
        mask_plan(TABLE, {"w": np.ones((2, 3))})
    with pytest.raises(StalePlan, match="tied: is tied to w, which has another mask"):
        mask_plan(TABLE, {"w": ones, "tied": ~ones})
    with pytest.raises(StalePlan, match="v: the mask plan was made for a model without"):
        mask_plan(TABLE, {"w": ones}).elements("v")
