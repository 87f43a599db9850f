"""Criteria from filters: normalization scale, distance to others, share of the layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from planc.analysis import Analysis
from planc.analysis.places import NOWHERE, Place
from planc.criteria.additive import Additive
from planc.criteria.magnitude import Magnitude
from planc.criteria.members import PlaceCriterion, Values
from planc.criteria.roles import Role
from planc.criteria.scores import Criterion, Opinions, Weights, opinions
from planc.criteria.sources import Sources
from planc.criteria.statistics import Statistics, needs_of
from planc.ir.graph import Tensor

_L2 = Magnitude(2)


@dataclass(frozen=True, slots=True)
class BatchNormScale(Additive):
    """The scale of the batch normalizations applied to a unit: |gamma|, summed over them.

    Network slimming (Liu et al. 2017, "Learning Efficient Convolutional Networks through Network
    Slimming", section 3: channels with small scaling factors are removed). Undefined for groups
    without batch normalization (see :class:`planc.criteria.Fallback`).
    """

    def __str__(self) -> str:
        return "batch norm scale"

    def element(self, sources: Sources, tensor: Tensor) -> torch.Tensor | None:
        """|gamma|; None for every other parameter."""
        return sources.weight(tensor).abs() if tensor.value in sources.scales else None


@dataclass(frozen=True, slots=True)
class GeometricMedian(PlaceCriterion):
    """The distance of a filter to all others of its layer: sum_j ||F_i - F_j||_2.

    The filters nearest to the geometric median are replaceable by the others and are removed first:
    FPGM (He et al. 2019, "Filter Pruning via Geometric Median for Deep Neural Networks
    Acceleration", equation 5). A filter is a unit's slice in the output dimension of a weight;
    distances are between the units of one group. Called as a criterion: the mean over all weights
    producing the unit. Undefined for groups without such a weight.
    """

    def __str__(self) -> str:
        return "geometric median"

    def values(
        self, sources: Sources, tensor: Tensor, role: Role, place: Place
    ) -> torch.Tensor | None:
        """The sum of distances of each unit, in the output dimension of a weight."""
        if place.dim != role.out or place.blocks != 1:
            return None
        return _distances(sources.weight(tensor), place, sources.analysis.places.offsets)


def _distances(weight: torch.Tensor, place: Place, offsets: np.ndarray) -> torch.Tensor:
    """For each index of a place, its unit's sum of distances, split evenly over the unit."""
    wide = torch.complex128 if weight.is_complex() else torch.float64
    rows = weight.movedim(place.dim, 0).flatten(1).to(wide)
    result = torch.zeros(len(place.units), dtype=torch.float64)
    group = np.searchsorted(offsets, place.units, side="right")
    for g in np.unique(group[place.units != NOWHERE]):
        at = np.flatnonzero(group == g)
        at = at[np.argsort(place.units[at], kind="stable")]
        each = len(at) // len(np.unique(place.units[at]))  # equal for all units of a group
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
    """A unit's share of the squared norms at least as large as its own in the group: n(u) /
    sum_{n(v) >= n(u)} n(v) for the squared norms n; of equal norms, the later unit counts as
    larger.

    LAMP (Lee et al. 2021, "Layer-adaptive Sparsity for the Magnitude-based Pruning", equation 5),
    with a group in the place of a layer, and the squared norm of everything removed with a unit in
    the place of a weight's square. ``criterion`` replaces the norm by any other score. Intended for
    one ranking over all groups.
    """

    criterion: Criterion = _L2

    def __str__(self) -> str:
        return "lamp" if self.criterion == _L2 else f"lamp of {self.criterion}"

    @property
    def needs(self) -> tuple[str, ...]:
        """The required statistics."""
        return needs_of(self.criterion)

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
