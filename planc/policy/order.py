"""Orders: the sequence of steps for the removal of units, and the units with the lowest scores.

A ranking policy puts all it knows into an :class:`Order`; a ratio is one place in it, and so is a
budget. A step removes one unit from each row of a group, so its rows stay equally long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from planc.analysis import Analysis
from planc.criteria.scores import Scores
from planc.errors import PolicyError
from planc.ir.groups import Group
from planc.policy.ratio import Counts

Groups = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Order:
    """A sequence of removal steps.

    Before the first step, group g keeps ``start[g]`` units of each row. Step i removes a unit from
    each row of group ``groups[i]``, for every ratio of at least ``shares[i]``; the shares never
    fall.
    """

    start: NDArray[np.int64]
    groups: Groups
    shares: NDArray[np.float64]

    def kept(self, steps: int) -> NDArray[np.int64]:
        """The counts after the first ``steps`` steps."""
        gone = np.bincount(self.groups[:steps], minlength=len(self.start))
        result: NDArray[np.int64] = self.start - gone
        return result

    def at(self, ratio: float) -> Counts:
        """The counts after all steps of a ratio."""
        steps = int(np.searchsorted(self.shares, ratio, side="right"))
        return tuple(self.kept(steps).tolist())

    def without(self, fixed: NDArray[np.bool_], start: NDArray[np.int64]) -> Order:
        """The order of the other groups; the ``fixed`` groups keep the counts of ``start``."""
        stays = ~fixed[self.groups]
        return Order(np.where(fixed, start, self.start), self.groups[stays], self.shares[stays])


@runtime_checkable
class Ranking(Protocol):
    """A policy able to order the units, as budgets need."""

    def order(
        self, analysis: Analysis, scores: Scores, among: Sequence[int] | None = None
    ) -> Order:
        """The removal order of the units of the groups ``among``, by default all groups."""


def by_rank(group_rows: int, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean score of the units of equal rank in the rows of a group, ascending.

    Units of equal rank are removed together. The last rank, never removed, is included.
    """
    ranked: NDArray[np.float64] = np.sort(scores.reshape(group_rows, -1), axis=1).mean(axis=0)
    return ranked


def relative(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores divided by their mean, comparable between groups of different size."""
    mean = values.mean()
    return values / mean if mean > 0 else values


def whole(analysis: Analysis) -> NDArray[np.int64]:
    """For each group, the units of a row."""
    return np.array([group.cells for group in analysis.groups], dtype=np.int64)


def lowest(groups: Sequence[Group], scores: Scores, kept: Counts) -> NDArray[np.bool_]:
    """Mask over all units: True for the lowest scores of each row, equally many per row.

    Ties go to the lower index.

    Args:
        kept: for each group, the units to keep in each row.

    Raises:
        PolicyError: a score is NaN.
    """
    of_length: dict[int, list[int]] = {}
    for g, group in enumerate(groups):
        of_length.setdefault(group.cells, []).append(g)
    found: list[NDArray[np.bool_]] = [np.zeros(0, dtype=bool)] * len(groups)
    for cells, alike in of_length.items():
        rows = np.concatenate([scores.units[g] for g in alike]).reshape(-1, cells)
        counts = np.repeat([cells - kept[g] for g in alike], [groups[g].rows for g in alike])
        goes = _lowest(rows, counts).reshape(-1)
        ends = np.cumsum([groups[g].size for g in alike])
        for g, own in zip(alike, np.split(goes, ends[:-1]), strict=True):
            found[g] = own
    for g in (g for g, units in enumerate(scores.units) if np.isnan(units).any()):
        if kept[g] < groups[g].cells:
            raise _unscored(groups[g], scores, bool(np.isnan(scores.units[g]).all()))
    return np.concatenate(found) if found else np.zeros(0, dtype=bool)


def _unscored(group: Group, scores: Scores, whole: bool) -> PolicyError:
    if not whole:
        return PolicyError(f"group {group}: a score is NaN, which has no place in an order")
    return PolicyError(
        f"{scores.criterion} says nothing of group {group}: none of its tensors is what it "
        f"measures; keep it whole (keep={group.name!r}), or join the criterion with another by "
        "planc.criteria.Fallback, such as Fallback(..., Magnitude(2))"
    )


def _lowest(rows: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mask of the ``counts[i]`` lowest of row ``i``, ties to the lower index."""
    ordered = np.sort(rows, axis=1)
    highest = ordered[np.arange(len(rows)), np.maximum(counts, 1) - 1][:, None]
    less, equal = rows < highest, rows == highest
    missing = (counts - less.sum(axis=1))[:, None]
    goes: NDArray[np.bool_] = less | (equal & (np.cumsum(equal, axis=1) <= missing))
    return goes & (counts > 0)[:, None]
