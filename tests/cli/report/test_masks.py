"""Shown mask plans name what people look for."""

from __future__ import annotations

import json
import re

import numpy as np
from hypothesis import given

from planc import diff
from planc.cli.report.masks import masks_diff_screen, masks_json, masks_screen
from planc.plan.masks import MaskPlan, mask_plan
from planc.plan.plan import Provenance, TensorSpec
from tests.cli.report.printed import text
from tests.masks.drawn import mask_plans, several_for_one

TABLE = (TensorSpec(("a.weight",), (4, 5), "parameter"), TensorSpec(("a.bias",), (4,), "parameter"))
MADE = Provenance("magnitude", "2:4 along 1", 0, (("planc", "0.1.0"),))
HALF = mask_plan(TABLE, {"a.weight": np.arange(20).reshape(4, 5) % 2 == 0}, (MADE,))


NAMES = ("a", "b")


def cells(shown: str, first: str) -> list[str]:
    """The cells of the row that begins with ``first``, without its bar."""
    rows = (re.split(r" → +|  +", line.strip(" █░")) for line in shown.splitlines())
    return next(found for found in rows if found[0] == first)


@given(mask_plans())
def test_every_mask_plan_can_be_shown(masks: MaskPlan) -> None:
    shown = text(masks_screen(masks, 100, full=True), 100)
    assert masks.fingerprint[:16] in shown
    assert all(mask.tensor in shown for mask in masks.masks)
    for full in (False, True):
        lines = text(masks_screen(masks, 60, full), 60).splitlines()
        assert all(len(line) <= 60 for line in lines)
    plain = masks_json(masks)
    assert json.loads(json.dumps(plain)) == plain
    assert sum(int(m["bitmap"], 16).bit_count() for m in plain["masks"]) == masks.removed


@given(several_for_one(2))
def test_every_difference_of_mask_plans_can_be_shown(plans: tuple[MaskPlan, ...]) -> None:
    a, b = plans
    shown = text(masks_diff_screen(diff(a, b), NAMES, 100))
    assert (shown == "a and b are equal\n") == (a == b)


def test_a_shown_mask_plan_says_what_it_removes() -> None:
    shown = text(masks_screen(HALF, 100))
    assert "magnitude, 2:4 along 1, seed 0 (planc 0.1.0)" in shown
    assert "10 of 20 elements of 1 of 2 tensors removed, −50 %" in shown
    assert cells(shown, "a.weight") == ["a.weight", "4 × 5", "20", "10", "−50 %"]


def test_a_shown_difference_counts_elements() -> None:
    other = mask_plan(TABLE, {"a.weight": np.arange(20).reshape(4, 5) < 3})
    shown = text(masks_diff_screen(diff(HALF, other), ("one.masks", "two.masks"), 100))
    assert "one.masks" in shown
    assert "elements removed  10 → 3" in shown
    assert cells(shown, "a.weight") == ["a.weight", "2", "8", "1"]
    assert "a made by" in shown


def many(counts: range) -> MaskPlan:
    names = [f"h.{i}.fc.weight" for i in counts]
    table = tuple(TensorSpec((name,), (10, 10), "parameter") for name in names)
    elements = {n: np.arange(100).reshape(10, 10) < 50 + i for i, n in enumerate(names)}
    return mask_plan(table, elements, (MADE,))


def test_like_tensors_share_a_row() -> None:
    shown = text(masks_screen(many(range(40)), 100))
    [_, *found] = cells(shown, "h.0–39.fc.weight")
    assert found == ["10 × 10", "100", "30", "−70 %"]
    full = text(masks_screen(many(range(40)), 100, full=True))
    assert cells(full, "h.7.fc.weight") == ["h.7.fc.weight", "10 × 10", "100", "43", "−57 %"]
