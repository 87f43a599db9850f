"""Distributions of scores: every unit is counted, and the threshold parts removed from kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planc.cli.report.scores import BINS, Distribution, distribution
from planc.plan.plan import PlanGroup

FLOATS = st.floats(-1e6, 1e6, width=32)


def of(scores: list[float], *removed: int) -> Distribution:
    content = np.array(scores, dtype="<f4").tobytes()
    group = PlanGroup("g", "channels", len(scores), 1, (), "", removed, content)
    found = distribution(group)
    assert found is not None
    return found


def test_a_plan_without_scores_has_no_distribution() -> None:
    assert distribution(PlanGroup("g", "channels", 2, 1, (), "", (0,))) is None


@given(st.lists(FLOATS, min_size=1, max_size=60), st.data())
def test_every_unit_is_in_one_bin(scores: list[float], data: st.DataObject) -> None:
    removed = data.draw(st.sets(st.integers(0, len(scores) - 1)))
    found = of(scores, *sorted(removed))
    assert sum(found.removed) == len(removed)
    assert sum(found.kept) == len(scores) - len(removed)
    assert len(found.kept) == len(found.removed) == BINS
    assert found.low <= found.high


@given(st.lists(FLOATS, min_size=2, max_size=60, unique=True), st.data())
def test_the_threshold_parts_removed_from_kept(scores: list[float], data: st.DataObject) -> None:
    order = np.argsort(np.array(scores, dtype="<f4"), kind="stable")
    cut = data.draw(st.integers(1, len(scores) - 1))
    found = of(scores, *sorted(order[:cut].tolist()))
    assert found.removed_to is not None
    assert found.kept_from is not None
    assert found.over == 0
    threshold = found.threshold()
    assert threshold is not None
    assert found.removed_to <= threshold <= found.kept_from


def test_overlapping_scores_have_no_threshold() -> None:
    found = of([1.0, 2.0, 3.0, 4.0], 0, 3)
    assert (found.removed_to, found.kept_from, found.over) == (4.0, 2.0, 1)
    assert found.threshold() is None


def test_groups_left_whole_have_no_threshold() -> None:
    found = of([1.0, 2.0])
    assert (found.removed_to, found.threshold()) == (None, None)


def test_scores_over_many_magnitudes_are_on_a_logarithmic_scale() -> None:
    found = of([1e-4, 1e-2, 1.0, 100.0], 0, 1)
    assert found.logarithmic
    assert found.threshold() == pytest.approx(0.1)
    assert not of([0.0, 1e-2, 1.0, 100.0]).logarithmic


def test_equal_scores_are_in_the_first_bin() -> None:
    found = of([2.0, 2.0, 2.0], 1)
    assert (found.removed[0], found.kept[0], found.tallest) == (1, 2, 3)
