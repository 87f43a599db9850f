"""Policies made of other policies: groups kept, floors, rounding."""

from __future__ import annotations

import math
from dataclasses import dataclass

from planc.analysis import Analysis
from planc.criteria.scores import Scores
from planc.groups import Group
from planc.policy.patterns import matching
from planc.policy.ratio import Counts, Policy, checked_count


@dataclass(frozen=True, slots=True)
class Keep:
    """Groups that a pattern means stay whole (see :func:`planc.policy.patterns.matching`)."""

    policy: Policy
    patterns: tuple[str, ...]

    def __str__(self) -> str:
        return f"keep({self.policy}, {', '.join(self.patterns)})"

    def __call__(self, analysis: Analysis, scores: Scores) -> Counts:
        kept = list(self.policy(analysis, scores))
        for pattern in self.patterns:
            for g in matching(analysis.groups, pattern):
                kept[g] = analysis.groups[g].cells
        return tuple(kept)


@dataclass(frozen=True, slots=True)
class Only:
    """Only groups that a pattern means shrink."""

    policy: Policy
    patterns: tuple[str, ...]

    def __str__(self) -> str:
        return f"only({self.policy}, {', '.join(self.patterns)})"

    def __call__(self, analysis: Analysis, scores: Scores) -> Counts:
        kept = self.policy(analysis, scores)
        meant = frozenset().union(*(matching(analysis.groups, p) for p in self.patterns))
        return tuple(
            count if g in meant else analysis.groups[g].cells for g, count in enumerate(kept)
        )


@dataclass(frozen=True, slots=True)
class Floor:
    """A group keeps at least ``units`` units (all of them where it has fewer)."""

    policy: Policy
    units: int

    def __str__(self) -> str:
        return f"floor({self.policy}, {self.units})"

    def __call__(self, analysis: Analysis, scores: Scores) -> Counts:
        checked_count(self.units, "floor", "every group keeps a unit")
        kept = self.policy(analysis, scores)
        return tuple(
            max(count, min(group.cells, math.ceil(self.units / group.rows)))
            for count, group in zip(kept, analysis.groups, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Rounded:
    """What a group keeps is rounded up, so that its dimensions are multiples of ``to``."""

    policy: Policy
    to: int

    def __str__(self) -> str:
        return f"rounded({self.policy}, {self.to})"

    def __call__(self, analysis: Analysis, scores: Scores) -> Counts:
        checked_count(self.to, "round_to", "give 8 for multiples of eight")
        kept = self.policy(analysis, scores)
        return tuple(
            min(group.cells, -(-count // step) * step)
            for count, group in zip(kept, analysis.groups, strict=True)
            for step in [step_of(group, self.to)]
        )


def step_of(group: Group, to: int) -> int:
    """The units in a row that make the dimension, all rows together, a multiple of ``to``."""
    return to // math.gcd(to, group.rows)


def rounding(policy: Policy) -> int:
    """What a composed policy rounds dimensions to, 1 if it does not."""
    found = 1
    while True:
        if isinstance(policy, Rounded):
            found = math.lcm(found, policy.to)
        inner = getattr(policy, "policy", None)
        if inner is None:
            return found
        policy = inner
