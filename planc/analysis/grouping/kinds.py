"""Properties of groups: kind, name, whole rows, reasons for mixing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet

import numpy as np
from numpy.typing import NDArray

from planc.analysis.grouping.grouped import PINNED
from planc.analysis.uses import contracted
from planc.ir.graph import Graph
from planc.ir.groups import Member, joined
from planc.rules.labels.facts import Facts


def rowed(
    facts: Facts, group: NDArray[np.int32], count: int, heads: set[int]
) -> tuple[frozenset[int], frozenset[int]]:
    """Groups of whole rows (heads, or row families alone), and those with prunable cells inside."""
    own = np.zeros(count, dtype=bool)
    inside = np.zeros(count, dtype=bool)
    for slot in facts.slots:
        if slot.rows is None:
            groups = group[slot.first : slot.first + slot.count]
            own[groups[groups != PINNED]] = True
    for rows, cells in _rows(facts, group):
        live = (cells != PINNED) & (rows != PINNED)
        inside[rows[live]] = True
    whole = frozenset(g for g in range(count) if not own[g] or g in heads)
    return whole, frozenset(g for g in whole if inside[g])


def _rows(
    facts: Facts, group: NDArray[np.int32]
) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int32]]]:
    """The groups of rows and of the cells inside, per index of each dimension with both."""
    plain = {(s.tensor, s.dim): s for s in facts.slots if s.rows is None}
    for slot in facts.slots:
        cells = plain[slot.tensor, slot.dim]
        if slot.rows is not None and cells.blocks == 1:
            where = np.flatnonzero(slot.rows)
            yield group[slot.first + slot.rows[where] - 1], group[cells.first + where]


def scaled_rows(graph: Graph, facts: Facts, group: NDArray[np.int32]) -> set[int]:
    """Groups of rows with prunable cells inside, whose own dimensions are of scales alone.

    Such are the heads of an attention by a vector of shape (heads, dim): the rows of a projection,
    and a dimension of a parameter that meets activations element by element.
    """
    if all(slot.rows is None for slot in facts.slots):
        return set()
    weights = contracted(graph)
    rows, scales, own = set[int](), set[int](), set[int]()
    for slot in facts.slots:
        groups = {*np.unique(group[slot.first : slot.first + slot.count]).tolist()} - {PINNED}
        if slot.rows is not None:
            rows |= groups
        elif graph.tensors[slot.tensor].value in weights:
            own |= groups
        else:
            scales |= groups
    found = rows & scales - own
    if not found:
        return found
    return {int(g) for outer, cells in _rows(facts, group) for g in outer[cells != PINNED]} & found


def tagged(facts: Facts, group: NDArray[np.int32]) -> dict[str, set[int]]:
    tagged: dict[str, set[int]] = {"heads": set(), "groups": set(), "channels": set()}
    for atoms, kind in facts.tags:
        tagged.setdefault(kind, set()).update(np.unique(group[atoms]).tolist())
    return tagged


def mixing(facts: Facts, group: NDArray[np.int32], module_only: bool) -> dict[int, str]:
    """The reasons for mixing by group: those valid for all targets, or for the module only."""
    reasons: dict[int, list[str]] = {}
    for note in facts.mixings:
        for g in np.unique(group[note.atoms]).tolist() if note.module_only == module_only else ():
            if g != PINNED:
                reasons.setdefault(g, []).append(note.reason)
    return {g: joined(found) for g, found in reasons.items()}


def kinds(
    facts: Facts,
    group: NDArray[np.int32],
    whole: frozenset[int],
    tagged: dict[str, set[int]],
    count: int,
) -> dict[int, str]:
    heads = tagged["heads"] & whole
    queries = _inside_others(facts, group, heads)
    in_heads: set[int] = set()
    for rows, cells in _rows(facts, group):
        in_heads.update(np.unique(cells[np.isin(rows, list(heads))]).tolist())
    kinds = {}
    for g in range(count):
        if g in whole:
            kinds[g] = "heads" if g in heads else "groups" if g in tagged["groups"] else "rows"
            kinds[g] = "query_heads" if g in queries else kinds[g]
        elif g in in_heads:
            kinds[g] = "head_dim"
        else:
            kinds[g] = "channels" if g in tagged["channels"] else "features"
    return kinds


def _inside_others(
    facts: Facts, group: NDArray[np.int32], heads: AbstractSet[int]
) -> frozenset[int]:
    """Groups of heads inside other heads: the queries of each key and value.

    The outer heads cover the same indices of the same dimensions, and others.
    """
    if len(heads) < 2:
        return frozenset()
    covered: dict[int, Counter[tuple[int, int]]] = {g: Counter() for g in heads}
    for slot in facts.slots:
        rows = group[slot.first : slot.first + slot.count]
        found = rows if slot.rows is None else rows[slot.rows[slot.rows > 0] - 1]
        groups, counts = np.unique(found, return_counts=True)
        for g, count in zip(groups.tolist(), counts.tolist(), strict=True):
            if g in heads:
                covered[g][slot.tensor, slot.dim] += count
    by_place: dict[tuple[int, int], list[int]] = {}
    for g, places in covered.items():
        for place in places:
            by_place.setdefault(place, []).append(g)
    return frozenset(
        g
        for together in by_place.values()
        for g in together
        if any(covered[g] < covered[other] for other in together)
    )


def names(firsts: Sequence[Member], whole: frozenset[int], kinds: dict[int, str]) -> list[str]:
    names: list[str] = []
    taken: dict[str, int] = {}
    for g, member in enumerate(firsts):
        name = f"{member.tensor}:{member.dim}" + (f"/{kinds[g]}" if g in whole else "")
        taken[name] = taken.get(name, 0) + 1
        names.append(name if taken[name] == 1 else f"{name}#{taken[name]}")
    return names
