"""The indices covered by runs, counted and compared without expanding them.

A run of some thirty bytes may stand for billions of indices. Usually its parts are disjoint by
arithmetic, and so are the runs, so that counts are products. Otherwise the runs are marked in a
bitmap of bounded length.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from planc.files.disk.limits import Limits
from planc.ir.groups import Run

Marks = NDArray[np.bool_]
Chosen = tuple[Run, Marks]  # a run, and the chosen units of its group


def are_distinct(runs: Sequence[Run]) -> bool:
    """True if arithmetic shows the indices of runs to be distinct."""
    ordered = sorted(runs, key=lambda run: run.start)
    apart = all(before.largest < smallest(run) for before, run in pairwise(ordered))
    return apart and all(map(_is_box, runs))


def repeated(runs: Sequence[Run], where: str, limits: Limits) -> str:
    """Name an index listed twice, or the run; empty if there is none.

    Raises:
        LimitExceeded: the runs are too long for a bitmap.
    """
    marks, first = _bitmap(runs, where, limits)
    length = 0
    for run in runs:
        view = _view(marks, first, run)
        if view.any():
            unit, repeat, inside = np.unravel_index(int(view.argmax()), view.shape)
            index = run.start + int(unit) * run.step + int(repeat) * run.stride + int(inside)
            return f"index {index} is listed twice"
        view[...] = True
        length += run.length
    return "" if np.count_nonzero(marks) == length else "a run has an index that is listed twice"


def count(chosen: Sequence[Chosen], where: str, limits: Limits) -> int:
    """The number of distinct indices of the chosen units of runs.

    Raises:
        LimitExceeded: the runs are too long for a bitmap.
    """
    meant = [(run, gone) for run, gone in chosen if _units(run, gone).any()]
    runs = [run for run, _ in meant]
    if are_distinct(runs):
        return sum(
            run.repeats * run.span * int(np.count_nonzero(_units(run, gone))) for run, gone in meant
        )
    marks, first = _bitmap(runs, where, limits)
    for run, gone in meant:
        _view(marks, first, run)[_units(run, gone)] = True
    return int(np.count_nonzero(marks))


def smallest(run: Run) -> int:
    """The smallest index of a run."""
    return run.start + min(0, (run.count - 1) * run.step)


def _units(run: Run, marks: Marks) -> Marks:
    """The marks of a run, sliced on demand: a view is larger than a run in its file."""
    return marks[run.unit : run.unit + run.count]


def _is_box(run: Run) -> bool:
    """True if each step of a run exceeds the extent of its smaller steps."""
    reach = 1
    for step, times in sorted(
        ((abs(run.step), run.count), (run.stride, run.repeats), (1, run.span))
    ):
        if times > 1:
            if step < reach:
                return False
            reach += step * (times - 1)
    return True


def _bitmap(runs: Iterable[Run], where: str, limits: Limits) -> tuple[Marks, int]:
    """A mark for each index from the smallest to the largest, and the smallest index."""
    runs = list(runs)
    first = min(map(smallest, runs), default=0)
    length = max((run.largest for run in runs), default=-1) + 1 - first
    limits.check("marks", length, where)
    return np.zeros(length, dtype=bool), first


def _view(marks: Marks, first: int, run: Run) -> Marks:
    """The marks of a run as [units, repeats, span]."""
    shape = (run.count, run.repeats, run.span)
    strides = (run.step, run.stride, 1)  # of one byte each
    return as_strided(marks[run.start - first :], shape, strides)
