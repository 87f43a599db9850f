"""What runs cover is counted as it is where every index is written out."""

from __future__ import annotations

import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from planc.files.disk.limits import DEFAULT, Limits
from planc.files.formats.coverage import are_distinct, count, repeated, smallest
from planc.ir.groups import Run

SMALL, STEPS = st.integers(1, 4), st.integers(-5, 5)
RUNS = st.lists(
    st.builds(Run, st.just(0), SMALL, st.integers(20, 40), STEPS, SMALL, SMALL, st.integers(0, 5)),
    max_size=3,
)


def indices(run: Run) -> list[int]:
    found: list[int] = run.expand()[1].tolist()
    return found


@given(RUNS)
def test_what_two_runs_or_one_have_twice_is_found(runs: list[Run]) -> None:
    listed = [index for run in runs for index in indices(run)]
    twice = {index for index in listed if listed.count(index) > 1}
    said = repeated(runs, "here", DEFAULT)
    assert bool(said) == bool(twice)
    if are_distinct(runs):
        assert not twice
    for run in runs:
        assert smallest(run) == min(indices(run))
        assert run.largest == max(indices(run))
    if found := re.fullmatch(r"index (\d+) is listed twice", said):
        assert int(found[1]) in twice


@given(RUNS, st.data())
def test_chosen_indices_are_counted_once(runs: list[Run], data: st.DataObject) -> None:
    marks = [np.array(data.draw(st.lists(st.booleans(), min_size=4, max_size=4))) for _ in runs]
    chosen = {
        int(index)
        for run, mark in zip(runs, marks, strict=True)
        for unit, index in zip(*run.expand(), strict=True)
        if mark[unit]
    }
    assert count(list(zip(runs, marks, strict=True)), "here", DEFAULT) == len(chosen)


def test_what_lies_apart_by_arithmetic_needs_no_marks() -> None:
    for runs in (
        [],
        [Run(0, 1, 7, 0)],
        [Run(0, 1 << 40, 0, 3, 3)],
        [Run(0, 1 << 40, 0, 1, 1, 5, 1 << 40)],
        [Run(0, 4, 9, -3, 3), Run(4, 4, 12, 1)],
        [Run(0, 4, 100, 1), Run(4, 4, 96, 1)],
    ):
        assert are_distinct(runs), runs
    for runs in (
        [Run(0, 2, 0, 0)],
        [Run(0, 4, 0, 2, 3)],
        [Run(0, 4, 0, 1), Run(4, 4, 3, 1)],
        [Run(0, 2, 0, 2), Run(2, 2, 1, 2)],
        [Run(0, 2, 0, 1, 1, 2, 1)],
    ):
        assert not are_distinct(runs), runs


def test_no_runs_need_no_marks() -> None:
    assert repeated([], "here", Limits(marks=0)) == ""
    assert count([], "here", Limits(marks=0)) == 0


def test_the_index_that_is_there_twice_is_named() -> None:
    first = Run(0, 2, 5, 20, 3, 2, 8)  # 5 6 7, 13 14 15, 25 26 27, 33 34 35
    for index in (5, 7, 13, 15, 25, 33, 34, 35):
        said = repeated([Run(0, 1, index, 0), first], "here", DEFAULT)
        assert said == f"index {index} is listed twice"
    assert repeated([Run(0, 2, 3, 0)], "here", DEFAULT) == (
        "a run has an index that is listed twice"
    )
