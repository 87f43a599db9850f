"""Group-level magnitude: the norm of everything removed with a unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from planc.analysis.places import Place
from planc.criteria.additive import Additive, positive
from planc.criteria.members import Values
from planc.criteria.sources import Sources
from planc.criteria.sums import power, power_sums
from planc.ir.graph import Tensor


@dataclass(frozen=True, slots=True)
class Magnitude(Additive):
    """The L_p norm over all parameters removed with a unit, each counted once: (sum |w|^p)^(1/p).

    Filter magnitude (Li et al. 2017, "Pruning Filters for Efficient ConvNets", section 3.1) over
    the coupled parameters of a group (Fang et al. 2023, "DepGraph", section 3.3).

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

    def sums(
        self, sources: Sources, tensor: Tensor, places: Sequence[Place]
    ) -> Sequence[torch.Tensor | Values | None]:
        """The sums of |w|^p, in one pass over a parameter of row-major layout."""
        return power_sums(sources.weight(tensor), self.p, places)

    def finish(self, sums: Values) -> Values:
        """The p-th root."""
        norms: Values = np.maximum(sums, 0) ** (1 / self.p)
        return norms
