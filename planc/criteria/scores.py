"""Scores: one number for each unit of each group, and what a criterion is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from planc.analysis import Analysis
from planc.criteria.statistics import Statistics, needed
from planc.errors import PolicyError, StalePlan
from planc.groups import Group
from planc.ir import Tensor
from planc.reparametrised import values_as_used

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


def score(
    analysis: Analysis,
    weights: nn.Module | Weights,
    criterion: Criterion,
    statistics: Statistics | None = None,
) -> Scores:
    """Scores every unit of every group.

    Args:
        weights: the model, or its parameters and buffers by name, as an exported program's
            ``state_dict`` has them. What a mask of torch.nn.utils.prune hides in a model counts
            as zero.
        statistics: what :func:`planc.calibrate` collected, for criteria that need it.

    Raises:
        StalePlan: a tensor is missing or has another shape than the one that was traced.
        PolicyError: statistics are missing; a score is missing or not finite; names the group.
    """
    if isinstance(weights, nn.Module):
        weights = values_as_used(weights)
    check_weights(analysis, getattr(weights, "meta", weights))  # shapes, without reading values
    units = opinions(criterion, analysis, weights, statistics)
    if len(units) != len(analysis.groups):
        raise PolicyError(
            f"{criterion}: scores for {len(units)} groups, the model has {len(analysis.groups)}; "
            "a criterion returns an array for each group"
        )
    for group, values in zip(analysis.groups, units, strict=True):
        if values is None:
            raise PolicyError(
                f"{criterion} says nothing of group {group}: none of its tensors is what it "
                f"measures; use planc.criteria.Fallback({type(criterion).__name__}(...), "
                "Magnitude(2))"
            )
        if np.shape(values) != (group.size,):
            raise PolicyError(
                f"{criterion}: group {group} has {group.size} units, its scores have shape "
                f"{np.shape(values)}; a criterion returns a score for each unit"
            )
    scored = tuple(values for values in units if values is not None)
    if scored and not np.isfinite(np.concatenate(scored)).all():
        group = next(
            group
            for group, values in zip(analysis.groups, scored, strict=True)
            if not np.isfinite(values).all()
        )
        raise PolicyError(
            f"{criterion}: group {group} has scores that are not finite: "
            f"{_culprit(group, weights, analysis, statistics)}"
        )
    return Scores(scored, str(criterion))


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


def _culprit(
    group: Group, weights: Weights, analysis: Analysis, statistics: Statistics | None
) -> str:
    """The first tensor among the group's members that has a value which is not finite."""
    members = dict.fromkeys(member.tensor for member in group.members)
    for name in sorted(members, key=lambda name: analysis.graph.tensor(name).kind, reverse=True):
        names = analysis.graph.tensor(name).names  # parameters first, they are what is measured
        tensor = next((weights[known] for known in names if known in weights), None)
        if tensor is not None and not bool(tensor.isfinite().all()):
            return f"{broken(name, tensor)}; give the weights of a model that works"
    for name, tensor in statistics.broken() if statistics is not None else ():
        return f"the statistics {broken(name, tensor)}; calibrate again"
    return "all its tensors are finite, so the criterion overflows; scale the weights down"


def broken(name: str, tensor: torch.Tensor) -> str:
    """How many values of a tensor are not finite, and where the first is."""
    places = tensor.isfinite().logical_not().nonzero()
    return (
        f"{name} has {len(places)} values that are NaN or inf, the first at "
        f"{tuple(places[0].tolist())}"
    )
