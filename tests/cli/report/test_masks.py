"""Shown mask plans name what people look for."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import given

from planc import diff
from planc.cli.report.masks import masks_diff_table, masks_json, masks_table
from planc.plan.masks import MaskPlan, mask_plan
from planc.plan.plan import Provenance, TensorSpec
from tests.cli.report.printed import row, text
from tests.masks.drawn import mask_plans, several_for_one

TABLE = (TensorSpec(("a.weight",), (4, 5), "parameter"), TensorSpec(("a.bias",), (4,), "parameter"))
MADE = Provenance("magnitude", "2:4 along 1", 0, (("planc", "0.1.0"),))
HALF = mask_plan(TABLE, {"a.weight": np.arange(20).reshape(4, 5) % 2 == 0}, (MADE,))


@given(mask_plans())
def test_every_mask_plan_can_be_shown(masks: MaskPlan) -> None:
    shown = text(masks_table(masks))
    assert masks.fingerprint[:16] in shown
    for mask in masks.masks:
        assert row(shown, mask.tensor)[3] == f"{mask.count:,}"
    plain = masks_json(masks)
    assert json.loads(json.dumps(plain)) == plain
    assert sum(int(m["bitmap"], 16).bit_count() for m in plain["masks"]) == masks.removed


@given(several_for_one(2))
def test_every_difference_of_mask_plans_can_be_shown(plans: tuple[MaskPlan, ...]) -> None:
    a, b = plans
    assert (text(masks_diff_table(diff(a, b))) == "a and b are equal\n") == (a == b)


def test_a_shown_mask_plan_says_what_it_removes() -> None:
    shown = text(masks_table(HALF))
    assert "magnitude, 2:4 along 1, seed 0 (planc 0.1.0)" in shown
    assert "10 of 20 elements, 50.0% left" in shown
    assert "tensors: 1 of 2 lose elements" in shown
    assert row(shown, "a.weight") == ["a.weight", "[4, 5]", "20", "10", "50.0%"]


def test_a_shown_difference_counts_elements() -> None:
    other = mask_plan(TABLE, {"a.weight": np.arange(20).reshape(4, 5) < 3})
    shown = text(masks_diff_table(diff(HALF, other)))
    assert "10 elements in a, 3 in b" in shown
    assert row(shown, "a.weight") == ["a.weight", "2", "8", "1"]
    assert "a made by" in shown
