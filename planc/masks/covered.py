"""Units covered by masks: in each tensor, the units with all elements masked or zero."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from planc.analysis import Analysis
from planc.analysis.grouping import PINNED
from planc.errors import PolicyError
from planc.masks.elements import zeros as elements_of_zero
from planc.plan.masks import Elements, MaskPlan
from planc.rules.labels.facts import Slot

Flags = NDArray[np.bool_]


class Zeros:
    """The zero elements of a tensor: masked, zero by value, or assumed zero by the caller."""

    def __init__(
        self, masks: MaskPlan, values: Mapping[str, torch.Tensor], assumed: set[str]
    ) -> None:
        self.masks, self.values, self.assumed = masks, values, assumed

    def __call__(self, name: str) -> Elements:
        tensor = self.values[name].detach()
        if name in self.assumed:
            return np.ones(tensor.shape, dtype=bool)
        if tensor.is_meta:
            raise PolicyError(f"{name} is on the meta device: load the weights first")
        if not bool(tensor.isfinite().all()):
            raise PolicyError(
                f"{name} has values that are NaN or inf, which times zero are not zero: give the "
                "weights of a model that works"
            )
        return elements_of_zero(tensor)


class Covered:
    """Masks over the units of each group, one per slot, True where the slot is zero.

    Only groups with a unit covered by a mask are included; ``candidates[g]`` is the mask of covered
    units.
    """

    def __init__(self, analysis: Analysis, masks: MaskPlan, zeros: Zeros) -> None:
        self.analysis = analysis
        self.candidates: dict[int, Flags] = {}
        self.slots: dict[int, dict[int, Flags]] = {}
        tensors = analysis.graph.tensors
        by_tensor: dict[int, list[int]] = {}
        for s, slot in enumerate(analysis.walked.facts.slots):
            by_tensor.setdefault(slot.tensor, []).append(s)
        for t, numbers in by_tensor.items():
            if tensors[t].name in masks.by_name:
                elements = masks.elements(tensors[t].name)
                for s in numbers:
                    for g, units in self._units(s, elements).items():
                        if units.any():
                            self.candidates[g] = units | self.candidates.get(g, units)
        for t, numbers in by_tensor.items():
            touched = {g for s in numbers for g in self._groups(s)} & set(self.candidates)
            if touched:
                elements = zeros(tensors[t].name)
                for s in numbers:
                    for g, units in self._units(s, elements).items():
                        if g in touched:
                            self.slots.setdefault(g, {})[s] = units

    def _groups(self, s: int) -> set[int]:
        slot = self.analysis.walked.facts.slots[s]
        groups = self.analysis.grouping.group[slot.first : slot.first + slot.count]
        return set(np.unique(groups).tolist()) - {PINNED}

    def _units(self, s: int, elements: Elements) -> dict[int, Flags]:
        """Return masks over the units of each group in a slot, True if fully among ``elements``."""
        slot = self.analysis.walked.facts.slots[s]
        own = slice(slot.first, slot.first + slot.count)
        groups, units = self.analysis.grouping.group[own], self.analysis.grouping.unit[own]
        atoms = covered_atoms(slot, elements)
        found = {}
        for g in self._groups(s):
            here = groups == g
            there = np.zeros(self.analysis.groups[g].size, dtype=bool)
            there[units[here]] = True
            np.logical_and.at(there, units[here], atoms[here])
            found[g] = there
        return found


def covered_atoms(slot: Slot, elements: Elements) -> Flags:
    """Return a mask over the atoms of a slot, True if all labelled coordinates are ``elements``."""
    if slot.blocks > 1:
        moved = np.moveaxis(elements, (slot.over, slot.dim), (0, 1))
        rows, length = moved.shape[0] // slot.blocks, moved.shape[1]
        per_block = moved.reshape(slot.blocks, rows, length, -1).all(axis=(1, 3))
        ragged: Flags = per_block.reshape(-1)
        return ragged
    others = tuple(dim for dim in range(elements.ndim) if dim != slot.dim)
    along: Flags = np.asarray(elements.all(axis=others))
    if slot.rows is None:
        return along
    where = np.flatnonzero(slot.rows)
    atoms = np.ones(slot.count, dtype=bool)
    np.logical_and.at(atoms, slot.rows[where] - 1, along[where])
    return atoms
