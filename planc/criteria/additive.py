"""Additive importances: sums of a quantity over all coordinates removed with a unit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from planc.analysis import Analysis
from planc.analysis.places import Place
from planc.criteria.members import Members, Values, flat_values, members_of, spoken, summed_by
from planc.criteria.scores import Opinions, Weights
from planc.criteria.sources import Sources
from planc.criteria.statistics import Statistics
from planc.criteria.sums import place_sums, sum_over
from planc.errors import PolicyError
from planc.ir.graph import Tensor


class Additive(ABC):
    """Base of criteria by a quantity of single coordinates: :meth:`element` is summed, and
    :meth:`finish` turns the sum into a score.

    Called as a criterion, it sums over everything removed with a unit, each coordinate once, even
    if removed through two dimensions. As the importance of :class:`planc.criteria.Reduced`, it sums
    and finishes in each member separately.
    """

    relative: ClassVar[bool] = True

    @property
    def needs(self) -> tuple[str, ...]:
        """The required statistics."""
        return ()

    @abstractmethod
    def element(self, sources: Sources, tensor: Tensor) -> torch.Tensor | None:
        """The quantity of each coordinate of a parameter, None if undefined for the parameter."""

    def finish(self, sums: Values) -> Values:
        """The scores of sums."""
        return sums

    def sums(
        self, sources: Sources, tensor: Tensor, places: Sequence[Place]
    ) -> Sequence[torch.Tensor | Values | None]:
        """The sums of a parameter's quantity for each index of its places."""
        element = self.element(sources, tensor)
        return [None] * len(places) if element is None else place_sums(element, places)

    def members(
        self, analysis: Analysis, weights: Weights, statistics: Statistics | None = None
    ) -> Members:
        """The importance of every unit in each of its members."""
        values, told = self.place_values(Sources(self, analysis, weights, statistics))
        return members_of(analysis, values, told, self.finish)

    def __call__(
        self, analysis: Analysis, weights: Weights, statistics: Statistics | None = None
    ) -> Opinions:
        sources = Sources(self, analysis, weights, statistics)
        places = analysis.places
        every = places.indices
        values, told = self.place_values(sources)
        sums = summed_by(every.unit, every.of(values), places.count)
        if places.overlaps:
            sums = sums - self._counted_twice(sources)
        if told.all():
            return places.split(self.finish(sums))
        heard = np.bincount(every.unit, weights=told[every.place], minlength=places.count) > 0
        return spoken(places, self.finish(sums), heard)

    def place_values(self, sources: Sources) -> tuple[Values, NDArray[np.bool_]]:
        """The sums for the indices of all places, concatenated, and the mask of places with a
        defined quantity.
        """
        places, tensors = sources.analysis.places, sources.analysis.graph.tensors
        found: list[torch.Tensor | Values | None] = [None] * len(places.places)
        for number, positions in places.by_tensor.items():
            own = [places.places[position] for position in positions]
            summed = self.sums(sources, tensors[number], own)
            for position, values in zip(positions, summed, strict=True):
                found[position] = values
        return flat_values(places, found)

    def _counted_twice(self, sources: Sources) -> Values:
        """For each unit, the sum over coordinates removed through several dimensions at once, by
        inclusion and exclusion.
        """
        places = sources.analysis.places
        surplus = np.zeros(places.count)
        for overlap in places.overlaps:
            element = self.element(sources, sources.analysis.graph.tensors[overlap.tensor])
            if element is None:
                continue
            order = sorted(range(len(overlap.dims)), key=lambda i: overlap.dims[i])
            units = overlap.units.transpose(order)
            shared = sum_over(element.double(), tuple(sorted(overlap.dims))).cpu().numpy()
            here = units >= 0
            np.add.at(surplus, units[here], (-1) ** len(overlap.dims) * shared[here])
        return surplus


def positive(value: float, what: str) -> float:
    """Return the number.

    Raises:
        PolicyError: it is not finite and above 0.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < np.inf:
        raise PolicyError(f"{what} {value!r} is not a finite number above 0")
    return value
