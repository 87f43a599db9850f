"""Group-level magnitude: the norm of everything that leaves with a unit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from planc.analysis import Analysis
from planc.criteria.scores import PerGroup, Weights
from planc.facts import Slot
from planc.grouping import PINNED
from planc.ir import Tensor


@dataclass(frozen=True, slots=True)
class Magnitude:
    """The L_p norm over all parameters of a unit, in every member of its group: (sum |w|^p)^(1/p).

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
        sums = np.bincount(flat, weights=values, minlength=int(offsets[-1])) ** (1 / self.p)
        return tuple(np.split(sums, offsets[1:-1])) if len(analysis.groups) else ()

    def _powers(self, tensor: torch.Tensor, slot: Slot) -> NDArray[np.float64]:
        """sum |w|^p over all other dimensions, for each index (and block) of the slot's."""
        w = tensor.detach()
        dim = slot.dim
        if slot.blocks > 1:
            w = w.unflatten(slot.over, (slot.blocks, -1))  # type: ignore[no-untyped-call]
            dim += slot.over < dim
            others = [d for d in range(w.dim()) if d not in (slot.over, dim)]
        else:
            others = [d for d in range(w.dim()) if d != dim]
        wide = torch.float64 if w.dtype == torch.float64 else torch.float32
        if not others:
            norm = w.to(wide).abs()
        else:
            norm = torch.linalg.vector_norm(w, self.p, dim=others, dtype=wide)
        if slot.blocks > 1 and slot.over > slot.dim:
            norm = norm.T
        return (norm.double().cpu().numpy() ** self.p).reshape(-1)


def _found(tensor: Tensor, weights: Weights) -> torch.Tensor:
    return next(weights[name] for name in tensor.names if name in weights)
