"""Criteria of filters, which need the weights alone: their normalization's scale, their distance
from each other, their share of the layer.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from planc.analysis import Analysis
from planc.analysis.places import NOWHERE, Place
from planc.criteria.additive import Additive
from planc.criteria.magnitude import Magnitude
from planc.criteria.members import Members, Reduced, Values, gathered
from planc.criteria.scores import Criterion, Opinions, Weights, opinions
from planc.criteria.sources import Sources
from planc.criteria.statistics import Statistics
from planc.ir.graph import Tensor


@dataclass(frozen=True, slots=True)
class BatchNormScale(Additive):
    """The scale of the batch normalizations that a unit passes: |gamma|, summed over them.

    Network slimming (Liu et al. 2017, "Learning Efficient Convolutional Networks through Network
    Slimming", section 3: channels with small scaling factors go). It says nothing of groups
    without batch normalization (see :class:`planc.criteria.Fallback`).
    """

    def __str__(self) -> str:
        return "batch norm scale"

    def element(self, sources: Sources, tensor: Tensor) -> torch.Tensor | None:
        """|gamma|; None for every other parameter."""
        return sources.weight(tensor).abs() if tensor.value in sources.scales else None


@dataclass(frozen=True, slots=True)
class GeometricMedian:
    """How far a filter is from all others of its layer: sum_j ||F_i - F_j||_2; the filters nearest
    to the geometric median, which the others can replace, go first.

    FPGM (He et al. 2019, "Filter Pruning via Geometric Median for Deep Neural Networks
    Acceleration", equation 5). A filter is what a unit has in the output dimension of a weight;
    distances are between the units of one group. As a criterion by itself: the mean over all
    weights that make the unit. It says nothing of groups that no weight makes.
    """

    def __str__(self) -> str:
        return "geometric median"

    def __call__(
        self, analysis: Analysis, weights: Weights, statistics: Statistics | None = None
    ) -> Opinions:
        return Reduced(self, "mean")(analysis, weights, statistics)

    def members(
        self, analysis: Analysis, weights: Weights, statistics: Statistics | None = None
    ) -> Members:
        """The sum of distances of every unit in each weight that makes it."""
        sources = Sources(self, analysis, weights, statistics)
        offsets = analysis.places.offsets
        of_places: list[torch.Tensor | None] = []
        for place in analysis.places.places:
            tensor = analysis.graph.tensors[place.tensor]
            role = sources.roles.get(tensor.value)
            makes = role is not None and place.dim == role.out and place.blocks == 1
            found = _distances(sources.weight(tensor), place, offsets) if makes else None
            of_places.append(found)
        return gathered(analysis, of_places)


def _distances(weight: torch.Tensor, place: Place, offsets: np.ndarray) -> torch.Tensor:
    """For each index of a place its unit's sum of distances, split evenly over the unit."""
    wide = torch.complex128 if weight.is_complex() else torch.float64
    rows = weight.movedim(place.dim, 0).flatten(1).to(wide)
    result = torch.zeros(len(place.units), dtype=torch.float64)
    group = np.searchsorted(offsets, place.units, side="right")
    for g in np.unique(group[place.units != NOWHERE]):
        at = np.flatnonzero(group == g)
        at = at[np.argsort(place.units[at], kind="stable")]
        each = len(at) // len(np.unique(place.units[at]))  # units of a group are alike
        filters = rows[torch.from_numpy(at)].reshape(len(at) // each, -1)
        total = _pairwise(filters).sum(1).cpu() / each
        result[torch.from_numpy(at)] = total.repeat_interleave(each)
    return result


def _pairwise(filters: torch.Tensor) -> torch.Tensor:
    """``[n, n]``: ||F_i - F_j||_2, by the matrix product, exactly 0 on the diagonal."""
    products = (filters @ filters.mH).real
    squares = products.diagonal()
    squared = squares[:, None] + squares[None, :] - 2 * products
    return squared.clamp_(min=0).fill_diagonal_(0).sqrt_()


@dataclass(frozen=True, slots=True)
class Lamp:
    """A unit's share of what is at least as large in its group: n(u) / sum_{n(v) >= n(u)} n(v) of
    the squared norms n; units of equal norm count in their order, the later one as the larger.

    LAMP (Lee et al. 2021, "Layer-adaptive Sparsity for the Magnitude-based Pruning", equation 5),
    with a group in the place of a layer and the squared norm of all that leaves with a unit in that
    of a weight's square; or the square of any other criterion's score. Meant for one ranking over
    all groups.
    """

    criterion: Criterion = field(default_factory=Magnitude)

    def __str__(self) -> str:
        return "lamp" if self.criterion == Magnitude(2) else f"lamp of {self.criterion}"

    @property
    def needs(self) -> tuple[str, ...]:
        """The statistics that are needed."""
        return getattr(self.criterion, "needs", ())

    def __call__(
        self, analysis: Analysis, weights: Weights, statistics: Statistics | None = None
    ) -> Opinions:
        norms = opinions(self.criterion, analysis, weights, statistics)
        return tuple(None if own is None else _share(own * own) for own in norms)


def _share(squares: Values) -> Values:
    order = np.argsort(squares, kind="stable")
    sorted_squares = squares[order]
    larger = np.cumsum(sorted_squares[::-1])[::-1]
    scores = np.zeros_like(squares)
    scores[order] = sorted_squares / np.where(larger > 0, larger, 1)
    return scores
