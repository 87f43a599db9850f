"""The units of all groups along the dimensions of parameters, as flat arrays.

:class:`Places` holds the unit of each index of every dimension of a parameter, in the form used by
sums over all groups at once. For a weight ``[4, 3]`` with output units 0 to 3 and input units 4 to
6::

    places   (tensor 0, dim 0): units 0 1 2 3      (tensor 0, dim 1): units 4 5 6
    indices  unit   0 1 2 3 4 5 6                  one entry for each index with a unit
             place  0 0 0 0 1 1 1
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from planc.analysis.grouping import PINNED, Grouping, UnitIndex
from planc.ir.graph import Graph
from planc.rules.labels.facts import Slot

NOWHERE = -1
Units = NDArray[np.int64]
Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Dimension ``dim`` of tensor number ``tensor`` of the graph, with the unit of each index.

    ``units`` has the number of each index's unit over all groups, ``NOWHERE`` for indices never
    removed. With ``blocks`` above 1 each equal range of dimension ``over`` has units of its own:
    ``units`` then holds ``[blocks, indices]``, flattened.
    """

    tensor: int
    dim: int
    units: Units
    over: int = -1
    blocks: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class Overlap:
    """Coordinates of a tensor removed with one unit through several dimensions at once.

    ``units`` has an entry for each index of the dimensions ``dims``, ``NOWHERE`` for none.
    """

    tensor: int
    dims: tuple[int, ...]
    units: Units


@dataclass(frozen=True, slots=True, eq=False)
class Indices:
    """Indices of all places, concatenated: place ``p`` begins at ``starts[p]``.

    The indices at positions ``at`` belong to units: ``unit`` of ``place``.
    """

    starts: Units
    at: Units
    unit: Units
    place: Units

    def of(self, values: NDArray[Number]) -> NDArray[Number]:
        """The values at indices with a unit, out of the values of all indices."""
        return values if len(self.at) == len(values) else values[self.at]


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Pairs of a unit and a dimension of a tensor.

    ``unit`` and the first ``place`` of each pair, its number of indices ``lengths``, and ``pair``,
    the pair of each entry of :class:`Indices`.
    """

    pair: Units
    unit: Units
    place: Units
    lengths: Units


@dataclass(frozen=True, eq=False)
class Places(UnitIndex):
    """Every place of a parameter, in the order of the model's tensors, with the units' numbers.

    ``overlaps`` are the coordinates counted more than once by a sum over the places.
    """

    places: tuple[Place, ...]
    overlaps: tuple[Overlap, ...]

    @cached_property
    def by_tensor(self) -> dict[int, tuple[int, ...]]:
        """The positions in ``places`` by tensor number."""
        found: dict[int, list[int]] = {}
        for position, place in enumerate(self.places):
            found.setdefault(place.tensor, []).append(position)
        return {number: tuple(own) for number, own in found.items()}

    @cached_property
    def indices(self) -> Indices:
        """All indices of all places with a unit."""
        lengths = [len(place.units) for place in self.places]
        units = np.concatenate([np.zeros(0, np.int64), *(place.units for place in self.places)])
        at = np.flatnonzero(units != NOWHERE)
        owner = np.repeat(np.arange(len(lengths)), lengths)[at]
        starts = np.cumsum([0, *lengths], dtype=np.int64)
        return Indices(starts, at, units[at], owner)

    @cached_property
    def pairs(self) -> Pairs:
        """The pairs of units and dimensions, ordered by unit, then by tensor."""
        every = self.indices
        numbers: dict[tuple[int, int], int] = {}
        members = [numbers.setdefault((p.tensor, p.dim), len(numbers)) for p in self.places]
        keys = every.unit * len(numbers) + np.array(members, dtype=np.int64)[every.place]
        _, first, pair, lengths = np.unique(
            keys, return_index=True, return_inverse=True, return_counts=True
        )
        return Pairs(pair.reshape(-1), every.unit[first], every.place[first], lengths)


def places(graph: Graph, slots: Sequence[Slot], grouping: Grouping) -> Places:
    """Find the places of all parameters."""
    index = grouping.index
    found: list[Place] = []
    for slot in slots:
        if graph.tensors[slot.tensor].kind != "parameter":
            continue
        own = slice(slot.first, slot.first + slot.count)
        group = grouping.group[own]
        if (group == PINNED).all():
            continue
        units = np.where(group == PINNED, NOWHERE, index.of_atom[own])
        if slot.rows is not None:
            units = np.where(slot.rows == 0, NOWHERE, units[np.maximum(slot.rows, 1) - 1])
            for place in found:  # indices shared by row families count once
                if (place.tensor, place.dim, place.blocks) == (slot.tensor, slot.dim, 1):
                    units = np.where(units == place.units, NOWHERE, units)
        found.append(Place(slot.tensor, slot.dim, units, slot.over, slot.blocks))
    found.sort(key=lambda place: (place.tensor, place.dim))
    return Places(index.offsets, index.of_atom, tuple(found), tuple(_overlaps(found)))


def _overlaps(found: list[Place]) -> list[Overlap]:
    """Places of one tensor with common units in several dimensions."""
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
