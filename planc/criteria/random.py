"""Random scores: the baseline, reproducible by its seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from planc.analysis import Analysis
from planc.criteria.scores import Opinions, Weights
from planc.errors import PolicyError


@dataclass(frozen=True, slots=True)
class Random:
    """Uniform scores in [0, 1); equal seeds give equal scores."""

    seed: int = 0
    relative: ClassVar[bool] = True
    weightless: ClassVar[bool] = True  # no weight enters the scores

    def __str__(self) -> str:
        return "random"

    def __call__(self, analysis: Analysis, weights: Weights) -> Opinions:
        generator = np.random.Generator(np.random.PCG64(checked_seed(self.seed)))
        return tuple(generator.random(group.size) for group in analysis.groups)


def checked_seed(seed: int) -> int:
    """Return the seed, valid for the record in a plan.

    Raises:
        PolicyError: it is not a whole number from 0 to 2^63 - 1.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 1 << 63:
        raise PolicyError(f"seed {seed!r} is not a whole number from 0 to 2^63 - 1")
    return seed
