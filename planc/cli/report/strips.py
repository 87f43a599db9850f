"""Pictures of a group's removed and kept units for the report, as SVG paths.

A strip has one column per unit, or per bin of units where they do not fit; each column is filled
from the bottom by the share of removed units. A ragged group has one strip per row, or one for all
rows where they do not fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planc.ir.groups import Group

COLUMNS = 256
ROWS = 16
_STEPS = 8  # heights of a column

Shares = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Strip:
    """A drawing of ``columns`` by :attr:`height` steps, with one path for each kind of unit."""

    columns: int
    rows: int
    paths: tuple[tuple[str, str], ...]  # class of units, SVG path data

    @property
    def height(self) -> int:
        """The height of the drawing, in steps."""
        return self.rows * (_STEPS + 1) - 1


def strip(group: Group, sets: Sequence[tuple[str, Sequence[int]]]) -> Strip:
    """Draw disjoint named sets of units of ``group`` on top of one another."""
    rows, cells = (group.rows, group.cells) if group.rows <= ROWS else (1, group.size)
    columns = min(cells, COLUMNS)
    below = np.zeros((rows, columns), dtype=np.int64)
    paths = []
    for name, units in sets:
        chosen = np.zeros(group.size, dtype=bool)
        chosen[list(units)] = True
        if rows != group.rows:  # one strip for all rows: the cells of each, bin by bin
            chosen = chosen.reshape(group.rows, group.cells).T.reshape(-1)
        shares = _binned(chosen.reshape(rows, cells), columns)
        steps = np.minimum(np.ceil(shares * _STEPS).astype(np.int64), _STEPS - below)
        paths.append((name, _path(below, steps)))
        below = below + steps
    return Strip(columns, rows, tuple(paths))


def _binned(chosen: NDArray[np.bool_], columns: int) -> Shares:
    """Share of ``chosen`` in each bin of columns, row by row."""
    edges = np.linspace(0, chosen.shape[1], columns + 1).round().astype(np.int64)
    counts = np.diff(np.pad(chosen.cumsum(axis=1), ((0, 0), (1, 0)))[:, edges], axis=1)
    shares: Shares = counts / np.diff(edges)
    return shares


def _path(below: NDArray[np.int64], steps: NDArray[np.int64]) -> str:
    """Path data of the columns; equal neighbours are joined into rectangles."""
    parts = []
    for row in range(len(steps)):
        bottom = (row + 1) * (_STEPS + 1) - 1
        columns = np.stack([below[row], steps[row]])
        starts = np.flatnonzero((np.diff(columns, axis=1, prepend=-1) != 0).any(axis=0))
        for start, stop in zip(starts, [*starts[1:], steps.shape[1]], strict=True):
            if height := int(steps[row, start]):
                at = bottom - int(below[row, start])
                parts.append(f"M{start} {at}h{stop - start}v-{height}h-{stop - start}z")
    return "".join(parts)
