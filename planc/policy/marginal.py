"""Marginal choice: the units go first that are worth least for what they cost."""

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
from planc.policy.ranking import Chosen, Kinds, needed
from planc.policy.ratio import Counts

STAGES = 64
MEASURES = ("macs", "params", "bytes")


@dataclass(frozen=True, slots=True)
class PerCost:
    """Units go in the order of score per unit of cost, until ``ratio`` of the cost that can go
    has gone.

    The score is relative to the mean of its group, as in :class:`planc.policy.Global`. What a unit
    costs (``of``: "macs", "params" or "bytes") is what its leaving saves at the widths of that
    moment; it is measured anew after each 64th of the way. Wu et al. 2020, "Constraint-aware
    importance estimation for global filter pruning", rank by such quotients.
    """

    ratio: float | None = None
    of: str = "macs"
    kinds: Kinds = ()
    rows: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [] if self.ratio is None else [f"{self.ratio:g}"]
        parts += [self.of, *(f"{kind}={own:g}" for kind, own in self.kinds)]
        parts += [f"rows={'+'.join(self.rows)}"] if self.rows else []
        return f"per_cost({', '.join(parts)})"

    def __call__(self, analysis: Analysis, scores: Scores) -> Counts:
        return self.order(analysis, scores).at(needed(self.ratio))

    def order(
        self, analysis: Analysis, scores: Scores, among: Sequence[int] | None = None
    ) -> Order:
        """The steps of all groups, each at the share of the cost that is then gone."""
        if self.of not in MEASURES:
            raise PolicyError(f"of {self.of!r}: choose one of {', '.join(MEASURES)}")
        chosen = Chosen(analysis, self.ratio, self.kinds, self.rows, among)
        alike = chosen.order(scores, [0] * len(analysis.groups), normalised=True)
        return _Walk(analysis, scores, alike, self.of).order()


class _Walk:
    """From the first step to the last, in stages of equal savings."""

    def __init__(self, analysis: Analysis, scores: Scores, first: Order, of: str) -> None:
        self.start = self.kept = first.start
        self.cost = Polynomials([getattr(analysis.cost, of)], first.start)
        self.ends = first.kept(len(first.groups))
        self.ranked = [
            relative(by_rank(group.rows, scores.units[g]))
            for g, group in enumerate(analysis.groups)
        ]

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
            # within a stage, in proportion to what the steps were expected to save
            along = np.cumsum(saved) / max(saved.sum(), 1e-300)
            taken.append(groups)
            shares.append((before + (after - before) * along) / max(total - last, 1))
        if not taken:
            return Order(self.start, np.zeros(0, dtype=np.int64), np.zeros(0))
        return Order(self.start, np.concatenate(taken), np.maximum.accumulate(np.hstack(shares)))

    def _stage(self, goal: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The next steps, until they should save ``goal``; and what each should save."""
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
