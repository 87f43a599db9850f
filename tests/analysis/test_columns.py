"""What columns lose is counted for all of them at once, each as if it were alone."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from planc.analysis.columns import Columns, Line

NOBODY = 9
Drawn = list[tuple[list[int], list[int]]]
columns_drawn = st.lists(
    st.integers(0, 5).flatmap(
        lambda size: st.tuples(
            st.lists(st.integers(0, NOBODY), min_size=size, max_size=size),
            st.lists(st.integers(0, NOBODY), min_size=size, max_size=size),
        )
    ),
    max_size=6,
)


def lines(column: tuple[list[int], ...]) -> tuple[Line, ...]:
    return tuple(np.array(line, dtype=np.int64) for line in column)


@given(columns_drawn, st.sets(st.integers(0, NOBODY - 1)))
def test_a_coordinate_goes_with_any_of_its_units(drawn: Drawn, going: set[int]) -> None:
    gone = np.isin(np.arange(NOBODY + 1), list(going))
    columns, numbers = Columns(NOBODY).joined([lines(column) for column in drawn])
    lost = columns.lost(gone)
    for (first, second), number in zip(drawn, numbers, strict=True):
        expected = sum(a in going or b in going for a, b in zip(first, second, strict=True))
        assert lost[number] == expected


@given(columns_drawn)
def test_equal_columns_have_one_number_whatever_the_order_of_their_lines(drawn: Drawn) -> None:
    columns, numbers = Columns(NOBODY).joined([lines(column) for column in drawn])
    again, same = columns.joined([lines(column[::-1]) for column in drawn])
    assert same == numbers
    assert len(again.lines) == len(columns.lines) == len(set(numbers))


def test_one_line_is_not_taken_for_two_of_half_its_length() -> None:
    one, two = ([3, 3],), ([3], [3])
    assert Columns(NOBODY).joined([lines(one), lines(two)])[1] == [0, 1]
