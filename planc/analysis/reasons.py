"""Reasons for couplings and pins: the chain of operators between two coordinates.

The ties and pins of the last walk give lines of text and the table of pins.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order

from planc.analysis.grouping import PINNED, Grouping
from planc.analysis.grouping.classes import edges
from planc.analysis.walk import Walked
from planc.errors import AnalysisError
from planc.ir.graph import Graph
from planc.ir.groups import joined
from planc.rules.labels.facts import NEVER, Facts


@dataclass(frozen=True, slots=True)
class Pin:
    """``count`` of the ``size`` indices of dimension ``dim`` of ``tensor`` are never removed."""

    tensor: str
    dim: int
    count: int
    size: int
    reason: str

    def __str__(self) -> str:
        part = "" if self.count == self.size else f" ({self.count} of {self.size})"
        return f"{self.tensor}:{self.dim}{part}: {self.reason}"


class _Edges:
    """All ties, and a tie of each pinned atom to atom 0, with the node behind each."""

    def __init__(self, facts: Facts) -> None:
        self.head, self.tail, self.note = edges(facts)
        n = facts.next_atom
        ones = np.ones(len(self.head), dtype=np.int8)
        self.matrix = coo_array((ones, (self.head, self.tail)), shape=(n, n)).tocsr()

    def parents(self, start: int) -> NDArray[np.int64]:
        """The predecessor of each atom on a shortest path from ``start``, negative if there is
        none.
        """
        found = breadth_first_order(self.matrix, start, directed=False, return_predecessors=True)
        parents: NDArray[np.int64] = found[1].astype(np.int64)
        return parents

    def between(self, a: int, b: int) -> int:
        """The node (or -2 minus the pin) behind the tie of two atoms."""
        either = ((self.head == a) & (self.tail == b)) | ((self.head == b) & (self.tail == a))
        return int(self.note[np.flatnonzero(either)[0]])


def pins(graph: Graph, walked: Walked, grouping: Grouping) -> tuple[Pin, ...]:
    """The pinned dimensions of all tensors, in the order of the tensors."""
    facts = walked.facts
    edges = _Edges(facts)
    parents = edges.parents(NEVER)
    seed = np.arange(facts.next_atom)
    while True:  # follow each chain to the atom next to atom 0
        up = parents[seed]
        move = up > NEVER
        if not move.any():
            break
        seed = np.where(move, up, seed)
    reason = np.full(facts.next_atom, -1, dtype=np.int64)
    direct = (edges.note <= -2) & (edges.head == NEVER)
    reason[edges.tail[direct][::-1]] = -2 - edges.note[direct][::-1]
    in_rows = _in_rows(facts, grouping)
    result = []
    for slot in facts.slots:
        if slot.rows is not None:
            continue
        atoms = np.arange(slot.first, slot.first + slot.count)
        stays = grouping.group[atoms] == PINNED
        if slot.blocks == 1:
            stays &= ~in_rows.get((slot.tensor, slot.dim), np.zeros(slot.count, dtype=bool))
        pinned = atoms[stays]
        if not len(pinned):
            continue
        tensor = graph.tensors[slot.tensor]
        why = reason[seed[pinned]]
        values, counts = np.unique(why, return_counts=True)
        text = _pin_text(graph, facts, int(values[np.argmax(counts)]))
        size = tensor.shape[slot.dim]
        result.append(Pin(tensor.name, slot.dim, len(pinned) // slot.blocks, size, text))
    return tuple(result)


def _in_rows(facts: Facts, grouping: Grouping) -> dict[tuple[int, int], NDArray[np.bool_]]:
    """The indices removed with rows, for each tensor dimension with row families."""
    found: dict[tuple[int, int], NDArray[np.bool_]] = {}
    for slot in facts.slots:
        if slot.rows is not None:
            at = (slot.tensor, slot.dim)
            row = grouping.group[slot.first + np.maximum(slot.rows, 1) - 1]
            free = (slot.rows > 0) & (row != PINNED)
            found[at] = found.get(at, np.zeros(len(free), dtype=bool)) | free
    return found


def _pin_text(graph: Graph, facts: Facts, pin: int) -> str:
    if pin < 0:
        return "coupled to a coordinate that was never there (padding, or part of a join)"
    note = facts.pins[pin]
    if note.node < 0:
        return note.reason
    return f"{note.reason}: {graph.nodes[note.node]}"


def explain(graph: Graph, walked: Walked, grouping: Grouping, tensor: str, dim: int) -> list[str]:
    """Explain the couplings or pins of dimension ``dim`` of a tensor, in lines of text.

    Raises:
        AnalysisError: there is no such tensor or dimension.
    """
    if not graph.has(tensor):
        names = [name for t in graph.tensors for name in t.names]
        near = difflib.get_close_matches(tensor, names, n=3)
        hint = f"; the nearest names are {', '.join(near)}" if near else ""
        raise AnalysisError(f"the model has no parameter or buffer {tensor!r}{hint}")
    found = graph.tensor(tensor)
    rank = len(found.shape)
    if not -rank <= dim < rank:
        raise AnalysisError(f"{tensor} has shape {found.shape}: there is no dimension {dim}")
    dim %= rank
    facts = walked.facts
    place = graph.tensors.index(found)
    slots = [s for s in facts.slots if (s.tensor, s.dim) == (place, dim)]
    if not slots:
        why = "one coordinate" if found.shape[dim] == 1 else "integers"
        return [f"{tensor}:{dim} has {why}: nothing to remove"]
    edges = _Edges(facts)
    lines: list[str] = []
    for slot in slots:
        atoms = np.arange(slot.first, slot.first + slot.count)
        groups = grouping.group[atoms]
        for g in dict.fromkeys(groups.tolist()):
            here = atoms[groups == g]
            what = "rows" if slot.rows is not None else "indices"
            if g == PINNED:
                lines.append(f"{len(here)} {what} of {tensor}:{dim} are pinned:")
                lines.extend(_chain(graph, facts, edges, NEVER, int(here[0])))
                continue
            group = grouping.groups[g]
            lines.append(f"{len(here)} {what} of {tensor}:{dim} belong to group {group}")
            if mixing := joined(grouping.mixing(g, "module")):
                lines.append(f"  mixing: {mixing}")
            lines.append(f"  {len(group.members)} members leave together:")
            lines.extend(_members(graph, facts, edges, grouping, int(here[0])))
    return lines


def _chain(graph: Graph, facts: Facts, edges: _Edges, start: int, atom: int) -> list[str]:
    parents = edges.parents(start)
    lines = []
    while parents[atom] >= 0 and atom != start:
        note = edges.between(int(parents[atom]), atom)
        if note <= -2:
            lines.append(f"  because of {_pin_text(graph, facts, -2 - note)}")
        elif note < 0 or parents[atom] == NEVER:
            lines.append("  coupled to a coordinate that is never removed")
        else:
            lines.append(f"  coupled by {graph.nodes[note]}")
        atom = int(parents[atom])
    return lines


def _members(graph: Graph, facts: Facts, edges: _Edges, grouping: Grouping, atom: int) -> list[str]:
    """The tensors of the unit of ``atom``, each with the operator coupling it."""
    g, unit = int(grouping.group[atom]), int(grouping.unit[atom])
    unit_atoms = np.flatnonzero((grouping.group == g) & (grouping.unit == unit))
    parents = edges.parents(atom)
    lines: dict[str, None] = {}
    slots = facts.slot_of(unit_atoms)
    for other, s in zip(unit_atoms.tolist(), slots.tolist(), strict=True):
        if s < 0 or other == atom:
            continue
        slot = facts.slots[s]
        at = other
        while facts.slot_of(np.array([parents[at]]))[0] < 0 and parents[at] != atom:
            at = int(parents[at])
        note = edges.between(int(parents[at]), at)
        via = f"coupled by {graph.nodes[note]}" if note >= 0 else "coupled"
        lines.setdefault(f"  {graph.tensors[slot.tensor].name}:{slot.dim}, {via}")
    return list(lines)
