"""Axes: dimensions with the same unit at each index, solved by the values of their tensors.

An axis is solved where all other dimensions of one of its tensors are known: the kept slices are
those that the pruned slices align with, in order. Solved axes open the tensors that they are part
of, from the inputs on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planc.analysis import Analysis
from planc.compile.alignment import Costs, Numbers, Slices, aligned, confidence, distances
from planc.compile.places import Places
from planc.errors import PolicyError

Place = tuple[str, int]
"""A tensor and a dimension."""


@dataclass(frozen=True, eq=False)
class _Axis:
    """Dimensions with the same unit at each index, and their size in the pruned model."""

    line: Numbers
    places: tuple[Place, ...]
    size: int


class Axes:
    """The units found so far: ``gone``, of those ``known``, and the confidence of each group."""

    def __init__(
        self,
        analysis: Analysis,
        before: Mapping[str, NDArray[Any]],
        after: Mapping[str, NDArray[Any]],
    ) -> None:
        self.places = Places(analysis)
        self._confidence: dict[int, float] = {}
        self._before, self._after = before, after
        self._analysis, self._count = analysis, analysis.grouping.index.count
        self.gone = np.zeros(self._count + 1, dtype=bool)
        self._known = np.zeros(self._count + 1, dtype=bool)
        self._known[-1] = True
        self._lines = self._all_lines()
        self._check_sizes()
        self._axes = self._all_axes()

    def _all_lines(self) -> dict[Place, list[Numbers]]:
        """The units along each dimension, in each of its ranges."""
        found = {}
        for name in self._before:
            for dim in range(self._before[name].ndim):
                overs = self.places.ranges(name, dim) or (None,)
                found[name, dim] = [self.places.line(name, dim, over) for over in overs]
        return found

    def _check_sizes(self) -> None:
        pins = {(pin.tensor, pin.dim): pin.reason for pin in self._analysis.pins}
        for name, before in self._before.items():
            after = self._after[name]
            if before.ndim != after.ndim:
                raise PolicyError(f"{name}: of shape {before.shape}, in pruned {after.shape}")
            for dim, (size, left) in enumerate(zip(before.shape, after.shape, strict=True)):
                lines = self._lines.get((name, dim), [])
                fixed = all((line == self._count).all() for line in lines)
                if not 0 < left <= size or (fixed and left != size):
                    why = f": {pins[name, dim]}" if (name, dim) in pins else ""
                    raise PolicyError(
                        f"{name}:{dim} has {size} indices, in pruned {left}; no plan does this{why}"
                    )

    def _all_axes(self) -> list[_Axis]:
        alike: dict[bytes, list[Place]] = {}
        for place, lines in self._lines.items():
            if len(lines) == 1 and (lines[0] < self._count).any():
                alike.setdefault(lines[0].tobytes(), []).append(place)
        found = []
        for places in alike.values():
            sizes = {self._after[name].shape[dim]: f"{name}:{dim}" for name, dim in places}
            if len(sizes) > 1:
                said = ", ".join(f"{place} has {size}" for size, place in sizes.items())
                raise PolicyError(f"dimensions of pruned that shrink together differ: {said}")
            found.append(_Axis(self._lines[places[0]][0], tuple(places), next(iter(sizes))))
        return found

    def solve(self) -> None:
        """Find all units, then once more with the values of all tensors, for the confidence."""
        waiting = list(self._axes)
        solved = []
        while waiting:
            axis = min(waiting, key=self._rank)
            waiting.remove(axis)
            if not self._known[axis.line].all():
                self._settle(axis)
                solved.append(axis)
        for axis in solved:
            if axis.size < len(axis.line):
                self._settle(axis)

    def sure(self) -> list[float]:
        """The confidence of each group; that of whole heads is the least of their cells."""
        found = [self._confidence.get(g, 1.0) for g in range(len(self._analysis.groups))]
        for g, inside in self.places.cells.items():
            found[g] = min((found[other] for other in inside), default=found[g])
        return found

    def _rank(self, axis: _Axis) -> tuple[bool, bool, float]:
        """The order of axes: those with tensors of several dimensions, then few indices a unit."""
        ready = self._ready(axis)
        matrices = any(self._before[name].ndim > 1 for name, _ in ready)
        whole = axis.size == len(axis.line) or bool(self._known[axis.line].all())
        per_unit = len(axis.line) / len(np.unique(axis.line))
        return not (ready or whole), not (matrices or whole), per_unit

    def _ready(self, axis: _Axis) -> list[Place]:
        """The dimensions of an axis whose tensors are known along all others."""
        return [
            (name, dim)
            for name, dim in axis.places
            if all(
                self._known[line].all()
                for other in range(self._before[name].ndim)
                if other != dim
                for line in self._lines[name, other]
            )
        ]

    def _settle(self, axis: _Axis) -> None:
        """Find the units of one axis."""
        line, count = axis.line, self._count
        costs = None
        if axis.size < len(line):
            slices = [pair for place in self._ready(axis) if (pair := self._slices(*place))]
            costs = distances(slices)
            if costs is None:
                groups = self._analysis.groups
                some = groups[self.places.groups(line)[0]]
                raise PolicyError(f"group {some}: no tensor tells its units apart")
            kept = aligned(costs, line == count)
        else:
            kept = np.arange(len(line))
        stays = np.zeros(len(line), dtype=bool)
        stays[kept] = True
        total = np.bincount(line, minlength=count + 1)
        left = np.bincount(line[stays], minlength=count + 1)
        own = (total > 0) & (np.arange(count + 1) < count)
        self.gone[own] = left[own] * 2 <= total[own]
        self._known |= own
        if costs is not None:
            self._judge(axis, costs, kept, stays)

    def _judge(self, axis: _Axis, costs: Costs, kept: Numbers, stays: NDArray[np.bool_]) -> None:
        offsets = self._analysis.grouping.index.offsets
        for g in self.places.groups(axis.line):
            inside = (axis.line >= offsets[g]) & (axis.line < offsets[g + 1])
            rows = inside[kept]
            others = np.flatnonzero(inside & ~stays)
            self._confidence[g] = confidence(costs[rows], kept[rows], others)

    def _slices(self, name: str, dim: int) -> tuple[Slices, Slices] | None:
        """The slices of a tensor along a dimension, pruned and original, both cut along the others.

        None if they are of other sizes.
        """
        before, after = self._before[name], self._after[name]
        for other in range(self._before[name].ndim):
            if other != dim:
                taken = self._taken(before, name, other, dim)
                if taken is None:
                    return None
                before = taken
        if (
            before.shape[:dim] + before.shape[dim + 1 :]
            != after.shape[:dim] + after.shape[dim + 1 :]
        ):
            return None
        return (
            np.moveaxis(after, dim, 0).reshape(after.shape[dim], -1),
            np.moveaxis(before, dim, 0).reshape(before.shape[dim], -1),
        )

    def _taken(self, values: NDArray[Any], name: str, dim: int, along: int) -> NDArray[Any] | None:
        """The values at the kept indices of a dimension, in each range of ``along`` its own."""
        kept = [np.flatnonzero(~self.gone[line]) for line in self._lines[name, dim]]
        if len(kept) == 1:
            return np.take(values, kept[0], axis=dim)
        overs = self.places.ranges(name, dim)
        if any(over.dim != along for over in overs) or len({len(own) for own in kept}) > 1:
            return None
        parts = [
            np.take(np.take(values, range(over.start, over.stop), axis=along), own, axis=dim)
            for over, own in zip(overs, kept, strict=True)
        ]
        return np.concatenate(parts, axis=along)
