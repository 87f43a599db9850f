"""Members of groups: each group's units as runs of indices in the model's tensors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from planc.analysis.grouping.classes import Occurrences
from planc.analysis.grouping.grouped import PINNED
from planc.ir.graph import Graph
from planc.ir.groups import Member, Over, Run, compress
from planc.rules.labels.facts import Facts


def members(
    graph: Graph,
    facts: Facts,
    group: NDArray[np.int32],
    unit: NDArray[np.int32],
    places: Occurrences,
    count: int,
) -> list[tuple[Member, ...]]:
    """The members of each group, in the order of the model's tensors."""
    member_lists: list[list[tuple[tuple[int, int, int], Member]]] = [[] for _ in range(count)]
    groups = group[places.atom]
    live = np.flatnonzero(groups != PINNED)
    order = live[np.argsort(groups[live], kind="stable")]  # places are ordered by slot and block
    if not len(order):
        return []
    keys = (groups[order], places.slot[order], places.block[order])
    changes = np.zeros(len(order), dtype=bool)
    changes[0] = True
    for column in keys:
        changes[1:] |= column[1:] != column[:-1]
    starts = np.flatnonzero(changes)
    ends = np.append(starts[1:], len(order))
    units, indices = unit[places.atom[order]], places.index[order]
    steps = _steps(units, indices, starts, ends)
    heads = zip(*(key[starts].tolist() for key in keys), strict=True)
    for (g, s, block), at, end, step in zip(
        heads, starts.tolist(), ends.tolist(), steps.tolist(), strict=True
    ):
        slot = facts.slots[s]
        tensor = graph.tensors[slot.tensor]
        over = None
        if slot.blocks > 1:
            length = tensor.shape[slot.over] // slot.blocks
            over = Over(slot.over, block * length, (block + 1) * length)
        runs: tuple[Run, ...]
        if step:
            runs = (Run(int(units[at]), end - at, int(indices[at]), step),)
        else:
            runs = compress(units[at:end].astype(np.int64), indices[at:end].astype(np.int64))
        key = (slot.tensor, slot.dim, over.start if over else -1)
        member_lists[g].append((key, Member(tensor.name, slot.dim, runs, over)))
    return [_united(entries) for entries in member_lists]


def _steps(
    units: NDArray[np.int32],
    indices: NDArray[np.int32],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
) -> NDArray[np.int64]:
    """The index step of each stretch with consecutive units, 0 for an irregular stretch."""
    lengths = ends - starts
    steps: NDArray[np.int64] = (lengths == 1).astype(np.int64)
    long = np.flatnonzero(lengths > 1)
    if len(long):
        unit_steps, index_steps = np.diff(units), np.diff(indices)
        # the difference at the end of a stretch crosses into the next one: not checked
        last = ends[:-1] - 1
        first = index_steps[starts[long]]
        stray = np.ones(len(index_steps), dtype=bool)
        stray[last[last < len(stray)]] = False
        stretch = np.repeat(np.arange(len(starts), dtype=np.int32), lengths)[:-1]
        expected = np.zeros(len(starts), dtype=np.int32)
        expected[long] = first
        wrong = stray & ((unit_steps != 1) | (index_steps != expected[stretch]))
        irregular = np.zeros(len(starts), dtype=bool)
        irregular[stretch[wrong]] = True
        steps[long] = np.where(irregular[long] | (first <= 0), 0, first)
    return steps


def _united(entries: list[tuple[tuple[int, int, int], Member]]) -> tuple[Member, ...]:
    """The members in order; row levels merged into one group are listed once per place."""
    entries.sort(key=lambda entry: (entry[0], entry[1].runs))
    places: dict[tuple[int, int, int], list[Member]] = {}
    for key, member in entries:
        places.setdefault(key, []).append(member)
    return tuple(member for found in places.values() for member in _apart(found))


def _apart(members: list[Member]) -> list[Member]:
    """The members of one place unchanged, or one member if they share indices."""
    if len(members) == 1:
        return members
    pairs = [member.expand() for member in members]
    units, indices = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    distinct, first = np.unique(indices, return_index=True)
    if len(distinct) == len(indices):
        return members
    return [replace(members[0], runs=compress(units[first], distinct))]
