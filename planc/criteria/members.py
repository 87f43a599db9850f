"""Scores of units in each member of a group, and how they become one score for each unit.

An :class:`Importance` says how much a unit matters in each place (dimension of a parameter) that
it leaves; :class:`Reduced` makes a criterion of it. One parameter says nothing of the matter (a
bias of network slimming): its places are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, Protocol, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from planc.analysis import Analysis
from planc.analysis.places import Places
from planc.criteria.scores import Opinions, Weights
from planc.criteria.statistics import Statistics
from planc.errors import PolicyError

Values = NDArray[np.float64]
Reduction = Literal["mean", "max", "sum", "prod", "first"]
_REDUCTIONS: Mapping[str, Callable[[Values, NDArray[np.int64]], Values]] = {
    "sum": np.add.reduceat,
    "mean": np.add.reduceat,
    "max": np.maximum.reduceat,
    "prod": np.multiply.reduceat,
    "first": lambda values, starts: values[starts],
}


@dataclass(frozen=True, eq=False)
class Members:
    """``values[i]`` is the importance of unit ``unit[i]`` in one of its members; entries stand in
    the order of units, then of the model's tensors.
    """

    analysis: Analysis
    unit: NDArray[np.int64]
    values: Values

    def reduced(self, reduction: Reduction) -> Opinions:
        """One score for each unit of each group, None for groups without any such member."""
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
    """The scores of each group, None for those of whose units nothing was ``told``."""
    pairs = zip(places.split(scores), places.split(told), strict=True)
    return tuple(own if known.all() else None for own, known in pairs)


class Importance(Protocol):
    """How much each unit matters in each of its members."""

    def members(
        self, analysis: Analysis, weights: Weights, statistics: Statistics | None = None
    ) -> Members:
        """The importance of every unit in each of its members."""


@dataclass(frozen=True)
class Reduced:
    """A criterion: the importances of a unit in its members, reduced to one by their ``mean``,
    ``max``, ``sum``, ``prod`` or the ``first`` member's alone (in the order of the model's
    tensors).

    Raises:
        PolicyError: there is no such reduction.
    """

    importance: Importance
    reduction: Reduction = "mean"

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
        """The statistics that are needed."""
        return getattr(self.importance, "needs", ())

    def __call__(
        self, analysis: Analysis, weights: Weights, statistics: Statistics | None = None
    ) -> Opinions:
        found = self.importance.members(analysis, weights, statistics)
        return found.reduced(self.reduction)


def gathered(
    analysis: Analysis,
    of_places: Sequence[torch.Tensor | None],
    finish: Callable[[Values], Values] | None = None,
    within: Literal["sum", "mean"] = "sum",
) -> Members:
    """The members of all units, out of one value for each index of each place.

    Args:
        of_places: for each of ``analysis.places`` a tensor as long as its ``units``, or None where
            it says nothing.
        finish: what becomes of the sum over the indices that a unit has in one place.
        within: how the values of several indices become one.
    """
    told = np.array([values is not None for values in of_places], dtype=bool)
    return members_of(analysis, flat_values(analysis.places, of_places), told, finish, within)


def members_of(
    analysis: Analysis,
    values: Values,
    told: NDArray[np.bool_],
    finish: Callable[[Values], Values] | None = None,
    within: Literal["sum", "mean"] = "sum",
) -> Members:
    """As :func:`gathered`, of the values of all places, one after the other, and whether there are
    any of each.
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
    """The sum of the values of each owner from 0 to ``count``, always in the same order."""
    summed: Values = np.bincount(owner, weights=values, minlength=count).astype(np.float64)
    return summed


def flat_values(places: Places, of_places: Sequence[torch.Tensor | Values | None]) -> Values:
    """The values of all places, one after the other, as double precision; 0 where there is none."""
    flat: Values = np.zeros(int(places.indices.starts[-1]))
    elsewhere: dict[torch.device, list[tuple[slice, torch.Tensor]]] = {}
    bounds = pairwise(places.indices.starts.tolist())
    for (start, stop), values in zip(bounds, of_places, strict=True):
        if isinstance(values, torch.Tensor):
            elsewhere.setdefault(values.device, []).append((slice(start, stop), values))
        elif values is not None:
            flat[start:stop] = values
    for parts in elsewhere.values():  # each device hands over all it has at once
        joined = torch.cat([values.reshape(-1).double() for _, values in parts]).cpu().numpy()
        ends = np.cumsum([values.numel() for _, values in parts])[:-1]
        for (own, _), values in zip(parts, np.split(joined, ends), strict=True):
            flat[own] = values
    return flat
