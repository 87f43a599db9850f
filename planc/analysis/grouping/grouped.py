"""The result of grouping: groups, the unit of every atom, and the width of labelled dimensions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NewType, TypeVar

import numpy as np
from numpy.typing import NDArray

from planc.analysis.polynomials import Poly
from planc.ir.groups import Group, apart
from planc.rules.labels import Labelled, Layer
from planc.rules.labels.facts import Atoms

PINNED = -1
Number = TypeVar("Number", bound=np.generic)
UnitMask = NewType("UnitMask", np.ndarray[Any, np.dtype[np.bool_]])
"""Mask over all units, with a last entry, False, for atoms of no unit."""


@dataclass(frozen=True, eq=False)
class UnitIndex:
    """Numbers of the units of all groups: unit ``u`` of group ``g`` has ``offsets[g] + u``.

    ``of_atom`` holds the number of each atom's unit; atoms never removed have ``count``.
    """

    offsets: NDArray[np.int64]
    of_atom: NDArray[np.int64]

    @property
    def count(self) -> int:
        """The number of units of all groups."""
        return int(self.offsets[-1])

    def mask(self, removed: Iterable[Sequence[int]]) -> UnitMask:
        """Mask over all units, True for the units ``removed[g]`` of each group ``g``."""
        mask = np.zeros(self.count + 1, dtype=bool)
        for start, units in zip(self.offsets.tolist(), removed, strict=False):
            mask[start + np.asarray(units, dtype=np.int64)] = True
        return UnitMask(mask)

    def split(self, values: NDArray[Number]) -> tuple[NDArray[Number], ...]:
        """One array per group, out of one array for all units."""
        return tuple(values[i:j] for i, j in pairwise(self.offsets.tolist()))

    def removed(self, mask: UnitMask) -> tuple[tuple[int, ...], ...]:
        """The units of each group with a True entry in ``mask``, in order."""
        return tuple(tuple(np.flatnonzero(own).tolist()) for own in self.split(mask))


@dataclass(frozen=True, eq=False)
class Grouping:
    """Groups, and the position of every atom in them.

    ``group`` and ``unit`` hold the group of each atom (PINNED if the atom is never removed) and its
    unit number within the group. ``rowed`` are the groups of whole rows with prunable cells inside.
    ``module_mixing`` holds the reasons for mixing valid for the target "module" only, by group;
    those valid for all targets are in the groups.
    """

    groups: tuple[Group, ...]
    group: NDArray[np.int32]
    unit: NDArray[np.int32]
    rowed: frozenset[int]
    module_mixing: Mapping[int, str]

    @cached_property
    def index(self) -> UnitIndex:
        """Numbers of all units, counted over the groups."""
        offsets = np.cumsum([0, *(group.size for group in self.groups)], dtype=np.int64)
        numbers = offsets[np.maximum(self.group, 0)] + self.unit
        return UnitIndex(offsets, np.where(self.group == PINNED, offsets[-1], numbers))

    def mixing(self, g: int, target: str) -> tuple[str, ...]:
        """The reasons why removing units of group ``g`` differs from zeroing them."""
        of_module = self.module_mixing.get(g, "") if target == "module" else ""
        return (*apart(self.groups[g].mixing), *apart(of_module))

    def width(self, x: Labelled, dim: int) -> Poly:
        """The width of a dimension after pruning, in units kept per row of each group.

        Raises:
            ArithmeticError: the width is no polynomial, because units of a group have unequal
                widths or occur in part only.
        """
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
        """The width of indices of one group; finer columns give the width inside each unit."""
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
        if len(rest) == 1:  # equal groups make equal widths
            inside = np.sort(self.group[rest[0][lines]], axis=1)
            lines = lines[:1] if (inside == inside[0]).all() else lines
        inner = {self._width(rest, line) for line in lines}
        if len(inner) > 1:
            raise ArithmeticError(f"units of {self.groups[g].name} are not equally wide")
        return Poly.variable(g) * inner.pop()
