"""Units at the indices of dimensions, for plans read off tensors or lists of indices.

Units have numbers over all groups (:class:`planc.analysis.grouping.UnitIndex`). Of a head with
prunable cells, an index stands for a cell; :func:`settled` turns the cells of whole heads back
into heads. Heads that share their cells are found by their indices (:meth:`Places.heads`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from planc.analysis import Analysis
from planc.analysis.grouping import UnitMask
from planc.ir.groups import Group, Member, Over

Numbers = NDArray[np.int64]
Gone = NDArray[np.bool_]
"""Mask over the numbers of all units, with a last entry, False, for indices of no unit."""


@dataclass(frozen=True, eq=False)
class Places:
    """The units of a model by the indices of its tensors."""

    analysis: Analysis

    def line(self, tensor: str, dim: int, over: Over | None = None) -> Numbers:
        """The unit at each index of a dimension, in one range of another dimension with ``over``.

        Indices of no unit have the number ``analysis.grouping.index.count``.
        """
        index = self.analysis.grouping.index
        size = self.analysis.graph.tensor(tensor).shape[dim]
        line = np.full(size, index.count, dtype=np.int64)
        for g, member in self._of(tensor, dim):
            if member.over == over:
                units, positions = member.expand()
                line[positions] = index.offsets[g] + units
        return line

    def ranges(self, tensor: str, dim: int) -> list[Over]:
        """The ranges of another dimension in which a dimension has units of their own, in order."""
        found = {member.over for _, member in self._of(tensor, dim) if member.over is not None}
        return sorted(found)

    def groups(self, numbers: Numbers) -> list[int]:
        """The groups of units."""
        index = self.analysis.grouping.index
        inside = numbers[numbers < index.count]
        owners = np.searchsorted(index.offsets, inside, side="right") - 1
        found: list[int] = np.unique(owners).tolist()
        return found

    @cached_property
    def cells(self) -> dict[int, dict[int, Numbers]]:
        """For each group of whole heads, the groups of cells inside, and the head of each cell."""
        groups = self.analysis.groups
        found: dict[int, dict[int, Numbers]] = {}
        for g in sorted(self.analysis.grouping.rowed):
            heads = {o: _heads(groups[g], other) for o, other in enumerate(groups) if o != g}
            found[g] = {o: own for o, own in heads.items() if (own >= 0).all()}
        return found

    def heads(self, tensor: str, dim: int) -> list[Numbers]:
        """The head at each index of a dimension, for each group of heads that share their cells
        here: rotated queries and keys, or the queries of one key. Larger heads come first.
        """
        cells = {g for g, _ in self._of(tensor, dim)} - self.analysis.grouping.rowed
        found = []
        for g in sorted(self.cells, key=lambda g: self.analysis.groups[g].size):
            members = [own for outer, own in self._of(tensor, dim) if outer == g]
            if members and not cells <= self.cells[g].keys():
                line = np.full_like(self.line(tensor, dim), self.analysis.grouping.index.count)
                for member in members:
                    units, positions = member.expand()
                    line[positions] = self.analysis.grouping.index.offsets[g] + units
                found.append(line)
        return found

    @cached_property
    def _members(self) -> dict[tuple[str, int], list[tuple[int, Member]]]:
        found: dict[tuple[str, int], list[tuple[int, Member]]] = {}
        rowed = self.analysis.grouping.rowed
        for g in sorted(range(len(self.analysis.groups)), key=lambda g: g not in rowed):
            for member in self.analysis.groups[g].members:
                found.setdefault((member.tensor, member.dim), []).append((g, member))
        return found

    def _of(self, tensor: str, dim: int) -> list[tuple[int, Member]]:
        return self._members.get((tensor, dim), [])


def settled(places: Places, gone: Gone) -> UnitMask:
    """The same removals with whole heads as units of their own group.

    Inside a removed head, as many cells count as removed as in the other heads.
    """
    index = places.analysis.grouping.index
    result = gone.copy()
    for g, inside in places.cells.items():
        heads = np.arange(places.analysis.groups[g].size)
        own = {other: index.offsets[other] + np.arange(len(of)) for other, of in inside.items()}
        stays = {h for o, of in inside.items() for h in of[~gone[own[o]]].tolist()}
        whole = ~np.isin(heads, list(stays))
        if not inside or not whole.any() or whole.all():
            continue
        result[index.offsets[g] + heads[whole]] = True
        for other, of in inside.items():
            lost = int(gone[own[other][of == heads[~whole][0]]].sum())
            for head in heads[whole]:
                result[own[other][of == head]] = False
                result[own[other][of == head][:lost]] = True
    return UnitMask(result)


def _heads(outer: Group, inner: Group) -> Numbers:
    """The unit of ``outer`` around each unit of ``inner``, -1 for none and for several."""
    around = {(m.tensor, m.dim, m.over): dict[int, int]() for m in outer.members}
    for member in outer.members:
        heads, at = (own.tolist() for own in member.expand())
        around[member.tensor, member.dim, member.over].update(zip(at, heads, strict=True))
    lowest, highest = np.full(inner.size, outer.size), np.full(inner.size, -1)
    for member in inner.members:
        known = around.get((member.tensor, member.dim, member.over))
        if known is not None:
            cells, positions = member.expand()
            own = np.array([known.get(at, -1) for at in positions.tolist()], dtype=np.int64)
            np.minimum.at(lowest, cells, own)
            np.maximum.at(highest, cells, own)
    return np.where(lowest == highest, highest, -1)
