"""Classes of alike units: components of tied atoms are units, and units with equal occurrences in
every tensor are one class.

Classes of rows of one ragged layer are joined into one group.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from planc.rules.labels import Layer
from planc.rules.labels.facts import NEVER, Facts

Hashes = NDArray[np.uint64]


def components(facts: Facts) -> NDArray[np.int64]:
    """The component number of each atom; pinned atoms share the component of atom 0."""
    head, tail, _ = edges(facts)
    return _connected(head, tail, facts.next_atom)


def edges(facts: Facts) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """All pairs of tied atoms, and atom 0 with each pinned atom, with their origins.

    Returns:
        Two arrays of atoms, and one of origins: the node of a tie, or -2 minus the number of a pin.
    """
    heads, tails, notes = [], [], []
    for a, b, node in facts.ties:
        left, right = np.broadcast_arrays(a, b)
        heads.append(left.reshape(-1))
        tails.append(right.reshape(-1))
        notes.append(np.full(left.size, node, dtype=np.int64))
    for i, pin in enumerate(facts.pins):
        atoms = pin.atoms[pin.atoms != NEVER]
        heads.append(np.full_like(atoms, NEVER))
        tails.append(atoms)
        notes.append(np.full(len(atoms), -2 - i, dtype=np.int64))
    empty = [np.zeros(0, dtype=np.int64)]
    head, tail, note = (np.concatenate(parts or empty) for parts in (heads, tails, notes))
    return head, tail, note


def _connected(heads: NDArray[Any], tails: NDArray[Any], count: int) -> NDArray[np.int64]:
    """The component number of each of ``count`` vertices joined by edges."""
    ends = (heads.astype(np.int32), tails.astype(np.int32))
    graph = coo_array((np.ones(len(ends[0]), dtype=np.int8), ends), shape=(count, count))
    found: NDArray[np.int64] = connected_components(graph, directed=False)[1].astype(np.int64)
    return found


class Occurrences:
    """Every occurrence of an atom in a tensor: parallel arrays, one entry per labelled index."""

    def __init__(self, facts: Facts) -> None:
        atoms, slots, indices, blocks = [], [], [], []
        for s, slot in enumerate(facts.slots):
            own = np.arange(slot.first, slot.first + slot.count)
            if slot.rows is not None:
                where = np.flatnonzero(slot.rows)
                atoms.append(slot.first + slot.rows[where] - 1)
                indices.append(where)
                blocks.append(np.zeros(len(where), dtype=np.int64))
            else:
                length = slot.count // slot.blocks
                atoms.append(own)
                indices.append(np.tile(np.arange(length), slot.blocks))
                blocks.append(np.repeat(np.arange(slot.blocks), length))
            slots.append(np.full(len(atoms[-1]), s, dtype=np.int32))
        empty = [np.zeros(0, dtype=np.int64)]
        self.atom, self.slot, self.index, self.block = (
            np.concatenate(parts or empty).astype(np.int32)
            for parts in (atoms, slots, indices, blocks)
        )


def unit_classes(
    facts: Facts, component: NDArray[np.int64], places: Occurrences
) -> list[list[NDArray[np.int64]]]:
    """The units (component numbers) of each group, one array for each of its rows.

    Groups are ordered by their first place; groups of rows follow the groups inside them.
    """
    count = int(component.max()) + 1
    alive = np.zeros(count, dtype=bool)
    alive[component[places.atom]] = True
    alive[component[NEVER]] = False
    base, row = _signatures(facts, component, count, places)
    first = _first_place(component, count, places)
    merged = _merge(facts, component, _alike(alive, base, row, first), base)
    return sorted(merged, key=lambda rows: _order(facts, places, int(first[rows[0][0]])))


def _mix(values: NDArray[np.int64] | int) -> Hashes:
    """A fixed pseudo-random number for each integer (splitmix64, Steele et al. 2014)."""
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64
        z = np.asarray(values, dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Hashes = z ^ (z >> np.uint64(31))
    return mixed


def _signatures(
    facts: Facts, component: NDArray[np.int64], count: int, places: Occurrences
) -> tuple[Hashes, Hashes]:
    """Two hashes for each component: of its occurrences, and of its rows in ragged layers."""
    base = np.zeros(count, dtype=np.uint64)
    row = np.zeros(count, dtype=np.uint64)
    of_slot = _mix(np.arange(1, len(facts.slots) + 1))
    np.add.at(base, component[places.atom], of_slot[places.slot])
    seen: dict[tuple[int, bytes], None] = {}
    for layer in _measured(facts):
        key = (layer.target, layer.atoms.tobytes())
        if key not in seen:
            seen[key] = None
            np.add.at(base, component[layer.atoms.reshape(-1)], _mix((1 << 40) + len(seen)))
    for i, layer in enumerate(_ragged(facts)):
        lines = component[layer.lines()]
        keys = _mix(np.arange(len(lines), dtype=np.int64) + ((i + 1) << 20))
        np.add.at(row, lines.reshape(-1), np.repeat(keys, lines.shape[1]))
    return base, row


def _ragged(facts: Facts) -> Iterable[Layer]:
    """The ragged layers with lines of necessarily equal length."""
    for balance in facts.related("balanced"):
        x, dim = balance.left
        for layer in x.targeting(dim):
            if layer.ragged:
                yield layer


def _measured(facts: Facts) -> Iterable[Layer]:
    """The layers of widths in demands, relations or costs: their units must be distinguishable."""
    for demand in facts.demands:
        yield from demand.labelled.targeting(demand.dim)
    for relation in facts.relations:
        if not isinstance(relation.right, int):
            for labelled, dim in (relation.left, relation.right):
                yield from labelled.targeting(dim)
    for cost in facts.products:
        for labelled, dim in cost.widths:
            yield from labelled.targeting(dim)


def _first_place(
    component: NDArray[np.int64], count: int, places: Occurrences
) -> NDArray[np.int64]:
    """The position of each component's first place; it orders the units."""
    first = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(first, component[places.atom], np.arange(len(places.atom)))
    return first


def _alike(
    alive: NDArray[np.bool_], base: Hashes, row: Hashes, first: NDArray[np.int64]
) -> list[NDArray[np.int64]]:
    """Live components by equal signature, ordered by place within and across classes."""
    units = np.flatnonzero(alive)
    units = units[np.argsort(first[units], kind="stable")]
    keys = np.stack([base[units], row[units]])
    order = np.lexsort(keys)  # stable: keeps the units of a class in order of place
    bounds = np.flatnonzero((np.diff(keys[:, order], axis=1) != 0).any(axis=0)) + 1
    classes = np.split(order, bounds) if len(units) else []
    return [units[places] for places in sorted(classes, key=lambda places: int(places[0]))]


def _merge(
    facts: Facts,
    component: NDArray[np.int64],
    classes: list[NDArray[np.int64]],
    base: Hashes,
) -> list[list[NDArray[np.int64]]]:
    """Join the classes of rows of one ragged layer; other classes remain single."""
    of = np.full(len(base), -1, dtype=np.int64)
    for i, units in enumerate(classes):
        of[units] = i
    pairs: list[tuple[int, int]] = []
    for layer in _ragged(facts):
        found: dict[tuple[int, int], int] = {}
        for i in np.unique(of[component[layer.atoms.reshape(-1)]]).tolist():
            if i >= 0:
                key = (int(base[classes[i][0]]), len(classes[i]))
                pairs.append((found.setdefault(key, i), i))
    ends = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    merged: dict[int, list[NDArray[np.int64]]] = {}
    joint = _connected(ends[:, 0], ends[:, 1], len(classes)).tolist()
    for number, units in zip(joint, classes, strict=True):
        merged.setdefault(number, []).append(units)
    return list(merged.values())


def _order(facts: Facts, places: Occurrences, place: int) -> tuple[int, int, bool, int]:
    """Sort key of a group: its first tensor, with rows after the units inside them."""
    slot = facts.slots[int(places.slot[place])]
    return (slot.tensor, slot.dim, slot.rows is not None, int(places.index[place]))
