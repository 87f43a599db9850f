"""What a group is: its kind and name, whether its units are whole rows, whether it is mixing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from planc.analysis.grouping.grouped import PINNED
from planc.ir.groups import Member, joined
from planc.rules.labels.facts import Facts


def rowed(
    facts: Facts, group: NDArray[np.int32], count: int, heads: set[int]
) -> tuple[frozenset[int], frozenset[int]]:
    """Groups of whole rows (heads, or row families alone), and those with prunable cells inside."""
    own = np.zeros(count, dtype=bool)
    inside = np.zeros(count, dtype=bool)
    plain = {(s.tensor, s.dim): s for s in facts.slots if s.rows is None}
    for slot in facts.slots:
        if slot.rows is None:
            groups = group[slot.first : slot.first + slot.count]
            own[groups[groups != PINNED]] = True
            continue
        cells = plain[slot.tensor, slot.dim]
        if cells.blocks == 1:
            where = np.flatnonzero(slot.rows)
            rows = group[slot.first + slot.rows[where] - 1]
            live = (group[cells.first + where] != PINNED) & (rows != PINNED)
            inside[rows[live]] = True
    whole = frozenset(g for g in range(count) if not own[g] or g in heads)
    return whole, frozenset(g for g in whole if inside[g])


def tagged(facts: Facts, group: NDArray[np.int32]) -> dict[str, set[int]]:
    tagged: dict[str, set[int]] = {"heads": set(), "groups": set(), "channels": set()}
    for atoms, kind in facts.tags:
        tagged.setdefault(kind, set()).update(np.unique(group[atoms]).tolist())
    return tagged


MODULE_ONLY = "module: "
"""How reasons begin that hold for the module and not for the rewritten graph."""


def mixing(facts: Facts, group: NDArray[np.int32]) -> dict[int, str]:
    """Every reason why a group mixes, those of all targets first."""
    reasons: dict[int, dict[str, None]] = {}
    for note in sorted(facts.mixings, key=lambda note: note.module_only):
        reason = (MODULE_ONLY if note.module_only else "") + note.reason
        for g in np.unique(group[note.atoms]).tolist():
            if g != PINNED:
                reasons.setdefault(g, {}).setdefault(reason)
    return {g: joined(found) for g, found in reasons.items()}


def kinds(
    facts: Facts,
    group: NDArray[np.int32],
    whole: frozenset[int],
    tagged: dict[str, set[int]],
    count: int,
) -> dict[int, str]:
    heads = tagged["heads"] & whole
    in_heads: set[int] = set()
    plain = {(s.tensor, s.dim): s for s in facts.slots if s.rows is None}
    for slot in facts.slots:
        if slot.rows is None:
            continue
        rows = group[slot.first + np.maximum(slot.rows, 1) - 1]
        is_head = np.isin(rows, list(heads)) & (slot.rows > 0)
        cells = plain[slot.tensor, slot.dim]
        if is_head.any() and cells.blocks == 1:
            in_heads.update(np.unique(group[cells.first + np.flatnonzero(is_head)]).tolist())
    kinds = {}
    for g in range(count):
        if g in whole:
            kinds[g] = "heads" if g in heads else "groups" if g in tagged["groups"] else "rows"
        elif g in in_heads:
            kinds[g] = "head_dim"
        else:
            kinds[g] = "channels" if g in tagged["channels"] else "features"
    return kinds


def names(firsts: Sequence[Member], whole: frozenset[int], kinds: dict[int, str]) -> list[str]:
    names: list[str] = []
    taken: dict[str, int] = {}
    for g, member in enumerate(firsts):
        name = f"{member.tensor}:{member.dim}" + (f"/{kinds[g]}" if g in whole else "")
        taken[name] = taken.get(name, 0) + 1
        names.append(name if taken[name] == 1 else f"{name}#{taken[name]}")
    return names
