"""What columns lose is counted for all of them at once, each as if it were alone."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from planc.analysis.columns import Columns, Line
from planc.analysis.grouping import UnitMask

NOBODY = 9
NONE = UnitMask(np.zeros(NOBODY + 1, dtype=bool))
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
    columns = Columns(NOBODY, [lines(column) for column in drawn])
    lost = columns.lost(UnitMask(gone))
    for (first, second), number in zip(drawn, columns.numbers, strict=True):
        expected = sum(a in going or b in going for a, b in zip(first, second, strict=True))
        assert lost[number] == expected


@given(columns_drawn)
def test_equal_columns_have_one_number_whatever_the_order_of_their_lines(drawn: Drawn) -> None:
    both = [lines(column) for column in drawn] + [lines(column[::-1]) for column in drawn]
    numbers = Columns(NOBODY, both).numbers
    assert numbers[: len(drawn)] == numbers[len(drawn) :]
    assert len(Columns(NOBODY, both).lost(NONE)) == len(set(numbers))


def test_one_line_is_not_taken_for_two_of_half_its_length() -> None:
    one, two = ([3, 3],), ([3], [3])
    assert Columns(NOBODY, [lines(one), lines(two)]).numbers == [0, 1]
