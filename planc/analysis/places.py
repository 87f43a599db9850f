"""Where the units of all groups stand in the parameters, as flat arrays.

In: the labels' slots and the groups. Out: :class:`Places`: for every dimension of a parameter the
unit of each of its indices, in the form that sums over all groups at once want.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from planc.analysis.grouping import PINNED, Grouping
from planc.ir.graph import Graph
from planc.ir.groups import Group
from planc.rules.labels.facts import Slot

NOWHERE = -1
Units = NDArray[np.int64]
Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Dimension ``dim`` of tensor number ``tensor`` of the graph, whose indices belong to units.

    ``units`` has the flat number of each index's unit, ``NOWHERE`` for those that stay. With
    ``blocks`` above 1 each equal range of dimension ``over`` has units of its own: ``units`` then
    holds ``[blocks, indices]``, flattened.
    """

    tensor: int
    dim: int
    units: Units
    over: int = -1
    blocks: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class Overlap:
    """Coordinates of a tensor that leave with one unit through all of ``dims``: ``units`` has an
    entry for each index of these dimensions, ``NOWHERE`` where there is none.
    """

    tensor: int
    dims: tuple[int, ...]
    units: Units


@dataclass(frozen=True, slots=True, eq=False)
class Indices:
    """Indices of all places, one after the other: place ``p`` begins at ``starts[p]``. Those at
    the positions ``at`` belong to units: ``unit`` of ``place``.
    """

    starts: Units
    at: Units
    unit: Units
    place: Units

    def of(self, values: NDArray[Number]) -> NDArray[Number]:
        """Those of the values of all indices whose index belongs to a unit."""
        return values if len(self.at) == len(values) else values[self.at]


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """A unit in a dimension of a tensor: ``unit``, the first ``place`` there, and the number of
    indices, ``lengths``; ``pair`` is the pair of each entry of :class:`Indices`.
    """

    pair: Units
    unit: Units
    place: Units
    lengths: Units


@dataclass(frozen=True, eq=False)
class Places:
    """Every place of a parameter, in the order of the model's tensors.

    Units are numbered through: unit ``u`` of group ``g`` is ``offsets[g] + u``. ``overlaps`` are
    what a sum over the places counts more than once.
    """

    places: tuple[Place, ...]
    overlaps: tuple[Overlap, ...]
    offsets: Units

    @property
    def count(self) -> int:
        """How many units all groups have."""
        return int(self.offsets[-1])

    @cached_property
    def by_tensor(self) -> dict[int, tuple[int, ...]]:
        """The positions in ``places`` of each tensor's."""
        found: dict[int, list[int]] = {}
        for position, place in enumerate(self.places):
            found.setdefault(place.tensor, []).append(position)
        return {number: tuple(own) for number, own in found.items()}

    @cached_property
    def indices(self) -> Indices:
        """All indices of all places that have a unit."""
        lengths = [len(place.units) for place in self.places]
        units = np.concatenate([np.zeros(0, np.int64), *(place.units for place in self.places)])
        at = np.flatnonzero(units != NOWHERE)
        owner = np.repeat(np.arange(len(lengths)), lengths)[at]
        starts = np.cumsum([0, *lengths], dtype=np.int64)
        return Indices(starts, at, units[at], owner)

    @cached_property
    def pairs(self) -> Pairs:
        """What each unit has in each dimension, in the order of units, then of tensors."""
        every = self.indices
        numbers: dict[tuple[int, int], int] = {}
        members = [numbers.setdefault((p.tensor, p.dim), len(numbers)) for p in self.places]
        keys = every.unit * len(numbers) + np.array(members, dtype=np.int64)[every.place]
        _, first, pair, lengths = np.unique(
            keys, return_index=True, return_inverse=True, return_counts=True
        )
        return Pairs(pair.reshape(-1), every.unit[first], every.place[first], lengths)

    def split(self, values: NDArray[Number]) -> tuple[NDArray[Number], ...]:
        """One array for each group out of one for all units."""
        pairs = zip(self.offsets[:-1].tolist(), self.offsets[1:].tolist(), strict=True)
        return tuple(values[start:stop] for start, stop in pairs)


def places(graph: Graph, slots: Sequence[Slot], grouping: Grouping) -> Places:
    """Finds the places of all parameters."""
    offsets = offsets_of(grouping.groups)
    found: list[Place] = []
    for slot in slots:
        if graph.tensors[slot.tensor].kind != "parameter":
            continue
        own = slice(slot.first, slot.first + slot.count)
        group = grouping.group[own]
        if (group == PINNED).all():
            continue
        units = np.where(group == PINNED, NOWHERE, offsets[group] + grouping.unit[own])
        if slot.rows is not None:
            units = np.where(slot.rows == 0, NOWHERE, units[np.maximum(slot.rows, 1) - 1])
            for place in found:  # row families may share indices, each of which counts once
                if (place.tensor, place.dim, place.blocks) == (slot.tensor, slot.dim, 1):
                    units = np.where(units == place.units, NOWHERE, units)
        found.append(Place(slot.tensor, slot.dim, units, slot.over, slot.blocks))
    found.sort(key=lambda place: (place.tensor, place.dim))
    return Places(tuple(found), tuple(_overlaps(found)), offsets)


def offsets_of(groups: Sequence[Group]) -> Units:
    """Where the units of each group begin when all are numbered through; last their number."""
    return np.cumsum([0, *(group.size for group in groups)], dtype=np.int64)


def _overlaps(found: list[Place]) -> list[Overlap]:
    """Places of one tensor that share units in several dimensions."""
    by_tensor: dict[int, list[Place]] = {}
    for place in found:
        if place.blocks == 1:
            by_tensor.setdefault(place.tensor, []).append(place)
    overlaps = []
    for number, own in by_tensor.items():
        for count in range(2, len(own) + 1):
            for several in combinations(own, count):
                dims = tuple(place.dim for place in several)
                if len(set(dims)) == count and _share(several):
                    overlaps.append(Overlap(number, dims, _same(several)))
    return overlaps


def _share(several: Sequence[Place]) -> bool:
    first, *others = several
    shared = np.unique(first.units)
    for other in others:
        shared = np.intersect1d(shared, other.units)
    return bool((shared != NOWHERE).any())


def _same(several: Sequence[Place]) -> Units:
    first, *others = np.ix_(*(place.units for place in several))
    units = np.broadcast_to(first, np.broadcast_shapes(first.shape, *(o.shape for o in others)))
    for other in others:
        units = np.where(units == other, units, NOWHERE)
    return units
