"""A plan says what it is, in a line and in a few."""

from __future__ import annotations

import pydoc
from dataclasses import replace

import pytest
from hypothesis import given

import planc
from planc.plan.masks import MaskPlan
from planc.plan.plan import Plan
from planc.plan.review.figures import change, duration, figure, share
from tests.masks.drawn import mask_plans
from tests.scripts.screens import SCREENS
from tests.support.strategies import example_plan, plans

PLAN = example_plan()


@given(plans())
def test_a_plan_is_one_line_and_its_text_a_few(plan: Plan) -> None:
    assert "\n" not in repr(plan)
    assert plan.fingerprint[:8] in repr(plan)
    assert len(repr(plan)) < 200
    assert str(plan) == plan.summary()
    assert len(str(plan).splitlines()) < 40


@given(mask_plans())
def test_a_mask_plan_is_one_line(masks: MaskPlan) -> None:
    assert "\n" not in repr(masks)
    assert f"{masks.removed:,} of {masks.size:,} elements" in str(masks)


def test_the_text_of_a_plan_is_its_summary() -> None:
    plan = planc.load_plan(SCREENS / "resnet50.planc")
    assert str(plan).splitlines()[1:6] == [
        "l2, uniform(0.5), seed 0",
        "37 groups, 11,456 channels: 5,728 removed",
        "parameters 25.6 M → 6.9 M (−73 %)",
        "MACs 4.09 G → 1.05 G (−74 %) per example",
        "  conv1             64 → 32 (−50 %)",
    ]
    assert repr(plan) == (
        "<Plan 12a55ee4 for a module: 37 groups, 11,456 channels: 5,728 removed; "
        "parameters −73 %, MACs −74 %>"
    )


def test_the_summary_says_where_the_weights_come_from() -> None:
    for origin, said in (("file", "read from a file"), ("factory", "as the factory")):
        entry = replace(PLAN.provenance[0], weights=b"\xab" * 32, origin=origin)
        assert f"weights abababababababab, {said}"[:40] in str(PLAN.replace(provenance=(entry,)))
    assert "weights" not in str(PLAN)


def test_texts_of_a_plan_cannot_steer_a_terminal() -> None:
    odd = replace(PLAN.groups[0], name="a\x1b[2J\n:0", kind="\x1b[31mchannels")
    entry = replace(PLAN.provenance[0], criterion="l2\x1b]0;title\x07", policy="\u202ereversed")
    plan = PLAN.replace(groups=(odd,), provenance=(entry,))
    for text in (str(plan), repr(plan)):
        assert not set(text) & set("\x1b\x07\u202e")
    assert len(str(plan).splitlines()) == 6


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1_000, "1.00 k"),
        (9_994, "9.99 k"),
        (9_996, "10.0 k"),
        (99_960, "100 k"),
        (999_499, "999 k"),
        (999_600, "1.00 M"),
        (4_089_184_256, "4.09 G"),
        (7 * 10**18, "7,000 P"),
    ],
)
def test_figures_have_three_digits(value: int, text: str) -> None:
    assert figure(value) == text


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        (100, 100, "±0 %"),
        (0, 0, "±0 %"),
        (10**6, 10**6 - 1, "−0.1 %"),
        (10**6, 1, "−99.9 %"),
        (10**6, 0, "−100 %"),
        (64, 32, "−50 %"),
        (64, 96, "+50 %"),
        (1000, 992, "−0.8 %"),
        (1000, 991, "−0.9 %"),
    ],
)
def test_a_share_never_rounds_a_change_away(before: int, after: int, text: str) -> None:
    assert share(before, after) == text


def test_both_sides_of_a_change_have_the_same_form_where_they_can() -> None:
    assert change(25_557_032, 6_917_640) == "25.6 M → 6.9 M (−73 %)"
    assert change(1_363_584, 405_312) == "1.36 M → 405 k (−70 %)"
    assert change(1_000, 0) == "1.00 k → 0 (−100 %)"


def test_times_have_a_unit() -> None:
    assert [duration(n) for n in (7, 12_000, 12_340_000, 3 * 10**9)] == [
        "7 ns", "12.0 µs", "12.3 ms", "3.00 s",
    ]  # fmt: skip


def test_help_lists_public_names_alone() -> None:
    public = {*planc.__all__, "criteria", "masks", "penalties", "plot", "policy"}
    assert {name for name in dir(planc) if not name.startswith("__")} == public
    assert "import_module" not in pydoc.render_doc(planc, renderer=pydoc.plaintext)
