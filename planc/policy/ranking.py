"""Rankings by pools of competing groups: each group alone, similar groups, or all together.

Every pool loses the same share of its units, lowest scores first. Whole rows with cells inside
(heads, convolution groups, experts) stay unless requested: ``kinds`` are pairs of a kind of group
and a ratio of its own, ``rows`` are kinds of rows under the common ratio.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from planc.analysis import Analysis
from planc.criteria.scores import Scores
from planc.errors import PolicyError
from planc.policy.order import Order, Ranking, by_rank, relative, whole
from planc.policy.patterns import matching
from planc.policy.ratio import Counts, Policy, checked_kind, checked_kinds, checked_ratio

Kinds = tuple[tuple[str, float], ...]
_EARLY = 1e-9  # of a unit: steps come this early, so that a ratio such as 0.3 reaches its step


@dataclass(frozen=True, slots=True)
class Pooled(ABC):
    """Base of rankings with competing groups: every pool loses the same share of its units.

    Without a ratio, a budget sets how far to go.
    """

    ratio: float | None = None
    kinds: Kinds = ()
    rows: tuple[str, ...] = ()

    NAME: ClassVar[str]
    SCALED: ClassVar[bool] = True  # relative scores are divided by their group's mean

    @abstractmethod
    def pools(self, analysis: Analysis) -> Sequence[Hashable]:
        """The pool of each group."""

    def __str__(self) -> str:
        return text(self.NAME, self.ratio, self.kinds, self.rows)

    def __call__(self, analysis: Analysis, scores: Scores) -> Counts:
        return self.order(analysis, scores).at(needed(self.ratio))

    def order(
        self, analysis: Analysis, scores: Scores, among: Sequence[int] | None = None
    ) -> Order:
        """The steps of all groups, each at the share of its pool removed after it."""
        chosen = Chosen(analysis, self.ratio, self.kinds, self.rows, among)
        return chosen.order(scores, self.pools(analysis), self.SCALED and scores.relative)


@dataclass(frozen=True, slots=True)
class Uniform(Pooled):
    """Remove the share ``ratio`` of the units of every group, rounded down.

    Without a ratio, a budget sets how far to go.

    Args:
        ratio: the share of units to remove, in [0, 1).
        kinds: pairs of a kind of group and a ratio of its own.
        rows: kinds of whole rows (heads, convolution groups, experts) to remove as well.
    """

    NAME = "uniform"

    def __call__(self, analysis: Analysis, scores: Scores) -> Counts:
        chosen = Chosen(analysis, self.ratio, self.kinds, self.rows, None)
        return chosen.alone(needed(self.ratio))

    def pools(self, analysis: Analysis) -> Sequence[Hashable]:
        return range(len(analysis.groups))


@dataclass(frozen=True, slots=True)
class Global(Pooled):
    """Remove the share ``ratio`` of all units, lowest scores of all groups first.

    The scores are ranked as the criterion gives them. Those of planc's criteria are divided by
    their group's mean first, so that groups of different size can compete, unless
    :class:`planc.criteria.Normalized` chooses another scale. In a ragged group, units of equal rank
    in their rows are removed together, by their mean score. The groups of ``kinds`` (pairs of kind
    and ratio) are ranked by themselves; whole rows stay unless named in ``rows``. Every group keeps
    a unit. Without a ratio, a budget sets how far to go.
    """

    NAME = "global"

    def pools(self, analysis: Analysis) -> Sequence[Hashable]:
        return [0] * len(analysis.groups)


@dataclass(frozen=True, slots=True)
class Isomorphic(Pooled):
    """Remove the share ``ratio`` of the units of each class of similar groups, by unscaled scores.

    Fang et al. 2024, "Isomorphic Pruning for Vision Models", section 3.2: scores are comparable
    only within sub-structures of one topology. Two groups are similar if they have the same kind
    and their members are the same dimensions of the same parameters of the same module types in the
    same order; sizes may differ. ``kinds`` and ``rows`` are those of :class:`Uniform`. Without a
    ratio, a budget sets how far to go.
    """

    NAME = "isomorphic"
    SCALED = False

    def pools(self, analysis: Analysis) -> Sequence[Hashable]:
        return [topology(analysis, g) for g in range(len(analysis.groups))]


@dataclass(frozen=True, slots=True)
class Ratios:
    """Remove a separate ratio from the groups of each scope, and apply ``policy`` to the others.

    A scope is a pattern (``"layer1.*"``, ``"*.conv2.weight:0"``; see :mod:`planc.policy.patterns`);
    of several matching scopes the last counts. Within a scope, ``policy`` ranks as elsewhere: each
    group alone, similar groups, or all of the scope.

    Raises:
        PolicyError: (when called) ``policy`` does not rank units, a pattern matches nothing, or a
            ratio is not in [0, 1).
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
        """The order of the groups outside all scopes."""
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
        """The counts of the groups of each scope, and the mask of these groups."""
        count = len(analysis.groups)
        owner = np.full(count, -1)
        for i, (pattern, _) in enumerate(self.scopes):
            owner[list(matching(analysis, pattern))] = i
        start = np.zeros(count, dtype=np.int64)
        for i, (pattern, ratio) in enumerate(self.scopes):
            checked_ratio(ratio, f"ratio of {pattern!r}")
            members = np.flatnonzero(owner == i).tolist()
            order = self._ranking().order(analysis, scores, members)
            start = np.where(owner == i, order.at(ratio), start)
        return start, owner >= 0


def needed(ratio: float | None) -> float:
    """The ratio of a policy called without a budget.

    Raises:
        PolicyError: the policy has no ratio.
    """
    if ratio is None:
        raise PolicyError("the policy has no ratio: give it one, or give a budget (macs=0.5)")
    return ratio


def topology(analysis: Analysis, g: int) -> Hashable:
    """The key shared by similar groups: the kind, and for each member the type of its module, the
    tensor's own name, its rank, the dimension, and whether it is ragged.
    """
    group, graph = analysis.groups[g], analysis.graph
    members = []
    for member in group.members:
        path, _, name = member.tensor.rpartition(".")
        module = graph.modules.get(path)
        rank = len(graph.tensor(member.tensor).shape)
        types = module.types[:1] if module is not None else ()
        members.append((types, name, rank, member.dim, member.over is None))
    return group.kind, group.rows > 1, tuple(members)


class Chosen:
    """The groups a ranking may shrink, separate from those fixed by ``kinds``."""

    def __init__(
        self,
        analysis: Analysis,
        ratio: float | None,
        kinds: Kinds,
        rows: tuple[str, ...],
        among: Sequence[int] | None,
    ) -> None:
        if ratio is not None:
            checked_ratio(ratio)
        self.analysis, self.kinds = analysis, dict(kinds)
        checked_kinds(analysis, self.kinds)
        for kind in rows:
            checked_kind(analysis, kind)
            if kind in self.kinds:
                raise PolicyError(f"rows of kind {kind!r} have a ratio of their own: leave one out")
            there = {analysis.groups[g].kind for g in analysis.grouping.rowed}
            if kind not in there:
                raise PolicyError(
                    f"groups of kind {kind!r} are no whole rows with something inside, which rows= "
                    f"is for: this model has {', '.join(sorted(there)) or 'none'}; leave it out"
                )
        members = range(len(analysis.groups)) if among is None else among
        groups, rowed = analysis.groups, analysis.grouping.rowed
        self.fixed = [g for g in members if groups[g].kind in self.kinds]
        self.free = [
            g
            for g in members
            if groups[g].kind not in self.kinds and (g not in rowed or groups[g].kind in rows)
        ]

    def order(self, scores: Scores, pools: Sequence[Hashable], scaled: bool) -> Order:
        """The order of the free groups in their pools, after the steps fixed by ``kinds``."""
        start = whole(self.analysis)
        for kind, ratio in self.kinds.items():
            members = [g for g in self.fixed if self.analysis.groups[g].kind == kind]
            order = self._ranked(scores, members, pools, scaled, start)
            start = np.array(order.at(ratio), dtype=np.int64)
        return self._ranked(scores, self.free, pools, scaled, start)

    def alone(self, ratio: float) -> Counts:
        """The counts at a ratio without competition between groups, computed without a ranking."""
        groups = self.analysis.groups
        ratios = np.zeros(len(groups))
        ratios[self.free] = ratio
        ratios[self.fixed] = [self.kinds[groups[g].kind] for g in self.fixed]
        sizes = np.array([group.size for group in groups], dtype=np.int64)
        rows = np.array([group.rows for group in groups], dtype=np.int64)
        steps = ((ratios * sizes + _EARLY) / rows).astype(np.int64)
        cells = whole(self.analysis)
        return tuple((cells - np.minimum(steps, cells - 1)).tolist())

    def _ranked(
        self,
        scores: Scores,
        members: list[int],
        pools: Sequence[Hashable],
        scaled: bool,
        start: NDArray[np.int64],
    ) -> Order:
        of_pool: dict[Hashable, list[int]] = {}
        for g in members:
            of_pool.setdefault(pools[g], []).append(g)
        parts = [self._pool(scores, pool, scaled) for pool in of_pool.values()]
        if not parts:
            return Order(start, np.zeros(0, dtype=np.int64), np.zeros(0))
        groups, values, shares = (np.concatenate(column) for column in zip(*parts, strict=True))
        by_share = np.lexsort((values, shares))  # stable: ties go to the first group
        return Order(start, groups[by_share], shares[by_share])

    def _pool(
        self, scores: Scores, members: list[int], scaled: bool
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """Groups, values and shares of the steps of one pool, lowest values first."""
        owners, values, sizes = [], [], []
        for g in members:
            group = self.analysis.groups[g]
            ranked = by_rank(group.rows, scores.units[g])
            values.append((relative(ranked) if scaled else ranked)[:-1])
            owners.append(np.full(group.cells - 1, g, dtype=np.int64))
            sizes.append(np.full(group.cells - 1, group.rows))
        owner, value, size = (np.concatenate(parts) for parts in (owners, values, sizes))
        order = np.argsort(value, kind="stable")
        total = sum(self.analysis.groups[g].size for g in members)
        shares = (np.cumsum(size[order]) - _EARLY) / total
        return owner[order], value[order], shares


def text(name: str, ratio: float | None, kinds: Kinds, rows: tuple[str, ...], *first: str) -> str:
    """A ranking in words: its name and the options given."""
    parts = [] if ratio is None else [f"{ratio:g}"]
    parts += [*first, *(f"{kind}={own:g}" for kind, own in kinds)]
    parts += [f"rows={'+'.join(rows)}"] if rows else []
    return f"{name}({', '.join(parts)})" if parts else name
