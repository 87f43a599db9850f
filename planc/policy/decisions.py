"""Decisions: units that a person removes or keeps by number, whatever their scores.

A unit is named by a group, or by any layer, tensor or dimension of the group and an index there:
``conv1``, ``bn1.weight``, ``fc.weight:1``, ``fc:in``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from planc.analysis import Analysis
from planc.analysis.equations import Equations
from planc.criteria.scores import Scores
from planc.errors import PolicyError
from planc.policy.closure import nested
from planc.policy.modifiers import Raise, Raising, at_least
from planc.policy.order import Order, Ranking, whole
from planc.policy.patterns import members_named
from planc.policy.ratio import Counts, Policy

Marks = tuple[NDArray[np.bool_], ...]
"""For each group, a mask over its units."""
Chosen = Mapping[str, Sequence[int]]
"""The units chosen of what each name means."""


@dataclass(frozen=True, eq=False)
class Decisions:
    """Units to remove and units to keep. Of the other units, those ``likely`` are removed first.

    ``texts`` are the decisions in words, for the plan's provenance.
    """

    remove: Marks
    keep: Marks
    likely: Marks
    texts: tuple[str, ...] = ()

    def policy(self, analysis: Analysis, equations: Equations, policy: Policy) -> Policy:
        """The policy with room for the decisions.

        Groups of one kind whose widths the model ties lose the same share.
        """
        removed = _shared(analysis, equations, _most(analysis, self.remove))
        if any(removed):
            policy = Removing(policy, removed)
        kept = _most(analysis, self.keep)
        return Keeping(policy, kept) if any(kept) else policy

    def ranked(self, analysis: Analysis, scores: Scores, counts: Counts) -> Scores:
        """Scores in the order of the decisions, then in that of ``scores``."""
        forced = _most(analysis, self.remove)
        units = []
        for g, own in enumerate(scores.units):
            rank = np.argsort(np.argsort(own, kind="stable"), kind="stable") / max(len(own), 1)
            silent = np.isnan(own).any()
            if silent and analysis.groups[g].cells - counts[g] > forced[g]:
                units.append(own)  # refused, as without decisions
                continue
            rank -= self.likely[g]
            units.append(np.where(self.remove[g], -2.0, np.where(self.keep[g], 2.0, rank)))
        return replace(scores, units=tuple(units))

    def check(self, analysis: Analysis, equations: Equations, counts: Counts) -> None:
        """Raise PolicyError if a group may not lose all units chosen from it; names the reason."""
        for g, most in enumerate(_most(analysis, self.remove)):
            group = analysis.groups[g]
            if (loses := group.cells - counts[g]) < most:
                raise PolicyError(
                    f"group {group}: {most} of its units are chosen for removal, {loses} may go: "
                    f"{_obstacle(g, equations)}"
                )


def _obstacle(g: int, equations: Equations) -> str:
    if g in equations.whole:
        return f"it stays whole because of {equations.whole[g]}"
    bound = [constraint for constraint in equations.constraints if g in constraint.groups]
    if bound:
        return f"its width is bound by {bound[0].reason}; choose units of the other groups as well"
    return "another option (keep, only, floor, cap, round_to) raises what stays; leave it out"


def _most(analysis: Analysis, marks: Marks) -> tuple[int, ...]:
    """For each group, the largest number of marked units in a row."""
    pairs = zip(analysis.groups, marks, strict=True)
    return tuple(int(own.reshape(group.rows, -1).sum(axis=1).max()) for group, own in pairs)


def _shared(analysis: Analysis, equations: Equations, removed: tuple[int, ...]) -> tuple[int, ...]:
    """The numbers of units to remove, raised to the same share in groups of one kind that are tied
    by a constraint.
    """
    groups, found = analysis.groups, list(removed)
    waiting = [g for g, units in enumerate(found) if units]
    while waiting:
        g = waiting.pop()
        tied = {
            o
            for constraint in equations.constraints
            for o in constraint.groups
            if g in constraint.groups and groups[o].kind == groups[g].kind
        }
        for o in tied:
            units = -(-found[g] * groups[o].cells // groups[g].cells)
            if units > found[o]:
                found[o] = units
                waiting.append(o)
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Removing:
    """Remove at least ``units[g]`` units from each row of group g, else as ``policy`` says."""

    policy: Policy
    units: tuple[int, ...]

    def __str__(self) -> str:
        return str(self.policy)

    def __call__(self, analysis: Analysis, scores: Scores) -> Counts:
        most = whole(analysis) - self.units
        return tuple(np.minimum(self.policy(analysis, scores), most).tolist())

    def order(
        self, analysis: Analysis, scores: Scores, among: Sequence[int] | None = None
    ) -> Order:
        """The order of the policy, with these units removed before its first step."""
        inside = next((p for p in nested(self.policy) if isinstance(p, Ranking)), None)
        if inside is None:
            raise PolicyError(f"a budget needs a policy that ranks units, and {self} does not")
        order = inside.order(analysis, scores, among)
        start = np.minimum(order.start, whole(analysis) - self.units)
        skipped = order.start - start
        nth = np.zeros_like(order.groups)
        for g in np.flatnonzero(skipped):
            here = order.groups == g
            nth[here] = np.arange(1, here.sum() + 1)
        stays = (nth == 0) | (nth > skipped[order.groups])
        return Order(start, order.groups[stays], order.shares[stays])


@dataclass(frozen=True, slots=True)
class Keeping(Raising):
    """Keep at least ``units[g]`` units in each row of group g."""

    units: tuple[int, ...]

    def __str__(self) -> str:
        return str(self.policy)

    def raising(self, analysis: Analysis) -> Raise:
        """At least these units."""
        return at_least(list(self.units))


@dataclass(frozen=True, slots=True)
class Exactly:
    """Keep ``counts[g]`` units in each row of group g."""

    counts: Counts
    name: str

    def __str__(self) -> str:
        return self.name

    def __call__(self, analysis: Analysis, scores: Scores) -> Counts:
        return self.counts


def decided(analysis: Analysis, remove: Chosen, keep: Chosen) -> Decisions:
    """The decisions of a person.

    Args:
        remove, keep: indices for names of groups, layers, tensors or dimensions.

    Raises:
        PolicyError: a name means nothing or several groups, an index is absent or pinned, or a unit
            is both removed and kept.
    """
    removed, kept = (marks(analysis, given) for given in (remove, keep))
    for group, gone, stays in zip(analysis.groups, removed, kept, strict=True):
        if (both := np.flatnonzero(gone & stays)).size:
            raise PolicyError(f"group {group}: unit {both[0]} is to be removed and to be kept")
        if (gone.reshape(group.rows, -1).all(axis=1)).any():
            raise PolicyError(f"group {group}: all its units are to be removed; one must stay")
    nothing = tuple(np.zeros(group.size, dtype=bool) for group in analysis.groups)
    texts = [*in_words(analysis, "remove", removed), *in_words(analysis, "keep", kept)]
    return Decisions(removed, kept, nothing, tuple(texts))


def in_words(analysis: Analysis, verb: str, marked: Marks) -> list[str]:
    """One text for each group with marked units."""
    pairs = zip(analysis.groups, marked, strict=True)
    return [f"{verb} {group.name} {_spans(own)}" for group, own in pairs if own.any()]


_LONGEST = 500  # characters; a string in a file has at most 1,024 bytes


def _spans(marked: NDArray[np.bool_]) -> str:
    """The marked units as ranges: ``2,6,8-11``."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], marked, [0]]).astype(np.int8)))
    pairs = edges.reshape(-1, 2).tolist()
    text = ",".join(str(a) if b - a == 1 else f"{a}-{b - 1}" for a, b in pairs)
    if len(text) <= _LONGEST:
        return text
    return f"{text[:_LONGEST].rpartition(',')[0]},... ({int(marked.sum())} units)"


def marks(analysis: Analysis, chosen: Chosen) -> Marks:
    """Masks of the units chosen by names and indices.

    Raises:
        PolicyError: a name means nothing or several groups, or an index is absent or pinned.
    """
    found = tuple(np.zeros(group.size, dtype=bool) for group in analysis.groups)
    names = {group.name: g for g, group in enumerate(analysis.groups)}
    for name, indices in chosen.items():
        wanted = _integers(name, indices)
        if name in names:
            group = analysis.groups[names[name]]
            _bounded(name, wanted, group.size, f"group {group} has {group.size} units")
            found[names[name]][wanted] = True
            continue
        for g, units in _units(analysis, name, wanted):
            found[g][units] = True
    return found


def _units(
    analysis: Analysis, name: str, indices: list[int]
) -> list[tuple[int, NDArray[np.int64]]]:
    """The units at indices of a dimension, by group."""
    places = _places(analysis, name)
    (tensor, dim), owners = next(iter(places.items()))
    size = analysis.graph.tensor(tensor).shape[dim]
    _bounded(name, indices, size, f"{tensor}:{dim} has {size} indices")
    found = []
    left = set(indices)
    for g, (units, positions) in owners.items():
        here = np.isin(positions, indices)
        left -= set(positions[here].tolist())
        found.append((g, units[here]))
    if left:
        pin = next((p for p in analysis.pins if (p.tensor, p.dim) == (tensor, dim)), None)
        why = f": {pin.reason}" if pin is not None else ""
        raise PolicyError(f"{name!r}: index {min(left)} of {tensor}:{dim} is never removed{why}")
    return found


_Positions = tuple[NDArray[np.int64], NDArray[np.int64]]


def _places(analysis: Analysis, name: str) -> dict[tuple[str, int], dict[int, _Positions]]:
    """The units and their indices in each dimension that a name means, by group.

    Raises:
        PolicyError: the name means dimensions with different units.
    """
    named = members_named(analysis, name)
    inner = {g for g, _ in named} - analysis.grouping.rowed
    places: dict[tuple[str, int], dict[int, _Positions]] = {}
    for g, member in named:
        if g in inner or not inner:  # of heads with prunable cells, the index is that of a cell
            units, positions = member.expand()
            own = places.setdefault((member.tensor, member.dim), {})
            if g in own:
                units, positions = (
                    np.concatenate(p) for p in zip(own[g], (units, positions), strict=True)
                )
            own[g] = (units, positions)
    alike = {frozenset(owners) for owners in places.values()}
    if len(alike) > 1:
        several = sorted({analysis.groups[g].name for owners in places.values() for g in owners})
        raise PolicyError(f"{name!r} means several groups: name one of {', '.join(several[:8])}")
    return places


def _integers(name: str, indices: Sequence[int]) -> list[int]:
    found = list(indices) if isinstance(indices, Iterable) else [indices]
    for index in found:
        if isinstance(index, bool) or not isinstance(index, int | np.integer):
            raise PolicyError(f"{name!r}: {index!r} is no index of a unit: give [2, 6, 9]")
    return [int(index) for index in found]


def _bounded(name: str, indices: Iterable[int], size: int, said: str) -> None:
    for index in indices:
        if not 0 <= index < size:
            raise PolicyError(f"{name!r}: there is no unit {index}: {said}, from 0 to {size - 1}")
