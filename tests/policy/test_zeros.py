"""Zeros removes the units that are worth nothing, and none that are worth something."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import planc
from planc.criteria.scores import Scores
from planc.errors import PolicyError
from planc.policy import Zeros
from tests.support.small import build

MODEL, INPUTS = build("grouped")
ANALYSIS = planc.analyze(planc.trace(MODEL, INPUTS))


@given(st.integers(0, 10**6), st.sampled_from((0.0, 0.25, 1.0)))
def test_units_below_the_threshold_are_removed_with_rows_equally_long(
    seed: int, threshold: float
) -> None:
    rng = np.random.default_rng(seed)
    units = tuple(rng.choice([0, 0.2, 0.6], size=group.size) for group in ANALYSIS.groups)
    plan = planc.select(ANALYSIS, Scores(units, "drawn"), Zeros(threshold))
    for group, own in zip(plan.groups, units, strict=True):
        gone = own[list(group.removed)]
        assert (gone <= threshold).all()
        worthless = (own <= threshold).reshape(group.rows, -1).sum(axis=1).min()
        cells = group.size // group.rows
        assert len(group.removed) == group.rows * min(worthless, cells - 1)


@pytest.mark.parametrize("threshold", [-1, float("nan"), "0", None, True])
def test_a_threshold_is_a_number_of_at_least_zero(threshold: Any) -> None:
    with pytest.raises(PolicyError, match="give 0 or more"):
        Zeros(threshold)
