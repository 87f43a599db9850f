"""Scores: one number for each unit of each group, and what a criterion is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from planc.analysis import Analysis
from planc.criteria.statistics import Statistics, needed
from planc.errors import StalePlan
from planc.ir.graph import Tensor

Weights = Mapping[str, torch.Tensor]
Opinions = Sequence[NDArray[np.float64] | None]
"""For each group one score for each unit, or None if a criterion says nothing of the group."""


@dataclass(frozen=True, eq=False)
class Scores:
    """``units[g][u]`` is the score of unit ``u`` of group ``g``; ``criterion`` says what it is."""

    units: tuple[NDArray[np.float64], ...]
    criterion: str


class Criterion(Protocol):
    """A pure function from an analysis and tensors to scores; ``str`` of it names it in plans.

    One that reads statistics has an attribute ``needs``, the quantities that it reads (see
    :mod:`planc.criteria.statistics`), and is called with them as the third argument.
    """

    def __call__(self, analysis: Analysis, weights: Weights) -> Opinions:
        """One array for each group, one score for each unit; None for a group of which it has
        nothing to say.
        """


def opinions(
    criterion: Criterion, analysis: Analysis, weights: Weights, statistics: Statistics | None
) -> Opinions:
    """What a criterion says, given statistics if it needs them.

    Raises:
        PolicyError: it needs some that were not collected.
    """
    if not getattr(criterion, "needs", ()):
        return criterion(analysis, weights)
    return criterion(analysis, weights, needed(criterion, statistics))  # type: ignore[call-arg]


def check_weights(analysis: Analysis, weights: Weights) -> None:
    """Returns if all parameters are there, in the shapes that were traced.

    Raises:
        StalePlan: one is missing or has another shape.
    """
    for tensor in analysis.graph.tensors:
        found = named_in(weights, tensor)
        if found is None:
            if tensor.kind == "buffer":
                continue
            raise StalePlan(f"weights: {tensor.name} is missing; give the traced model's weights")
        if not isinstance(found, torch.Tensor):
            raise StalePlan(f"weights: {tensor.name} is of type {type(found).__name__}, no tensor")
        if found.shape != tensor.shape:
            raise StalePlan(
                f"weights: {tensor.name} has shape {tuple(found.shape)}, but {tensor.shape} was "
                "traced; give the weights of the traced model"
            )


def named_in(weights: Weights, tensor: Tensor) -> torch.Tensor | None:
    """The tensor, under whichever of its names is there."""
    found = weights.get(tensor.names[0])
    if found is not None:
        return found
    return next((weights[name] for name in tensor.names if name in weights), None)


def broken(name: str, tensor: torch.Tensor) -> str:
    """How many values of a tensor are not finite, and where the first is."""
    places = tensor.isfinite().logical_not().nonzero()
    return (
        f"{name} has {len(places)} values that are NaN or inf, the first at "
        f"{tuple(places[0].tolist())}"
    )
