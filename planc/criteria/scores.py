"""Scores, one number for each unit of each group, and the criterion protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from planc.analysis import Analysis
from planc.criteria.statistics import Statistics, needed, needs_of
from planc.errors import StalePlan
from planc.ir.graph import Tensor

Weights = Mapping[str, torch.Tensor]
Opinions = Sequence[NDArray[np.float64] | None]
"""For each group one score per unit, or None where the criterion is undefined for the group."""


@runtime_checkable
class Unread(Protocol):
    """Weights read on access, with shapes known before, such as :class:`planc.StoredWeights`."""

    @property
    def meta(self) -> Weights:
        """The same names with tensors on the meta device."""


@dataclass(frozen=True, eq=False)
class Scores:
    """``units[g][u]`` is the score of unit ``u`` of group ``g``, in the words of ``criterion``.

    ``relative``: the scores have no common scale, and rankings over several groups divide those of
    each group by their mean. Without it they are ranked as they are. A group about which the
    criterion says nothing has NaN for each unit, and may only stay whole. ``weights``, ``origin``
    and ``statistics`` are those of :class:`planc.plan.plan.Provenance`.
    """

    units: tuple[NDArray[np.float64], ...]
    criterion: str
    relative: bool = False
    weights: bytes | None = None
    origin: str = ""
    statistics: bytes | None = None


class Criterion(Protocol):
    """A pure function from an analysis and tensors to scores. Its ``str`` names it in plans.

    A criterion reading statistics has an attribute ``needs``, the names of its quantities (see
    :mod:`planc.criteria.statistics`), and takes the statistics as third argument. One without a
    common scale for all groups has ``relative = True``: where groups compete, its scores are
    divided by their group's mean, unless :class:`planc.criteria.Normalized` has scaled them.
    """

    def __call__(self, analysis: Analysis, weights: Weights) -> Opinions:
        """One array for each group with one score for each unit; None for groups where the
        criterion is undefined.
        """


def is_relative(criterion: object) -> bool:
    """True if the criterion's scores have no common scale for all groups."""
    return bool(getattr(criterion, "relative", False))


def opinions(
    criterion: Criterion, analysis: Analysis, weights: Weights, statistics: Statistics | None
) -> Opinions:
    """The scores of a criterion, called with statistics if it needs them.

    Raises:
        PolicyError: required statistics were not collected.
    """
    if not needs_of(criterion):
        return criterion(analysis, weights)
    return criterion(analysis, weights, needed(criterion, statistics))  # type: ignore[call-arg]


def check_weights(analysis: Analysis, weights: Weights) -> None:
    """Check for the presence and the traced shape of all parameters, without reading values.

    Raises:
        StalePlan: a parameter is missing or has another shape.
    """
    weights = weights.meta if isinstance(weights, Unread) else weights
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
    """The tensor under any of its names, None if absent."""
    found = weights.get(tensor.names[0])
    if found is not None:
        return found
    return next((weights[name] for name in tensor.names if name in weights), None)


def broken(name: str, tensor: torch.Tensor) -> str:
    """The number of non-finite values of a tensor and the place of the first, in words."""
    places = tensor.isfinite().logical_not().nonzero()
    return (
        f"{name} has {len(places)} values that are NaN or inf, the first at "
        f"{tuple(places[0].tolist())}"
    )
