"""Screens of differences: both files, sums, widths before units; golden texts of known models."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from planc import diff, load_plan
from planc.cli.report.difference import STAT, Pair, diff_screen
from planc.plan.plan import AttributeChange, Plan
from planc.plan.review.scores import rank_correlation
from tests.cli.report.printed import text
from tests.scripts.screens import SCREENS
from tests.support.strategies import complete, example_plan, plans

PLAN = example_plan()
MODELS = ("resnet50", "vit_b_16", "llama")


def shown(
    a: Plan,
    b: Plan,
    width: int = 100,
    full: bool = False,
    stat: bool = False,
    names: tuple[str, str] = ("old.planc", "new.planc"),
) -> str:
    return text(diff_screen(Pair(a, b, names, diff(a, b)), width, full, stat), width)


def both(name: str) -> tuple[Plan, Plan]:
    return load_plan(SCREENS / f"{name}.planc"), load_plan(SCREENS / f"{name}-global.planc")


def with_scores(plan: Plan, seed: int) -> Plan:
    draw = np.random.default_rng(seed)
    groups = tuple(
        replace(group, scores=draw.random(group.size, dtype=np.float32).tobytes())
        for group in plan.groups
    )
    return plan.replace(groups=groups)


@pytest.mark.parametrize("width", [80, 160])
@pytest.mark.parametrize("name", MODELS)
def test_differences_are_the_golden_texts(name: str, width: int, regenerate: bool) -> None:
    a, b = both(name)
    found = f"{shown(a, b, width)}\n--stat\n{shown(a, b, width, stat=True)}"
    path = SCREENS / f"{name}.diff.{width}.txt"
    if regenerate:
        path.write_text(found)
    assert found == path.read_text(), f"if the change is right: pytest --regenerate {__file__}"


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_short_form_takes_ten_lines(name: str, width: int) -> None:
    lines = shown(*both(name), width, stat=True).splitlines()
    assert len(lines) <= STAT
    assert all(len(line) <= width for line in lines)


@settings(max_examples=15)
@given(plans(), plans())
def test_every_difference_can_be_shown(a: Plan, b: Plan) -> None:
    for full, stat in ((False, False), (True, False), (False, True)):
        found = shown(a, b, 90, full, stat)
        assert (found == "old.planc and new.planc are equal\n") == (a == b)
        assert all(len(line) <= 90 for line in found.splitlines())
        assert "old.planc" in found
        assert "new.planc" in found


@settings(max_examples=15)
@given(plans(), plans())
def test_the_full_form_lists_every_unit_of_only_one(a: Plan, b: Plan) -> None:
    found = shown(a, b, 160, full=True)
    for entry in diff(a, b).groups:
        for units in (entry.only_a, entry.only_b):
            assert not units or f" {len(units):,}: {units[0]}" in found


def test_a_shown_difference_names_widths_before_units() -> None:
    groups = (replace(PLAN.groups[0], removed=(1, 2, 3)), *PLAN.groups[1:])
    changes = (AttributeChange("a", "out_features", 6, 3), AttributeChange("a", "scale", 0.5, 0.1))
    other = complete(PLAN.tensors, PLAN.modules, groups, changes).replace(target="graph")
    found = shown(PLAN, other)
    assert "target       module → graph" in found
    assert "a  old.planc  l2, ratio 0.5, seed 0" in found
    assert "1 of 3 groups remove other units, 25 % of them the same" in found
    assert "a      4 → 3  25 %" in found
    assert "a.scale  0.5 → 0.25 in a, 0.5 → 0.1 in b" in found
    assert "out_features" not in found
    full = shown(PLAN, other, full=True)
    assert "+ b keeps    1: 4" in full
    assert "− b removes  2: 2–3" in full
    assert "a.out_features  6 → 4 in a, 6 → 3 in b" in full


def test_scores_are_compared_by_rank() -> None:
    same = with_scores(PLAN, 0)
    groups = (replace(same.groups[0], removed=(1, 2)), *same.groups[1:])
    found = shown(same, same.replace(groups=groups))
    assert "rank correlation of the scores 1.00" in found
    assert "ranks" in found
    assert "groups with other scores" in shown(same, with_scores(PLAN, 1))
    assert "ranks" not in shown(
        PLAN, PLAN.replace(groups=(replace(groups[0], scores=None), *PLAN.groups[1:]))
    )


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([1, 2, 3, 4], [10, 20, 30, 400], 1.0),
        ([1, 2, 3], [3, 2, 1], -1.0),
        ([1, 1, 1], [1, 2, 3], None),
        ([1, 2, 2, 3], [1, 2, 2, 3], 1.0),
        ([1], [2], None),
        ([1, 2, 3, 4, 5], [2, 1, 4, 3, 5], 0.8),
    ],
)
def test_rank_correlation_is_spearmans(a: list[int], b: list[int], expected: float | None) -> None:
    found = rank_correlation(np.array(a, float), np.array(b, float))
    assert found == (None if expected is None else pytest.approx(expected))


def test_what_plans_were_computed_from_is_compared() -> None:
    def made(**changes: object) -> Plan:
        entry = replace(PLAN.provenance[0], **changes)  # type: ignore[arg-type]
        return PLAN.replace(provenance=(entry,))

    one = made(weights=bytes(32), origin="file")
    assert "weights      a: 0000000000000000, read from a file" in shown(one, PLAN)
    assert "b: unknown" in shown(one, PLAN)
    assert "the same: 0000000000000000" in shown(
        one, made(weights=bytes(32), origin="file", seed=3)
    )
    assert "statistics   a: none" in shown(PLAN, made(statistics=b"\x01" * 32))
    assert "decisions    a: none" in shown(PLAN, made(decisions=("keep a.weight:0 2,6",)))


def test_groups_of_one_plan_only_are_named_with_its_file() -> None:
    fewer = complete(PLAN.tensors, PLAN.modules, PLAN.groups[1:], PLAN.attributes)
    found = shown(PLAN, fewer)
    assert "only in old.planc: a.weight:0" in found
    assert "made for     different structures" in found
