"""One ranking over all groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planc.analysis import Analysis
from planc.criteria.scores import Scores
from planc.policy.ratio import Counts, asked_ratio, checked_kinds, checked_ratio


@dataclass(frozen=True, slots=True)
class Global:
    """The share ``ratio`` of all units goes, the lowest scores of all groups first.

    Scores are divided by their group's mean, so that groups of unlike size can compete. In a
    ragged group the units of equal rank in their rows go together, by their mean score. The groups
    of ``kinds`` (pairs of kind and ratio) are ranked by themselves; whole rows stay unless named.
    Every group keeps a unit.
    """

    ratio: float
    kinds: tuple[tuple[str, float], ...] = ()

    def __str__(self) -> str:
        kinds = "".join(f", {kind}={ratio:g}" for kind, ratio in self.kinds)
        return f"global({self.ratio:g}{kinds})"

    def __call__(self, analysis: Analysis, scores: Scores) -> Counts:
        checked_ratio(self.ratio)
        kinds = dict(self.kinds)
        checked_kinds(analysis, kinds)
        kept = [group.cells for group in analysis.groups]
        pools: dict[str, list[int]] = {}
        for g, group in enumerate(analysis.groups):
            ratio = asked_ratio(analysis, g, group, self.ratio, kinds)
            if ratio > 0:
                pools.setdefault(group.kind if group.kind in kinds else "", []).append(g)
        for kind, members in pools.items():
            self._rank(analysis, scores, members, kinds.get(kind, self.ratio), kept)
        return tuple(kept)

    def _rank(
        self,
        analysis: Analysis,
        scores: Scores,
        members: list[int],
        ratio: float,
        kept: list[int],
    ) -> None:
        owners, values, weights = [], [], []
        for g in members:
            group = analysis.groups[g]
            by_rank = np.sort(scores.units[g].reshape(group.rows, -1), axis=1).mean(axis=0)
            mean = by_rank.mean()
            values.append((by_rank / mean if mean > 0 else by_rank)[:-1])
            owners.append(np.full(group.cells - 1, g))
            weights.append(np.full(group.cells - 1, group.rows))
        owner, weight = np.concatenate(owners), np.concatenate(weights)
        order = np.argsort(np.concatenate(values), kind="stable")
        total = sum(analysis.groups[g].size for g in members)
        goes = order[np.cumsum(weight[order]) <= ratio * total + 1e-9]
        for g, count in zip(*np.unique(owner[goes], return_counts=True), strict=True):
            kept[int(g)] -= int(count)
