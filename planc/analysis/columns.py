"""Columns: the dimensions that can shrink, told by the units that their coordinates leave with.

In: for each coordinate of a dimension the numbers of the units that take it along. Out:
:class:`Columns`, which counts what all dimensions lose when some units go, in one pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Line = NDArray[np.int64]
"""The number of one unit for each coordinate, or that of no unit."""


@dataclass(frozen=True, eq=False)
class Columns:
    """Distinct columns, of which each is one or several lines; a coordinate goes with any of the
    units in its lines. Units are numbered from 0; ``nobody`` is one past the last.
    """

    nobody: int
    lines: tuple[NDArray[np.int64], ...] = ()
    numbers: Mapping[bytes, int] = field(default_factory=dict)

    def joined(self, columns: Sequence[Sequence[Line]]) -> tuple[Columns, list[int]]:
        """These columns with others, and the number of each of those."""
        lines, numbers, found = list(self.lines), dict(self.numbers), []
        for column in columns:
            packed = self._packed(column)
            number = numbers.setdefault(bytes([len(packed)]) + packed.tobytes(), len(lines))
            if number == len(lines):
                lines.append(packed)
            found.append(number)
        return Columns(self.nobody, tuple(lines), numbers), found

    def _packed(self, column: Sequence[Line]) -> NDArray[np.int64]:
        """One array of all lines, the same for every order of them."""
        if len(column) == 1:
            return column[0][None]
        stacked: NDArray[np.int64] = np.sort(np.stack(column), axis=0)
        return stacked[np.concatenate(([True], (stacked[1:] != self.nobody).any(axis=1)))]

    @cached_property
    def _joint(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """All columns one after the other, with as many lines as the deepest, and their starts.
        Each ends with nobody, so that none is empty.
        """
        starts = np.cumsum([0, *(packed.shape[1] + 1 for packed in self.lines)], dtype=np.int64)
        depth = max((len(packed) for packed in self.lines), default=1)
        joint = np.full((depth, int(starts[-1])), self.nobody, dtype=np.int64)
        for start, packed in zip(starts.tolist(), self.lines, strict=False):
            joint[: len(packed), start : start + packed.shape[1]] = packed
        return joint, starts[:-1]

    def lost(self, gone: NDArray[np.bool_]) -> NDArray[np.int64]:
        """How many coordinates each column loses with the units that are ``gone``: an entry for
        each unit, and a false one for nobody.
        """
        joint, starts = self._joint
        if not len(starts):
            return np.zeros(0, dtype=np.int64)
        vanish = gone[joint].any(axis=0) if len(joint) > 1 else gone[joint[0]]
        counts: NDArray[np.int64] = np.add.reduceat(vanish, starts, dtype=np.int64)
        return counts
