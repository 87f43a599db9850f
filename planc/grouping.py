"""From ties to groups: components are units, units alike in every tensor are a group.

In: the facts of the last walk. Out: :class:`Grouping`: groups, the unit of every atom, and the
width of any labelled dimension as a polynomial in what the groups keep.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from planc.facts import NEVER, Atoms, Facts, Note
from planc.groups import Group, Member, Over, Run, compress
from planc.ir import Graph
from planc.labels import Labelled, Layer
from planc.walk import Walked
from planc.widths import Poly

Hashes = NDArray[np.uint64]
PINNED = -1


@dataclass(frozen=True, eq=False)
class Grouping:
    """Groups with the place of every atom in them.

    ``group`` and ``unit`` give for each atom its group (PINNED if it stays) and the number of its
    unit there. ``rowed`` are the groups whose units are whole rows with cells inside.
    """

    groups: tuple[Group, ...]
    group: NDArray[np.int32]
    unit: NDArray[np.int32]
    rowed: frozenset[int]

    def width(self, x: Labelled, dim: int) -> Poly:
        """The width of a dimension after pruning, in units kept per row of each group."""
        layers = sorted(x.targeting(dim), key=Layer.fineness)
        columns = [layer.along() for layer in layers]
        return self._width(columns, np.arange(x.shape[dim]))

    def _width(self, columns: Sequence[Atoms], at: NDArray[np.int64]) -> Poly:
        if not columns:
            return Poly.const(len(at))
        atoms = columns[0][at]
        groups, units = self.group[atoms], self.unit[atoms]
        total = self._width(columns[1:], at[groups == PINNED])
        for g in np.unique(groups[groups != PINNED]):
            here = groups == g
            total = total + self._of_group(int(g), units[here], columns[1:], at[here])
        return total

    def _of_group(
        self, g: int, units: NDArray[np.int32], rest: Sequence[Atoms], at: NDArray[np.int64]
    ) -> Poly:
        """Units of one group stand at ``at``; each holds what the finer columns leave of it."""
        distinct, counts = np.unique(units, return_counts=True)
        cells = self.groups[g].cells
        row, uneven = units // cells, bool((counts != counts[0]).any())
        rows = np.unique(distinct // cells)
        if len(rows) > 1 and (rest or uneven):
            parts = (self._of_group(g, units[row == r], rest, at[row == r]) for r in rows)
            return sum(parts, Poly())
        if len(distinct) != len(rows) * cells or uneven:
            raise ArithmeticError(f"group {self.groups[g].name} is only partly there")
        if not rest:
            return Poly.of({(g,): len(rows) * int(counts[0])})
        lines = at[np.argsort(units, kind="stable")].reshape(len(distinct), -1)
        if len(rest) == 1:  # lines with the same groups in them are equally wide
            inside = np.sort(self.group[rest[0][lines]], axis=1)
            lines = lines[:1] if (inside == inside[0]).all() else lines
        inner = {self._width(rest, line) for line in lines}
        if len(inner) > 1:
            raise ArithmeticError(f"units of {self.groups[g].name} are not equally wide")
        return Poly.variable(g) * inner.pop()


def components(facts: Facts) -> NDArray[np.int64]:
    """The component of each atom; pinned atoms are in the component of atom 0."""
    heads, tails = [], []
    for a, b, _ in facts.ties:
        left, right = np.broadcast_arrays(a, b)
        heads.append(left.reshape(-1))
        tails.append(right.reshape(-1))
    for note in facts.pins:
        pinned = note.atoms.reshape(-1)
        heads.append(pinned)
        tails.append(np.zeros_like(pinned))
    n = facts.next_atom
    if not heads:
        return np.arange(n)
    row, column = (np.concatenate(ends).astype(np.int32) for ends in (heads, tails))
    ones = np.ones(len(row), dtype=np.int8)
    graph = coo_array((ones, (row, column)), shape=(n, n))
    found: NDArray[np.int64] = connected_components(graph, directed=False)[1].astype(np.int64)
    return found


def group_units(graph: Graph, walked: Walked) -> Grouping:
    """Finds the groups."""
    facts = walked.facts
    component = components(facts)
    count = int(component.max()) + 1
    places = _Places(facts, component)
    alive = np.zeros(count, dtype=bool)
    alive[component[places.atom]] = True
    alive[component[NEVER]] = False
    base, row = _signatures(facts, component, count, places)
    first = _first_place(component, count, places)
    classes = _classes(alive, base, row, first)
    merged = _merge(facts, component, classes, base)
    starts = [int(first[rows[0][0]]) for rows in merged]
    del alive, base, row, first  # as large as everything else
    in_order = sorted(range(len(merged)), key=lambda i: _order(facts, places, starts[i]))
    merged = [merged[i] for i in in_order]
    grouping = _assemble(graph, facts, component, merged, places)
    uneven = _uneven(graph, walked, grouping)
    if not uneven:
        return grouping
    pinned = np.flatnonzero(np.isin(grouping.group, list(uneven)))
    facts.node = -1
    facts.pins.append(Note(pinned, "its units do not all hold the same of what is inside", -1))
    return group_units(graph, walked)


def _uneven(graph: Graph, walked: Walked, grouping: Grouping) -> frozenset[int]:
    """Groups of rows whose width would depend on which row goes."""
    wanted = [
        (walked.labels[t.value], dim) for t in graph.tensors for dim in range(len(t.shape))
    ] + [width for cost in walked.facts.products for width in cost.widths]
    uneven: set[int] = set()
    for x, dim in wanted:
        layers = x.targeting(dim)
        if len(layers) < 2:
            continue
        try:
            grouping.width(x, dim)
        except ArithmeticError:
            coarse = sorted(layers, key=Layer.fineness)[:-1]
            found = {int(g) for layer in coarse for g in np.unique(grouping.group[layer.along()])}
            uneven |= found - {PINNED}
    return frozenset(uneven)


def _order(facts: Facts, places: _Places, place: int) -> tuple[int, int, bool, int]:
    """Groups stand in the order of their first tensor, rows after what is inside them."""
    slot = facts.slots[int(places.slot[place])]
    return (slot.tensor, slot.dim, slot.rows is not None, int(places.index[place]))


class _Places:
    """Every atom of a tensor with where it stands: one entry for each index it labels."""

    def __init__(self, facts: Facts, component: NDArray[np.int64]) -> None:
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


def _mix(values: NDArray[np.int64] | int) -> Hashes:
    """A fixed pseudo-random number for each integer (splitmix64, Steele et al. 2014)."""
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64
        z = np.asarray(values, dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Hashes = z ^ (z >> np.uint64(31))
    return mixed


def _signatures(
    facts: Facts, component: NDArray[np.int64], count: int, places: _Places
) -> tuple[Hashes, Hashes]:
    """For each component a hash of where it occurs, and one of the rows of ragged layers."""
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
    """The ragged layers whose lines must stay equally long."""
    for balance in facts.balances:
        for layer in balance.labelled.targeting(balance.dim):
            if layer.ragged:
                yield layer


def _measured(facts: Facts) -> Iterable[Layer]:
    """The layers whose width somebody asks for: their units must be told apart."""
    for demand in facts.demands:
        yield from demand.labelled.targeting(demand.dim)
    for equal in facts.equals:
        for labelled, dim in (equal.left, equal.right):
            yield from labelled.targeting(dim)
    for wider in facts.widers:
        for labelled, dim in (wider.left, wider.right):
            yield from labelled.targeting(dim)
    for cost in facts.products:
        for labelled, dim in cost.widths:
            yield from labelled.targeting(dim)


def _first_place(component: NDArray[np.int64], count: int, places: _Places) -> NDArray[np.int64]:
    """The position of the first place of each component, which gives units their order."""
    first = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(first, component[places.atom], np.arange(len(places.atom)))
    return first


def _classes(
    alive: NDArray[np.bool_], base: Hashes, row: Hashes, first: NDArray[np.int64]
) -> list[NDArray[np.int64]]:
    """Live components with equal signatures, each class and the classes in order of place."""
    units = np.flatnonzero(alive)
    units = units[np.argsort(first[units], kind="stable")]
    keys = np.stack([base[units], row[units]])
    order = np.lexsort(keys)  # stable: units of a class stay in order of place
    bounds = np.flatnonzero((np.diff(keys[:, order], axis=1) != 0).any(axis=0)) + 1
    classes = np.split(order, bounds) if len(units) else []
    return [units[places] for places in sorted(classes, key=lambda places: int(places[0]))]


def _merge(
    facts: Facts,
    component: NDArray[np.int64],
    classes: list[NDArray[np.int64]],
    base: Hashes,
) -> list[list[NDArray[np.int64]]]:
    """Classes that are rows of one ragged layer become one group; the others stand alone."""
    of = np.full(len(base), -1, dtype=np.int64)
    for i, units in enumerate(classes):
        of[units] = i
    parent = list(range(len(classes)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for layer in _ragged(facts):
        found: dict[tuple[int, int], int] = {}
        for i in np.unique(of[component[layer.atoms.reshape(-1)]]).tolist():
            if i >= 0:
                key = (int(base[classes[i][0]]), len(classes[i]))
                parent[root(i)] = root(found.setdefault(key, i))
    merged: dict[int, list[NDArray[np.int64]]] = {}
    for i, units in enumerate(classes):
        merged.setdefault(root(i), []).append(units)
    return list(merged.values())


def _assemble(
    graph: Graph,
    facts: Facts,
    component: NDArray[np.int64],
    merged: list[list[NDArray[np.int64]]],
    places: _Places,
) -> Grouping:
    count = int(component.max()) + 1
    group_of = np.full(count, PINNED, dtype=np.int32)
    unit_of = np.zeros(count, dtype=np.int32)
    for g, rows in enumerate(merged):
        units = np.concatenate(rows)
        group_of[units] = g
        unit_of[units] = np.arange(len(units))
    atom_group, atom_unit = group_of[component], unit_of[component]
    tagged = _tagged(facts, atom_group)
    whole, rowed = _rowed(facts, atom_group, len(merged), tagged["heads"])
    mixing = _mixing(facts, atom_group)
    kinds = _kinds(facts, atom_group, whole, tagged, len(merged))
    members = _members(graph, facts, atom_group, atom_unit, places, len(merged))
    names = _names([m[0] for m in members], whole, kinds)
    groups = tuple(
        Group(names[g], kinds[g], sum(map(len, rows)), len(rows), members[g], mixing.get(g, ""))
        for g, rows in enumerate(merged)
    )
    return Grouping(groups, atom_group, atom_unit, rowed)


def _rowed(
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


def _tagged(facts: Facts, group: NDArray[np.int32]) -> dict[str, set[int]]:
    tagged: dict[str, set[int]] = {"heads": set(), "groups": set(), "channels": set()}
    for atoms, kind in facts.tags:
        tagged.setdefault(kind, set()).update(np.unique(group[atoms]).tolist())
    return tagged


def _mixing(facts: Facts, group: NDArray[np.int32]) -> dict[int, str]:
    reasons: dict[int, str] = {}
    for note in facts.mixings:
        for g in np.unique(group[note.atoms]).tolist():
            if g != PINNED:
                reasons.setdefault(g, ("module: " if note.module_only else "") + note.reason)
                if not note.module_only and reasons[g].startswith("module: "):
                    reasons[g] = note.reason
    return reasons


def _kinds(
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


def _members(
    graph: Graph,
    facts: Facts,
    group: NDArray[np.int32],
    unit: NDArray[np.int32],
    places: _Places,
    count: int,
) -> list[tuple[Member, ...]]:
    """The members of each group, in the order of the model's tensors."""
    member_lists: list[list[tuple[tuple[int, int, int], Member]]] = [[] for _ in range(count)]
    groups = group[places.atom]
    live = np.flatnonzero(groups != PINNED)
    order = live[np.argsort(groups[live], kind="stable")]  # places stand by slot and block
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
    """The step of each stretch's indices if its units are consecutive, 0 if it is irregular."""
    lengths = ends - starts
    steps: NDArray[np.int64] = (lengths == 1).astype(np.int64)
    long = np.flatnonzero(lengths > 1)
    if len(long):
        unit_steps, index_steps = np.diff(units), np.diff(indices)
        # the last difference of a stretch belongs to no stretch: it repeats the one before
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
    entries.sort(key=lambda entry: (entry[0], entry[1].runs))
    return tuple(member for _, member in entries)


def _names(firsts: Sequence[Member], whole: frozenset[int], kinds: dict[int, str]) -> list[str]:
    names: list[str] = []
    taken: dict[str, int] = {}
    for g, member in enumerate(firsts):
        name = f"{member.tensor}:{member.dim}" + (f"/{kinds[g]}" if g in whole else "")
        taken[name] = taken.get(name, 0) + 1
        names.append(name if taken[name] == 1 else f"{name}#{taken[name]}")
    return names
