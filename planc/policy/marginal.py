"""Marginal choice: the units with the lowest score per unit of cost are removed first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planc.analysis import Analysis
from planc.analysis.arrays import Polynomials
from planc.criteria.scores import Scores
from planc.errors import PolicyError
from planc.policy.order import Order, by_rank, relative
from planc.policy.ranking import Chosen, Kinds, needed, text
from planc.policy.ratio import Counts

STAGES = 64
MEASURES = ("macs", "params", "bytes")


@dataclass(frozen=True, slots=True)
class PerCost:
    """Remove units in the order of score per unit of cost, up to ``ratio`` of the removable cost.

    The scores have the scale of :class:`planc.policy.Global`. The cost of
    a unit is the saving by its removal at the current widths, updated after each 64th of the way.
    Wu et al. 2020, "Constraint-aware importance estimation for global filter pruning", rank by such
    quotients.

    Args:
        ratio: the share of the removable cost to remove, in [0, 1); None with a budget.
        of: the cost: "macs", "params" or "bytes".
        kinds: pairs of a kind of group and a ratio of its own.
        rows: kinds of whole rows (heads, convolution groups, experts) to remove as well.
    """

    ratio: float | None = None
    of: str = "macs"
    kinds: Kinds = ()
    rows: tuple[str, ...] = ()

    def __str__(self) -> str:
        return text("per_cost", self.ratio, self.kinds, self.rows, self.of)

    def __call__(self, analysis: Analysis, scores: Scores) -> Counts:
        return self.order(analysis, scores).at(needed(self.ratio))

    def order(
        self, analysis: Analysis, scores: Scores, among: Sequence[int] | None = None
    ) -> Order:
        """The steps of all groups, each at the share of the cost removed after it.

        Raises:
            PolicyError: ``of`` is not a measure; a ratio or a kind is invalid.
        """
        if self.of not in MEASURES:
            raise PolicyError(f"of {self.of!r}: choose one of {', '.join(MEASURES)}")
        chosen = Chosen(analysis, self.ratio, self.kinds, self.rows, among)
        alike = chosen.order(scores, [0] * len(analysis.groups), scores.relative)
        return _Walk(analysis, scores, alike, self.of).order()


class _Walk:
    """The steps from first to last, in stages of equal savings."""

    def __init__(self, analysis: Analysis, scores: Scores, first: Order, of: str) -> None:
        self.start = self.kept = first.start
        self.cost = Polynomials([getattr(analysis.cost, of)], first.start)
        self.ends = first.kept(len(first.groups))
        ranked = (by_rank(x.rows, scores.units[g]) for g, x in enumerate(analysis.groups))
        self.ranked = [relative(own) if scores.relative else own for own in ranked]

    def order(self) -> Order:
        total = self._price(self.start)
        last = self._price(self.ends)
        taken: list[NDArray[np.int64]] = []
        shares: list[NDArray[np.float64]] = []
        while (self.kept > self.ends).any():
            groups, saved = self._stage((total - last) / STAGES)
            before = total - self._price(self.kept)
            self.kept = self.kept - np.bincount(groups, minlength=len(self.kept))
            after = total - self._price(self.kept)
            # within a stage, in proportion to the expected savings of the steps
            along = np.cumsum(saved) / max(saved.sum(), 1e-300)
            taken.append(groups)
            shares.append((before + (after - before) * along) / max(total - last, 1))
        if not taken:
            return Order(self.start, np.zeros(0, dtype=np.int64), np.zeros(0))
        return Order(self.start, np.concatenate(taken), np.maximum.accumulate(np.hstack(shares)))

    def _stage(self, goal: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The next steps with a total saving of about ``goal``, and the expected saving of each."""
        less = self.kept - (self.kept > 1)
        one = np.ones_like(self.kept)
        saving = self.cost.rises(less, one)[0].astype(np.float64)
        owners, values = [], []
        for g in np.flatnonzero(self.kept > self.ends).tolist():
            gone = int(self.start[g] - self.kept[g])
            left = self.ranked[g][gone : gone + int(self.kept[g] - self.ends[g])]
            owners.append(np.full(len(left), g, dtype=np.int64))
            values.append(left / max(saving[g], 1e-300))
        owner = np.concatenate(owners)
        order = np.argsort(np.concatenate(values), kind="stable")
        saved = saving[owner[order]]
        count = int(np.searchsorted(np.cumsum(saved), goal)) + 1
        return owner[order][:count], saved[:count]

    def _price(self, kept: NDArray[np.int64]) -> int:
        return int(self.cost.values(kept)[0])
