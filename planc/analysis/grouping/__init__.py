"""Groups from ties: connected atoms form a unit, units with equal occurrences form a group.

The facts of the last walk become a :class:`Grouping`: the groups, the unit of every atom, and the
width of any labelled dimension as a polynomial in the groups' kept units.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from planc.analysis.grouping.classes import Occurrences, components, unit_classes
from planc.analysis.grouping.grouped import PINNED, Grouping, UnitIndex, UnitMask
from planc.analysis.grouping.kinds import kinds, mixing, names, rowed, scaled_rows, tagged
from planc.analysis.grouping.members import members
from planc.analysis.grouping.unread import pin_unread
from planc.analysis.walk import Walked
from planc.ir.graph import Graph
from planc.ir.groups import Group
from planc.rules.labels import Layer
from planc.rules.labels.facts import NEVER, Atoms, Facts, Note

__all__ = ["PINNED", "Grouping", "UnitIndex", "UnitMask", "components", "group_units"]


def group_units(graph: Graph, walked: Walked) -> Grouping:
    """Find the groups of a graph.

    Pins are added to the facts of the walk: first those of unread parts, then those of groups with
    no consistent removal, until every group has one.
    """
    pin_unread(graph, walked)
    return _grouped(graph, walked)


def _grouped(graph: Graph, walked: Walked) -> Grouping:
    facts = walked.facts
    component = components(facts)
    places = Occurrences(facts)
    merged = unit_classes(facts, component, places)
    grouping = _assemble(graph, facts, component, merged, places)
    reason, groups = "an index stands for two of its units at once", _crossing(facts, grouping)
    if not groups:
        reason = "its units do not all hold the same of what is inside"
        groups = _uneven(graph, walked, grouping)
    if not groups:
        return grouping
    facts.pins.append(Note(np.flatnonzero(np.isin(grouping.group, list(groups))), reason, -1))
    return _grouped(graph, walked)


def _crossing(facts: Facts, grouping: Grouping) -> frozenset[int]:
    """Groups with two units at one index of a tensor, as in the product of a value with itself."""
    found: set[int] = set()
    levels: dict[tuple[int, int], list[Atoms]] = {}
    for slot in facts.slots:
        atoms = np.arange(slot.first, slot.first + slot.count).reshape(slot.blocks, -1)
        if slot.rows is not None:
            atoms = np.where(slot.rows > 0, slot.first + slot.rows - 1, NEVER)[None]
        for other in levels.setdefault((slot.tensor, slot.dim), []):
            one, two = np.broadcast_arrays(atoms, other)
            groups = grouping.group[one]
            same = (groups == grouping.group[two]) & (groups != PINNED)
            crossing = same & (grouping.unit[one] != grouping.unit[two])
            found.update(groups[crossing].tolist())
        levels[slot.tensor, slot.dim].append(atoms)
    return frozenset(found)


def _uneven(graph: Graph, walked: Walked, grouping: Grouping) -> frozenset[int]:
    """Groups of rows whose width would depend on the choice of the removed row."""
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


def _assemble(
    graph: Graph,
    facts: Facts,
    component: NDArray[np.int64],
    merged: list[list[NDArray[np.int64]]],
    places: Occurrences,
) -> Grouping:
    count = int(component.max()) + 1
    group_of = np.full(count, PINNED, dtype=np.int32)
    unit_of = np.zeros(count, dtype=np.int32)
    for g, rows in enumerate(merged):
        units = np.concatenate(rows)
        group_of[units] = g
        unit_of[units] = np.arange(len(units))
    atom_group, atom_unit = group_of[component], unit_of[component]
    tags = tagged(facts, atom_group)
    tags["heads"] |= scaled_rows(graph, facts, atom_group)
    whole, with_cells = rowed(facts, atom_group, len(merged), tags["heads"])
    reasons = mixing(facts, atom_group, module_only=False)
    of_kind = kinds(facts, atom_group, whole, tags, len(merged))
    found = members(graph, facts, atom_group, atom_unit, places, len(merged))
    called = names([m[0] for m in found], whole, of_kind)
    groups = tuple(
        Group(called[g], of_kind[g], sum(map(len, rows)), len(rows), found[g], reasons.get(g, ""))
        for g, rows in enumerate(merged)
    )
    of_module = mixing(facts, atom_group, module_only=True)
    return Grouping(groups, atom_group, atom_unit, with_cells, of_module)
