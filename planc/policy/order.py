"""Orders: in which order units leave, one step after the other.

A policy that ranks units says all it knows in an :class:`Order`; a ratio is then one place in it,
and so is a budget. A step takes one unit from each row of a group: its rows stay equally long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from planc.analysis import Analysis
from planc.criteria.scores import Scores
from planc.policy.ratio import Counts

Groups = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Order:
    """``start[g]`` units of a row stay before the first step. Step i takes a unit from each row of
    group ``groups[i]``, for every ratio from ``shares[i]`` on; the shares do not fall.
    """

    start: NDArray[np.int64]
    groups: Groups
    shares: NDArray[np.float64]

    def kept(self, steps: int) -> NDArray[np.int64]:
        """What stays after so many steps."""
        gone = np.bincount(self.groups[:steps], minlength=len(self.start))
        result: NDArray[np.int64] = self.start - gone
        return result

    def at(self, ratio: float) -> Counts:
        """What stays after all steps that a ratio asks for."""
        steps = int(np.searchsorted(self.shares, ratio, side="right"))
        return tuple(self.kept(steps).tolist())

    def without(self, fixed: NDArray[np.bool_], start: NDArray[np.int64]) -> Order:
        """The order of the other groups; those that are ``fixed`` keep what ``start`` says."""
        stays = ~fixed[self.groups]
        return Order(np.where(fixed, start, self.start), self.groups[stays], self.shares[stays])


@runtime_checkable
class Ranking(Protocol):
    """A policy that can order the units: what budgets need."""

    def order(
        self, analysis: Analysis, scores: Scores, among: Sequence[int] | None = None
    ) -> Order:
        """The order in which units of the groups ``among`` (None: of all) leave."""


def by_rank(group_rows: int, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean score of the units of equal rank in the rows of a group, in rising order: units of
    equal rank leave together. The last one, which never leaves, included.
    """
    ranked: NDArray[np.float64] = np.sort(scores.reshape(group_rows, -1), axis=1).mean(axis=0)
    return ranked


def relative(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores divided by their mean, so that groups of unlike size can compete."""
    mean = values.mean()
    return values / mean if mean > 0 else values


def whole(analysis: Analysis) -> NDArray[np.int64]:
    """For each group the units of a row."""
    return np.array([group.cells for group in analysis.groups], dtype=np.int64)
