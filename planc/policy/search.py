"""The search for a budget: how far to go in an order, and what can be given back.

In: an order of steps, the closure of wishes and constraints, prices. Out: counts within the limits
to which no group can get a unit back. Three stages: the first place in the order that fits, by
bisection; the same among the groups that nothing couples to others, from there; and unit by unit
whatever still fits, what left last first.
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
    """What counts cost in each measure, and the most they may; ``other`` is a cost that is no
    polynomial, as a latency, and ``most`` the most of it.
    """

    costs: Polynomials
    limits: NDArray[np.object_]
    other: Callable[[Kept], int] | None = None
    most: int = 0

    def fit(self, kept: Kept) -> bool:
        """Whether no limit is exceeded."""
        if not (self.costs.values(kept) <= self.limits).all():
            return False
        return self.other is None or self.other(kept) <= self.most

    def room(self, kept: Kept, steps: Kept) -> NDArray[np.bool_]:
        """For each group whether it alone could keep ``steps[g]`` more, as far as the costs that
        are polynomials say.
        """
        left = self.limits - self.costs.values(kept)
        found: NDArray[np.bool_] = (self.costs.rises(kept, steps) <= left[:, None]).all(axis=0)
        return found


def search(order: Order, closure: Closure, prices: Prices) -> Kept:
    """The counts that fit; those after the last step of ``order`` must."""
    kept = closure(order.start)
    if prices.fit(kept):
        return kept
    steps = _first(len(order.groups), lambda n: prices.fit(closure(order.kept(n))))
    kept = closure(order.kept(steps))
    kept = _restored(order, closure, prices, kept, steps)
    return _filled(order, closure, prices, kept)


def _first(last: int, fits: Callable[[int], bool]) -> int:
    """A number up to ``last``, which fits, that fits where the one before does not."""
    low, high = -1, last
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def _restored(order: Order, closure: Closure, prices: Prices, kept: Kept, steps: int) -> Kept:
    """Groups that no constraint binds go less far, where one that is bound had to go a long way."""
    free = np.ones(len(kept), dtype=bool)
    free[list(closure.bound)] = False

    def mixed(n: int) -> Kept:
        return closure(np.where(free, order.kept(n), kept))

    return mixed(_first(steps, lambda n: prices.fit(mixed(n))))


def _filled(order: Order, closure: Closure, prices: Prices, kept: Kept) -> Kept:
    """Gives units back while one fits, of those that fit the one that left last."""
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
            refused[:], progress = False, False  # what was refused may fit by now
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
