"""Policies made of other policies: groups kept whole, floors, caps, equal widths.

A :class:`Modifier` only ever raises the counts of another policy. Modifiers therefore compose in
any order, with the model's own constraints (:mod:`planc.policy.closure`) and with budgets.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from planc.analysis import Analysis
from planc.criteria.scores import Scores
from planc.policy.order import whole
from planc.policy.patterns import chosen, kept
from planc.policy.ranking import topology
from planc.policy.ratio import Counts, Policy, checked_count, checked_ratio, share

Raise = Callable[[NDArray[np.int64]], NDArray[np.int64]]
"""Raises the counts of all groups until a modifier is satisfied; never lowers one."""


@runtime_checkable
class Modifier(Protocol):
    """A policy raising the counts of the inner ``policy``."""

    @property
    def policy(self) -> Policy:
        """The modified policy."""

    def raising(self, analysis: Analysis) -> Raise:
        """The modifier for one model.

        Raises:
            PolicyError: it does not fit the model.
        """


@dataclass(frozen=True, slots=True)
class Raising(ABC):
    """Base of modifiers: the counts of the inner ``policy``, raised."""

    policy: Policy

    @abstractmethod
    def raising(self, analysis: Analysis) -> Raise:
        """The modifier for one model."""

    def __call__(self, analysis: Analysis, scores: Scores) -> Counts:
        kept = self.policy(analysis, scores)
        return tuple(self.raising(analysis)(np.array(kept, dtype=np.int64)).tolist())


def in_words(modifier: Modifier) -> str:
    """The modifier's text without the inner policy."""
    return str(modifier).replace(str(modifier.policy), "...", 1)


@dataclass(frozen=True, slots=True)
class Keep(Raising):
    """Keep whole every group produced by what ``patterns`` name (see :mod:`planc.policy.patterns`).

    The inputs of a named layer may shrink, unless they are named as well: ``fc:in``.
    """

    patterns: tuple[str, ...]

    def __str__(self) -> str:
        return f"keep({self.policy}, {', '.join(self.patterns)})"

    def raising(self, analysis: Analysis) -> Raise:
        """The selected groups become whole."""
        return _to_whole(analysis, _mask(analysis, kept(analysis, self.patterns)))


@dataclass(frozen=True, slots=True)
class Only(Raising):
    """Keep all groups whole except those produced by what ``patterns`` name.

    A group produced in part elsewhere stays whole as well, if its pattern names another group
    wholly: ``layer4.*`` prunes what layer4 alone produces (see :mod:`planc.policy.patterns`).
    """

    patterns: tuple[str, ...]

    def __str__(self) -> str:
        return f"only({self.policy}, {', '.join(self.patterns)})"

    def raising(self, analysis: Analysis) -> Raise:
        """All other groups become whole."""
        return _to_whole(analysis, ~_mask(analysis, chosen(analysis, self.patterns)))


@dataclass(frozen=True, slots=True)
class Floor(Raising):
    """Keep at least ``units`` units of each group, or all of a smaller group."""

    units: int

    def __str__(self) -> str:
        return f"floor({self.policy}, {self.units})"

    def raising(self, analysis: Analysis) -> Raise:
        """At least ``units`` units a group."""
        checked_count(self.units, "floor", "every group keeps a unit")
        return at_least([min(g.cells, math.ceil(self.units / g.rows)) for g in analysis.groups])


@dataclass(frozen=True, slots=True)
class Capped(Raising):
    """Remove at most the share ``ratio`` of the units of each group, rounded down."""

    ratio: float

    def __str__(self) -> str:
        return f"capped({self.policy}, {self.ratio:g})"

    def raising(self, analysis: Analysis) -> Raise:
        """At least the units outside the largest ratio."""
        checked_ratio(self.ratio, "largest ratio")
        return at_least([g.cells - share(self.ratio, g.cells) for g in analysis.groups])


@dataclass(frozen=True, slots=True)
class Equal(Raising):
    """Keep equally many units of similar groups, as a configuration with one number for all layers
    needs: equally many heads in each layer, equally wide MLPs.

    Groups are similar if they have the same kind, size and rows, and their members are the same
    dimensions of the same parameters of the same module types (:class:`planc.policy.Isomorphic`).
    With ``patterns``, only the groups selected by them are tied.
    """

    patterns: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"equal({', '.join([str(self.policy), *self.patterns])})"

    def raising(self, analysis: Analysis) -> Raise:
        """The largest count of each class."""
        groups = analysis.groups
        every = frozenset(range(len(groups)))
        meant = kept(analysis, self.patterns) if self.patterns else every
        classes: dict[Hashable, int] = {}
        number = np.arange(len(groups))
        for g, group in enumerate(groups):
            if g in meant:
                key = (topology(analysis, g), group.size, group.rows)
                number[g] = classes.setdefault(key, g)

        def raised(kept: NDArray[np.int64]) -> NDArray[np.int64]:
            most = np.zeros_like(kept)
            np.maximum.at(most, number, kept)
            return most[number]

        return raised


def _mask(analysis: Analysis, groups: frozenset[int]) -> NDArray[np.bool_]:
    mask = np.zeros(len(analysis.groups), dtype=bool)
    mask[list(groups)] = True
    return mask


def _to_whole(analysis: Analysis, chosen: NDArray[np.bool_]) -> Raise:
    cells = whole(analysis)
    return lambda kept: np.where(chosen, cells, kept)


def at_least(least: list[int]) -> Raise:
    """Raises the counts to at least ``least``."""
    floor = np.array(least, dtype=np.int64)
    return lambda kept: np.maximum(kept, floor)
