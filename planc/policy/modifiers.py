"""Policies made of other policies: groups kept, floors, caps, equal widths.

Each :class:`Modifier` only ever raises what another policy keeps. That is what makes them compose
in any order, with the model's own constraints (:mod:`planc.policy.closure`) and with budgets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from planc.analysis import Analysis
from planc.criteria.scores import Scores
from planc.policy.order import whole
from planc.policy.patterns import matching
from planc.policy.ranking import topology
from planc.policy.ratio import Counts, Policy, checked_count, checked_ratio, share

Raise = Callable[[NDArray[np.int64]], NDArray[np.int64]]
"""From what each group keeps to what it keeps when a wish has been obeyed: never less."""


@runtime_checkable
class Modifier(Protocol):
    """A policy that raises what the ``policy`` inside keeps."""

    @property
    def policy(self) -> Policy:
        """What is modified."""

    def raising(self, analysis: Analysis) -> Raise:
        """The wish, for one model.

        Raises:
            PolicyError: it makes no sense for the model.
        """


def modified(modifier: Modifier, analysis: Analysis, scores: Scores) -> Counts:
    """What the policy inside keeps, raised."""
    kept = modifier.policy(analysis, scores)
    return tuple(modifier.raising(analysis)(np.array(kept, dtype=np.int64)).tolist())


def in_words(modifier: Modifier) -> str:
    """A modifier in words, without what it modifies."""
    return str(modifier).replace(str(modifier.policy), "...", 1)


@dataclass(frozen=True, slots=True)
class Keep:
    """Groups that a pattern means stay whole (see :func:`planc.policy.patterns.matching`)."""

    policy: Policy
    patterns: tuple[str, ...]

    def __str__(self) -> str:
        return f"keep({self.policy}, {', '.join(self.patterns)})"

    def __call__(self, analysis: Analysis, scores: Scores) -> Counts:
        return modified(self, analysis, scores)

    def raising(self, analysis: Analysis) -> Raise:
        """Whole groups where a pattern means them."""
        return _to_whole(analysis, _meant(analysis, self.patterns))


@dataclass(frozen=True, slots=True)
class Only:
    """Only groups that a pattern means shrink."""

    policy: Policy
    patterns: tuple[str, ...]

    def __str__(self) -> str:
        return f"only({self.policy}, {', '.join(self.patterns)})"

    def __call__(self, analysis: Analysis, scores: Scores) -> Counts:
        return modified(self, analysis, scores)

    def raising(self, analysis: Analysis) -> Raise:
        """Whole groups where no pattern means them."""
        return _to_whole(analysis, ~_meant(analysis, self.patterns))


@dataclass(frozen=True, slots=True)
class Floor:
    """A group keeps at least ``units`` units (all of them where it has fewer)."""

    policy: Policy
    units: int

    def __str__(self) -> str:
        return f"floor({self.policy}, {self.units})"

    def __call__(self, analysis: Analysis, scores: Scores) -> Counts:
        return modified(self, analysis, scores)

    def raising(self, analysis: Analysis) -> Raise:
        """At least so many units."""
        checked_count(self.units, "floor", "every group keeps a unit")
        return _at_least([min(g.cells, math.ceil(self.units / g.rows)) for g in analysis.groups])


@dataclass(frozen=True, slots=True)
class Capped:
    """No group loses more than the share ``ratio`` of its units, rounded down."""

    policy: Policy
    ratio: float

    def __str__(self) -> str:
        return f"capped({self.policy}, {self.ratio:g})"

    def __call__(self, analysis: Analysis, scores: Scores) -> Counts:
        return modified(self, analysis, scores)

    def raising(self, analysis: Analysis) -> Raise:
        """At least what the largest ratio leaves."""
        checked_ratio(self.ratio, "largest ratio")
        return _at_least([g.cells - share(self.ratio, g.cells) for g in analysis.groups])


@dataclass(frozen=True, slots=True)
class Equal:
    """Groups alike keep equally many units, so that a configuration with one number for all
    layers can say it: equally many heads in each layer, equally wide MLPs.

    Groups are alike when they are of one kind, equal size and equal rows, and their members are the
    same dimensions of the same parameters of the same types of module
    (:class:`planc.policy.Isomorphic`). With ``patterns``, only among the groups that they mean.
    """

    policy: Policy
    patterns: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"equal({', '.join([str(self.policy), *self.patterns])})"

    def __call__(self, analysis: Analysis, scores: Scores) -> Counts:
        return modified(self, analysis, scores)

    def raising(self, analysis: Analysis) -> Raise:
        """The largest count of each class."""
        groups = analysis.groups
        meant = _meant(analysis, self.patterns) if self.patterns else np.ones(len(groups), bool)
        classes: dict[Hashable, int] = {}
        number = np.arange(len(groups))
        for g, group in enumerate(groups):
            if meant[g]:
                key = (topology(analysis, g), group.size, group.rows)
                number[g] = classes.setdefault(key, g)

        def raised(kept: NDArray[np.int64]) -> NDArray[np.int64]:
            most = np.zeros_like(kept)
            np.maximum.at(most, number, kept)
            return most[number]

        return raised


def _meant(analysis: Analysis, patterns: tuple[str, ...]) -> NDArray[np.bool_]:
    """Which groups the patterns mean."""
    meant = np.zeros(len(analysis.groups), dtype=bool)
    for pattern in patterns:
        meant[list(matching(analysis.groups, pattern))] = True
    return meant


def _to_whole(analysis: Analysis, chosen: NDArray[np.bool_]) -> Raise:
    cells = whole(analysis)
    return lambda kept: np.where(chosen, cells, kept)


def _at_least(least: list[int]) -> Raise:
    floor = np.array(least, dtype=np.int64)
    return lambda kept: np.maximum(kept, floor)
