"""Scores of units in each member of a group, and their reduction to one score per unit.

An :class:`Importance` scores a unit in each of its places (dimensions of parameters);
:class:`Reduced` makes a criterion of it. Places of parameters without a score (a bias in network
slimming) are left out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal, Protocol, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from planc.analysis import Analysis
from planc.analysis.places import Place, Places
from planc.criteria.roles import Role
from planc.criteria.scores import Opinions, Weights
from planc.criteria.sources import Sources
from planc.criteria.statistics import Statistics, needs_of
from planc.errors import PolicyError
from planc.ir.graph import Tensor

Values = NDArray[np.float64]
Reduction = Literal["mean", "max", "sum", "prod", "first"]
Within = Literal["sum", "mean"]
_REDUCTIONS: Mapping[str, Callable[[Values, NDArray[np.int64]], Values]] = {
    "sum": np.add.reduceat,
    "mean": np.add.reduceat,
    "max": np.maximum.reduceat,
    "prod": np.multiply.reduceat,
    "first": lambda values, starts: values[starts],
}


@dataclass(frozen=True, eq=False)
class Members:
    """Importances of units in single members: ``values[i]`` is that of unit ``unit[i]`` in one
    member.

    Entries are in the order of units, then of the model's tensors.
    """

    analysis: Analysis
    unit: NDArray[np.int64]
    values: Values

    def reduced(self, reduction: Reduction) -> Opinions:
        """One score for each unit of each group, None for groups without any scored member."""
        places = self.analysis.places
        counts = np.bincount(self.unit, minlength=places.count)
        told = np.flatnonzero(counts)
        scores = np.zeros(places.count)
        if len(told):
            starts = np.cumsum(counts) - counts
            scores[told] = _REDUCTIONS[reduction](self.values, starts[told])
        if reduction == "mean":
            scores = scores / np.maximum(counts, 1)
        return spoken(places, scores, counts > 0)


def spoken(places: Places, scores: Values, told: NDArray[np.bool_]) -> Opinions:
    """The scores of each group, None for groups with units outside the mask ``told``."""
    pairs = zip(places.split(scores), places.split(told), strict=True)
    return tuple(own if known.all() else None for own, known in pairs)


class Importance(Protocol):
    """Scores of each unit in each of its members."""

    def members(
        self, analysis: Analysis, weights: Weights, statistics: Statistics | None = None
    ) -> Members:
        """The importance of every unit in each of its members."""


@dataclass(frozen=True)
class Reduced:
    """A criterion: the importances of a unit in its members, reduced to one by their ``mean``,
    ``max``, ``sum``, ``prod``, or the ``first`` member's alone (in the order of the model's
    tensors).

    Raises:
        PolicyError: the reduction is unknown, or the importance has no scores of single members.
    """

    importance: Importance
    reduction: Reduction = "mean"
    relative: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.reduction not in _REDUCTIONS:
            known = ", ".join(get_args(Reduction))
            raise PolicyError(f"unknown reduction {self.reduction!r}: choose one of {known}")
        if not hasattr(self.importance, "members"):
            raise PolicyError(
                f"{self.importance} has no scores of single members to reduce: it scores units as "
                "a whole; use it as it is"
            )

    def __str__(self) -> str:
        return f"{self.importance}, {self.reduction} over members"

    @property
    def needs(self) -> tuple[str, ...]:
        """The required statistics."""
        return needs_of(self.importance)

    def __call__(
        self, analysis: Analysis, weights: Weights, statistics: Statistics | None = None
    ) -> Opinions:
        found = self.importance.members(analysis, weights, statistics)
        return found.reduced(self.reduction)


class PlaceCriterion(ABC):
    """Base of criteria by one value for each index of a weight's output or input dimension.

    Called as a criterion, it reduces a unit's values over all its weights by ``REDUCTION``.
    """

    relative: ClassVar[bool] = True
    REDUCTION: ClassVar[Reduction] = "mean"
    WITHIN: ClassVar[Within] = "sum"  # of the indices of a unit in one place

    @property
    def needs(self) -> tuple[str, ...]:
        """The required statistics."""
        return ()

    @abstractmethod
    def values(
        self, sources: Sources, tensor: Tensor, role: Role, place: Place
    ) -> torch.Tensor | None:
        """One value for each of the place's ``units``, None where undefined."""

    def __call__(
        self, analysis: Analysis, weights: Weights, statistics: Statistics | None = None
    ) -> Opinions:
        return self.members(analysis, weights, statistics).reduced(self.REDUCTION)

    def members(
        self, analysis: Analysis, weights: Weights, statistics: Statistics | None = None
    ) -> Members:
        """The importance of every unit in each weight with a value for it."""
        sources, places = Sources(self, analysis, weights, statistics), analysis.places
        found: list[torch.Tensor | Values | None] = []
        for place in places.places:
            tensor = analysis.graph.tensors[place.tensor]
            role = sources.roles.get(tensor.value)
            found.append(None if role is None else self.values(sources, tensor, role, place))
        return members_of(analysis, *flat_values(places, found), within=self.WITHIN)


def members_of(
    analysis: Analysis,
    values: Values,
    told: NDArray[np.bool_],
    finish: Callable[[Values], Values] | None = None,
    within: Within = "sum",
) -> Members:
    """The members of all units.

    Args:
        values: one value for each index of each place, concatenated.
        told: the mask of places with values.
        finish: applied to the sum over the indices of a unit in one place.
        within: the reduction of these values to one.
    """
    places = analysis.places
    pairs, indices = places.pairs, places.indices
    summed = summed_by(pairs.pair, indices.of(values), len(pairs.unit))
    if within == "mean":
        summed = summed / pairs.lengths
    heard = told[pairs.place]
    summed = summed[heard]
    return Members(analysis, pairs.unit[heard], summed if finish is None else finish(summed))


def summed_by(owner: NDArray[np.int64], values: Values, count: int) -> Values:
    """The sum of the values of each owner below ``count``, always in the same order."""
    summed: Values = np.bincount(owner, weights=values, minlength=count).astype(np.float64)
    return summed


def flat_values(
    places: Places, of_places: Sequence[torch.Tensor | Values | None]
) -> tuple[Values, NDArray[np.bool_]]:
    """The values of all places, concatenated, in double precision, and the mask of places with
    values; 0 in the others.
    """
    flat: Values = np.zeros(int(places.indices.starts[-1]))
    elsewhere: dict[torch.device, list[tuple[slice, torch.Tensor]]] = {}
    bounds = pairwise(places.indices.starts.tolist())
    for (start, stop), values in zip(bounds, of_places, strict=True):
        if isinstance(values, torch.Tensor):
            elsewhere.setdefault(values.device, []).append((slice(start, stop), values))
        elif values is not None:
            flat[start:stop] = values
    for parts in elsewhere.values():  # one transfer per device
        joined = torch.cat([values.reshape(-1).double() for _, values in parts]).cpu().numpy()
        ends = np.cumsum([values.numel() for _, values in parts])[:-1]
        for (own, _), values in zip(parts, np.split(joined, ends), strict=True):
            flat[own] = values
    return flat, np.array([values is not None for values in of_places], dtype=bool)
