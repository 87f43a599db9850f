"""What runs of indices cover, without writing the indices out: runs in, how many indices they have
and whether they have one twice.

A run of some thirty bytes may speak of billions of indices. Mostly its parts lie apart by
arithmetic, and so do runs from each other, so that counts are products. Otherwise the runs are
marked in a bitmap of bounded length.
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
Chosen = tuple[Run, Marks]  # a run, and which units of its group are meant


def are_distinct(runs: Sequence[Run]) -> bool:
    """Whether the indices of runs are seen to be distinct without marking them."""
    ordered = sorted(runs, key=lambda run: run.start)
    apart = all(before.largest < smallest(run) for before, run in pairwise(ordered))
    return apart and all(map(_is_box, runs))


def repeated(runs: Sequence[Run], where: str, limits: Limits) -> str:
    """Names an index that runs have twice, or the run; empty if there is none.

    Raises:
        LimitExceeded: the runs reach too far for a bitmap.
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
    """How many indices the chosen units of runs have, those that they share counted once.

    Raises:
        LimitExceeded: the runs reach too far for a bitmap.
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
    """The marks of a run's units. One by one: a view takes more memory than the run in its file."""
    return marks[run.unit : run.unit + run.count]


def _is_box(run: Run) -> bool:
    """Whether the indices of a run are distinct because each of its steps leaps over the rest."""
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
    """A mark for each index between the smallest and the largest, and which the first is for."""
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
