"""Ratios of their own for parts of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planc.analysis import Analysis
from planc.criteria.scores import Scores
from planc.errors import PolicyError
from planc.policy.order import Order, Ranking
from planc.policy.patterns import named
from planc.policy.ratio import Counts, Policy, checked_ratio


@dataclass(frozen=True, slots=True)
class Ratios:
    """The groups of each scope lose a ratio of their own, the others what ``policy`` says.

    A scope is a pattern that a group's name, the tensor in it or a module around that matches
    (``"layer1.*"``, ``"*.conv2.weight:0"``); the last of several that match counts. Within a scope
    ``policy`` ranks as it does elsewhere: each group alone, groups alike, or all of the scope.
    """

    policy: Policy
    scopes: tuple[tuple[str, float], ...]

    def __str__(self) -> str:
        return f"ratios({self.policy}, {', '.join(f'{p}={r:g}' for p, r in self.scopes)})"

    def __call__(self, analysis: Analysis, scores: Scores) -> Counts:
        start, scoped = self._scoped(analysis, scores)
        inside = self.policy(analysis, scores)
        return tuple(np.where(scoped, start, inside).tolist())

    def order(
        self, analysis: Analysis, scores: Scores, among: Sequence[int] | None = None
    ) -> Order:
        """The order of what is outside of all scopes."""
        start, scoped = self._scoped(analysis, scores)
        return self._ranking().order(analysis, scores, among).without(scoped, start)

    def _ranking(self) -> Ranking:
        if not isinstance(self.policy, Ranking):
            raise PolicyError(
                f"ratios for scopes: {self.policy} does not rank units; put the ratios next to a "
                "policy that does, such as Ratios(Uniform(0.5), ...), and modifiers around them"
            )
        return self.policy

    def _scoped(self, analysis: Analysis, scores: Scores) -> tuple[np.ndarray, np.ndarray]:
        """What stays of the groups of each scope, and which groups are in one."""
        count = len(analysis.groups)
        owner = np.full(count, -1)
        for i, (pattern, _) in enumerate(self.scopes):
            owner[list(named(analysis.groups, pattern))] = i
        start = np.zeros(count, dtype=np.int64)
        for i, (pattern, ratio) in enumerate(self.scopes):
            checked_ratio(ratio, f"ratio of {pattern!r}")
            members = np.flatnonzero(owner == i).tolist()
            order = self._ranking().order(analysis, scores, members)
            start = np.where(owner == i, order.at(ratio), start)
        return start, owner >= 0
