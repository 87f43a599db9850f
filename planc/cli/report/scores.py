"""Distributions of a group's scores: counts of kept and removed units in equal bins.

Plans hold scores on request, one little-endian float32 per unit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planc.ir.units import marked
from planc.plan.plan import PlanGroup

BINS = 32
_SPREAD = 1000.0  # a larger quotient of positive scores is shown on a logarithmic scale


@dataclass(frozen=True, slots=True)
class Distribution:
    """Counts by bin from ``low`` to ``high``.

    ``removed_to`` is the highest removed score, ``kept_from`` the lowest kept one; None without
    such units. ``over`` counts removed units above the lowest kept one.
    """

    low: float
    high: float
    logarithmic: bool
    kept: tuple[int, ...]
    removed: tuple[int, ...]
    removed_to: float | None
    kept_from: float | None
    over: int

    @property
    def tallest(self) -> int:
        return max(map(sum, zip(self.kept, self.removed, strict=True)))

    def threshold(self) -> float | None:
        """The middle between removed and kept scores; None if they overlap or one is absent."""
        if self.removed_to is None or self.kept_from is None or self.over:
            return None
        if self.logarithmic:
            return float(np.sqrt(self.removed_to * self.kept_from))
        return (self.removed_to + self.kept_from) / 2


def distribution(group: PlanGroup) -> Distribution | None:
    """Return the distribution of a group's scores; None if the plan holds none."""
    if group.unit_scores is None:
        return None
    values = group.unit_scores.astype(np.float64)
    gone = marked(group.removed, group.size)
    low, high = float(values.min()), float(values.max())
    logarithmic = low > 0 and high / low > _SPREAD
    scale = np.log if logarithmic else np.asarray
    start, width = scale(low), (scale(high) - scale(low)) or 1.0
    bins = np.minimum((scale(values) - start) / width * BINS, BINS - 1).astype(np.int64)
    kept, removed = (np.bincount(bins[at], minlength=BINS).tolist() for at in (~gone, gone))
    removed_to = float(values[gone].max()) if gone.any() else None
    kept_from = float(values[~gone].min()) if not gone.all() else None
    over = 0 if kept_from is None else int((values[gone] > kept_from).sum())
    return Distribution(
        low, high, logarithmic, tuple(kept), tuple(removed), removed_to, kept_from, over
    )
