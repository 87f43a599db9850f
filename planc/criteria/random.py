"""Random scores: the baseline, reproducible by its seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planc.analysis import Analysis
from planc.criteria.scores import PerGroup, Weights


@dataclass(frozen=True, slots=True)
class Random:
    """Uniform scores in [0, 1); equal seeds give equal scores."""

    seed: int = 0

    def __str__(self) -> str:
        return "random"

    def __call__(self, analysis: Analysis, weights: Weights) -> PerGroup:
        generator = np.random.Generator(np.random.PCG64(self.seed))
        return tuple(generator.random(group.size) for group in analysis.groups)
