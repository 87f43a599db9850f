"""Alignment of the slices of a pruned tensor with those of the original, in order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]
Costs = NDArray[np.float64]
"""The distance of each pruned slice (rows) to each original one (columns)."""
Slices = NDArray[np.float32]
"""One row of values for each slice of a tensor."""

_FEATURES = 1024  # values of a slice that are compared, evenly spaced
_ROUNDING = 1e-5  # relative squared distances below are zero


def distances(pairs: Sequence[tuple[Slices, Slices]]) -> Costs | None:
    """The mean squared distances of slices over several tensors, in units of the original's mean
    square; None if no tensor has values other than zero.

    Args:
        pairs: the pruned and the original slices of each tensor, with equally many values.
    """
    found = []
    for after, before in pairs:
        chosen = np.unique(np.linspace(0, before.shape[1] - 1, _FEATURES).astype(np.int64))
        a, b = (np.nan_to_num(own[:, chosen], posinf=0.0, neginf=0.0) for own in (after, before))
        squares = np.square(b, dtype=np.float64).sum(axis=1)
        scale = squares.mean()
        if scale > 0:
            own = np.square(a, dtype=np.float64).sum(axis=1)[:, None]
            apart = (own + squares - 2.0 * (a @ b.T)) / scale
            found.append(np.where(apart < _ROUNDING, 0.0, apart))
    return np.mean(found, axis=0) if found else None


def aligned(costs: Costs, fixed: NDArray[np.bool_]) -> Numbers:
    """The increasing columns of least total cost, one for each row, with all ``fixed`` ones."""
    rows, columns = costs.shape
    finite = costs[np.isfinite(costs)]
    reward = 2.0 * rows * float(finite.max(initial=0.0)) + 1.0
    weighed = costs - reward * fixed
    steps = np.zeros((rows, columns), dtype=np.int32)
    total, places = weighed[0].copy(), np.arange(columns)
    for row in range(1, rows):
        least = np.minimum.accumulate(total)
        latest = np.maximum.accumulate(np.where(total == least, places, 0))
        steps[row, 1:] = latest[:-1]
        total = np.concatenate(([np.inf], weighed[row, 1:] + least[:-1]))
    found = np.zeros(rows, dtype=np.int64)
    found[-1] = int(np.argmin(total))
    for row in range(rows - 1, 0, -1):
        found[row - 1] = steps[row, found[row]]
    return found


def confidence(costs: Costs, kept: Numbers, others: Numbers) -> float:
    """One minus the largest ratio of the distance to the matched slice and to the nearest of
    ``others``; 0 where two are equally near, 1 without others.

    Args:
        costs: the distances of the pruned slices in question.
        kept: the matched column of each row.
        others: the columns without a match.
    """
    if not len(others) or not len(kept):
        return 1.0
    own = costs[np.arange(len(kept)), kept]
    nearest = costs[:, others].min(axis=1)
    ratio = np.divide(own, nearest, out=np.ones_like(own), where=nearest > own)
    return float(1.0 - ratio.max())
