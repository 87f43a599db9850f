"""Group-level magnitude: the norm of everything that leaves with a unit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from planc.criteria.additive import Additive, positive
from planc.criteria.members import Values, flat_values
from planc.criteria.reading import reading
from planc.criteria.sources import Sources
from planc.criteria.sums import power, power_sums
from planc.ir.graph import Tensor


@dataclass(frozen=True, slots=True)
class Magnitude(Additive):
    """The L_p norm over all parameters that leave with a unit, each counted once:
    (sum |w|^p)^(1/p).

    Filter magnitude (Li et al. 2017, "Pruning Filters for Efficient ConvNets", section 3.1)
    over the coupled parameters of a group (Fang et al. 2023, "DepGraph", section 3.3).

    Raises:
        PolicyError: ``p`` is not a finite number above 0.
    """

    p: float = 2

    def __post_init__(self) -> None:
        positive(self.p, "p")

    def __str__(self) -> str:
        return f"l{self.p:g}"

    def element(self, sources: Sources, tensor: Tensor) -> torch.Tensor:
        """|w|^p."""
        return power(sources.weight(tensor), self.p)

    def place_values(self, sources: Sources) -> tuple[Values, NDArray[np.bool_]]:
        """The sums for the indices of all places; parameters of one dimension are read at once."""
        places, order = sources.analysis.places, reading(sources.analysis)
        found: list[torch.Tensor | Values | None] = [None] * len(places.places)
        for tensor, own, positions in order.others:  # one in memory at a time: it may be in a file
            sums = power_sums(sources.weight(tensor), self.p, own)
            for position, values in zip(positions, sums, strict=True):
                found[position] = values
        flat = flat_values(places, found)
        flat[order.at] = power(sources.joined(order.vectors), self.p).numpy()
        return flat, np.ones(len(found), dtype=bool)

    def finish(self, sums: Values) -> Values:
        """The p-th root."""
        norms: Values = np.maximum(sums, 0) ** (1 / self.p)
        return norms
