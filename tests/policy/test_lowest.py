"""The lowest scores go, of all groups at once as of each by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planc.criteria import Scores
from planc.errors import PolicyError
from planc.ir.groups import Group
from planc.policy.order import lowest

few = st.sampled_from([-np.inf, -1.0, -0.0, 0.0, 0.5, 2.0, np.inf])  # so that many are equal


@st.composite
def scored(draw: Any) -> tuple[list[Group], Scores, tuple[int, ...]]:
    shapes = draw(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 5)), max_size=4))
    groups = [Group(f"{i}", "channels", r * c, r, ()) for i, (r, c) in enumerate(shapes)]
    units = tuple(
        np.array(draw(st.lists(few, min_size=g.size, max_size=g.size)), dtype=float) for g in groups
    )
    return groups, Scores(units, "drawn"), tuple(draw(st.integers(1, g.cells)) for g in groups)


@given(scored())
def test_the_lowest_of_each_row_are_removed_with_ties_to_the_first(
    drawn: tuple[list[Group], Scores, tuple[int, ...]],
) -> None:
    groups, scores, kept = drawn
    expected: list[bool] = []
    for group, units, stay in zip(groups, scores.units, kept, strict=True):
        for row in units.reshape(group.rows, -1):
            order = sorted(range(len(row)), key=lambda i: row[i])  # stable
            goes = set(order[: group.cells - stay])
            expected += [i in goes for i in range(len(row))]
    assert lowest(groups, scores, kept).tolist() == expected


def test_nan_scores_are_refused() -> None:
    groups = [Group("layer.weight:0", "channels", 2, 1, ())]
    with pytest.raises(PolicyError, match=r"layer\.weight:0 .*NaN"):
        lowest(groups, Scores((np.array([1.0, np.nan]),), "broken"), (1,))
