"""The groups, the unit of every atom, and the width of labelled dimensions in terms of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planc.analysis.polynomials import Poly
from planc.ir.groups import Group
from planc.rules.labels import Labelled, Layer
from planc.rules.labels.facts import Atoms

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
