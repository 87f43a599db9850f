"""Columns: prunable dimensions, described by the units of their coordinates.

:class:`Columns` counts the coordinates lost by all dimensions in one pass, for a set of removed
units; :class:`Shapes` gives the shapes of all values.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from planc.analysis.grouping import UnitIndex, UnitMask
from planc.rules.labels import Labelled

Line = NDArray[np.int64]
"""The number of one unit for each coordinate, or that of no unit."""


class Columns:
    """Distinct columns of one or several lines; a coordinate is removed with any unit in its lines.

    Units are numbered from 0; ``nobody``, one past the last, stands for no unit. ``numbers`` has
    the number of each given column among the distinct ones.
    """

    def __init__(self, nobody: int, columns: Sequence[Sequence[Line]]) -> None:
        lines: list[NDArray[np.int64]] = []
        known: dict[bytes, int] = {}
        self.numbers: list[int] = []
        for column in columns:
            packed = _packed(column, nobody)
            number = known.setdefault(bytes([len(packed)]) + packed.tobytes(), len(lines))
            if number == len(lines):
                lines.append(packed)
            self.numbers.append(number)
        # all columns concatenated, with a last entry for nobody, so none is empty
        starts = np.cumsum([0, *(packed.shape[1] + 1 for packed in lines)], dtype=np.int64)
        depth = max((len(packed) for packed in lines), default=1)
        self._joint = np.full((depth, int(starts[-1])), nobody, dtype=np.int64)
        for start, packed in zip(starts.tolist(), lines, strict=False):
            self._joint[: len(packed), start : start + packed.shape[1]] = packed
        self._starts = starts[:-1]

    def lost(self, gone: UnitMask) -> NDArray[np.int64]:
        """The number of coordinates lost by each distinct column with the removed units."""
        if not len(self._starts):
            return np.zeros(0, dtype=np.int64)
        vanish = gone[self._joint].any(axis=0)
        counts: NDArray[np.int64] = np.add.reduceat(vanish, self._starts, dtype=np.int64)
        return counts


class Shapes:
    """The shapes of labelled values as functions of the removed units.

    ``prunable`` has the dimensions of values with labels, as (value, dimension).
    """

    def __init__(self, labels: Sequence[Labelled], index: UnitIndex) -> None:
        self._whole = [labelled.shape for labelled in labels]
        self.prunable = [
            (value, dim)
            for value, labelled in enumerate(labels)
            for dim in sorted({layer.target for layer in labelled.layers})
        ]
        columns = (
            tuple(index.of_atom[layer.along()] for layer in labels[value].targeting(dim))
            for value, dim in self.prunable
        )
        self._columns = Columns(index.count, list(columns))

    def after(self, gone: UnitMask) -> list[tuple[int, ...]]:
        """The predicted shape of every value without the units ``gone``."""
        lost = self._columns.lost(gone).tolist()
        shapes = list(map(list, self._whole))
        for (value, dim), number in zip(self.prunable, self._columns.numbers, strict=True):
            shapes[value][dim] -= lost[number]
        return list(map(tuple, shapes))


def _packed(column: Sequence[Line], nobody: int) -> NDArray[np.int64]:
    """One array of all lines, independent of their order."""
    if len(column) == 1:
        return column[0][None]
    stacked: NDArray[np.int64] = np.sort(np.stack(column), axis=0)
    return stacked[np.concatenate(([True], (stacked[1:] != nobody).any(axis=1)))]
