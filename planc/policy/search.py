"""The search for a budget: the place in an order, and the units to restore.

Three stages: bisect for the first place in the order within the limits; do the same for the groups
without coupling to others, from there; then restore single units while they fit, most recently
removed first. In the result, no group can get a unit back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planc.analysis.arrays import Kept, Polynomials
from planc.policy.closure import Closure
from planc.policy.order import Order


@dataclass(frozen=True, eq=False)
class Prices:
    """The cost of counts in each measure and its limit.

    ``other`` is a non-polynomial cost, such as a latency, and ``most`` its limit.
    """

    costs: Polynomials
    limits: NDArray[np.object_]
    other: Callable[[Kept], int] | None = None
    most: int = 0

    def fit(self, kept: Kept) -> bool:
        """True if no limit is exceeded."""
        if not (self.costs.values(kept) <= self.limits).all():
            return False
        return self.other is None or self.other(kept) <= self.most

    def room(self, kept: Kept, steps: Kept) -> NDArray[np.bool_]:
        """Mask of the groups with room for ``steps[g]`` more units by the polynomial costs."""
        left = self.limits - self.costs.values(kept)
        found: NDArray[np.bool_] = (self.costs.rises(kept, steps) <= left[:, None]).all(axis=0)
        return found


def search(order: Order, closure: Closure, prices: Prices) -> Kept:
    """Counts within the limits; those after the last step of ``order`` must fit."""
    kept = closure(order.start)
    if prices.fit(kept):
        return kept
    steps = _first(len(order.groups), lambda n: prices.fit(closure(order.kept(n))))
    kept = closure(order.kept(steps))
    kept = _restored(order, closure, prices, kept, steps)
    return _filled(order, closure, prices, kept)


def _first(last: int, fits: Callable[[int], bool]) -> int:
    """A fitting number up to ``last`` (itself fitting) with a misfit directly before it."""
    low, high = -1, last
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def _restored(order: Order, closure: Closure, prices: Prices, kept: Kept, steps: int) -> Kept:
    """Restore groups without constraints, where a constrained group forced a long way."""
    free = np.ones(len(kept), dtype=bool)
    free[list(closure.bound)] = False

    def mixed(n: int) -> Kept:
        return closure(np.where(free, order.kept(n), kept))

    return mixed(_first(steps, lambda n: prices.fit(mixed(n))))


def _filled(order: Order, closure: Closure, prices: Prices, kept: Kept) -> Kept:
    """Restore single units while one fits, most recently removed first."""
    by_group = np.argsort(order.groups, kind="stable")
    ends = np.cumsum(np.bincount(order.groups, minlength=len(kept)))
    begins = np.append(0, ends[:-1])
    one = np.ones_like(kept)
    refused = np.zeros(len(kept), dtype=bool)
    progress = False
    while True:
        gone = order.start - kept
        able = (gone > 0) & ~refused & prices.room(kept, one)
        if not able.any():
            if not (progress and refused.any()):
                return kept
            refused[:], progress = False, False  # refused groups may fit by now
            continue
        groups = np.flatnonzero(able)
        g = groups[np.argmax(by_group[begins[groups] + gone[groups] - 1])]
        more = kept.copy()
        more[g] += 1
        more = closure(more)
        if prices.fit(more):
            kept, progress = more, True
        else:
            refused[g] = True
