"""Group-level magnitude: the norm of everything that leaves with a unit."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray

from planc.analysis import Analysis
from planc.criteria.scores import PerGroup, Weights
from planc.errors import PolicyError
from planc.facts import Slot
from planc.grouping import PINNED
from planc.ir import Tensor


@dataclass(frozen=True, slots=True)
class Magnitude:
    """The L_p norm over all parameters that leave with a unit, each counted once:
    (sum |w|^p)^(1/p).

    Filter magnitude (Li et al. 2017, "Pruning Filters for Efficient ConvNets", section 3.1)
    over the coupled parameters of a group (Fang et al. 2023, "DepGraph", section 3.3).
    """

    p: int = 2

    def __str__(self) -> str:
        return f"l{self.p}"

    def __call__(self, analysis: Analysis, weights: Weights) -> PerGroup:
        facts, grouping = analysis.walked.facts, analysis.grouping
        atoms: list[NDArray[np.int64]] = []
        powers: list[NDArray[np.float64]] = []
        measured: dict[tuple[int, int], NDArray[np.float64]] = {}
        for slot in facts.slots:
            tensor = analysis.graph.tensors[slot.tensor]
            own = np.arange(slot.first, slot.first + slot.count)
            if tensor.kind != "parameter" or (grouping.group[own] == PINNED).all():
                continue
            key = (slot.tensor, slot.dim)
            if key not in measured:
                measured[key] = self._powers(_found(tensor, weights), slot)
            power = measured[key]
            if slot.rows is not None:
                where = np.flatnonzero(slot.rows)
                own, power = slot.first + slot.rows[where] - 1, power[where]
            atoms.append(own)
            powers.append(power)
        sizes = np.array([g.size for g in analysis.groups], dtype=np.int64)
        offsets = np.concatenate(([0], np.cumsum(sizes)))
        every = np.concatenate(atoms or [np.zeros(0, dtype=np.int64)])
        live = grouping.group[every] != PINNED
        flat = offsets[grouping.group[every[live]]] + grouping.unit[every[live]]
        values = np.concatenate(powers or [np.zeros(0)])[live]
        every_power = np.bincount(flat, weights=values, minlength=int(offsets[-1]))
        own_power = every_power - self._counted_twice(analysis, weights, offsets)
        sums = np.maximum(own_power, 0) ** (1 / self.p)
        return tuple(np.split(sums, offsets[1:-1])) if len(analysis.groups) else ()

    def _counted_twice(
        self, analysis: Analysis, weights: Weights, offsets: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """For each unit the sum |w|^p of what leaves with it through several dimensions at once."""
        grouping = analysis.grouping
        surplus = np.zeros(int(offsets[-1]))
        units: dict[int, dict[int, NDArray[np.int64]]] = {}
        for slot in analysis.walked.facts.slots:
            own = slice(slot.first, slot.first + slot.count)
            groups = grouping.group[own]
            if slot.rows is None and slot.blocks == 1 and (groups != PINNED).any():
                flat = np.where(groups == PINNED, -1, offsets[groups] + grouping.unit[own])
                units.setdefault(slot.tensor, {})[slot.dim] = flat
        for number, by_dim in units.items():
            tensor = analysis.graph.tensors[number]
            for count in range(2, len(by_dim) + 1):  # by inclusion and exclusion
                for dims in combinations(by_dim, count):
                    shared = set(by_dim[dims[0]].tolist()) - {-1}
                    shared = shared.intersection(*(by_dim[dim].tolist() for dim in dims[1:]))
                    if shared and tensor.kind == "parameter":
                        first, *others = np.ix_(*(by_dim[dim] for dim in dims))
                        same = reduce(np.logical_and, [first == other for other in others])
                        same = same & (first >= 0)
                        power = self._over(_found(tensor, weights), dims)[same]
                        where = np.broadcast_to(first, same.shape)[same]
                        np.add.at(surplus, where, (-1) ** count * power)
        return surplus

    def _over(self, tensor: torch.Tensor, dims: tuple[int, ...]) -> NDArray[np.float64]:
        """sum |w|^p over all dimensions but ``dims``."""
        others = [d for d in range(tensor.dim()) if d not in dims]
        power = _absolute(tensor).double() ** self.p
        summed: NDArray[np.float64] = (power.sum(others) if others else power).cpu().numpy()
        return summed

    def _powers(self, tensor: torch.Tensor, slot: Slot) -> NDArray[np.float64]:
        """sum |w|^p over all other dimensions, for each index (and block) of the slot's."""
        w = _absolute(tensor) if tensor.is_complex() or tensor.dim() == 1 else tensor.detach()
        dim = slot.dim
        if slot.blocks > 1:
            w = w.unflatten(slot.over, (slot.blocks, -1))  # type: ignore[no-untyped-call]
            dim += slot.over < dim
            others = [d for d in range(w.dim()) if d not in (slot.over, dim)]
        else:
            others = [d for d in range(w.dim()) if d != dim]
        wide = torch.float64 if w.dtype == torch.float64 else torch.float32
        if not others:
            norm = w.to(wide)
        else:
            norm = torch.linalg.vector_norm(w, self.p, dim=others, dtype=wide)
        if slot.blocks > 1 and slot.over > slot.dim:
            norm = norm.T
        return (norm.double().cpu().numpy() ** self.p).reshape(-1)


def _found(tensor: Tensor, weights: Weights) -> torch.Tensor:
    found = next(weights[name] for name in tensor.names if name in weights)
    if found.is_meta:
        raise PolicyError(
            f"{tensor.name} is on the meta device and has no values to measure: load the weights, "
            'or choose the criterion "random"'
        )
    return found


def _absolute(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().abs()
