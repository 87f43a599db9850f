"""Criteria from activations: what the weights that consume a unit read of it.

A unit's activations are the values of its channels where a weight (of a linear layer or a
convolution) reads them, after whatever normalization and nonlinearity lies between; each such
weight is a member.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch

from planc.analysis import Analysis
from planc.criteria.additive import Additive
from planc.criteria.members import Members, Reduced, gathered
from planc.criteria.scores import Opinions, Weights
from planc.criteria.sources import Sources
from planc.criteria.statistics import INPUTS, Statistics
from planc.ir.graph import Tensor

COUNT, SUM, ABSOLUTE, SQUARE, ZEROS = range(5)


class Activation(ABC):
    """A criterion by a statistic of the values that a weight reads of a unit.

    As a criterion by itself: the mean over all weights that read the unit. It says nothing of
    groups that none reads.
    """

    @property
    def needs(self) -> tuple[str, ...]:
        """What the weights read."""
        return (INPUTS,)

    @abstractmethod
    def value(self, sums: torch.Tensor) -> torch.Tensor:
        """The statistic of each channel, from the sums ``[5, channels]`` of ``INPUTS``."""

    def __call__(
        self, analysis: Analysis, weights: Weights, statistics: Statistics | None = None
    ) -> Opinions:
        return Reduced(self, "mean")(analysis, weights, statistics)

    def members(
        self, analysis: Analysis, weights: Weights, statistics: Statistics | None = None
    ) -> Members:
        """The statistic of every unit, its mean over the unit's channels, in each weight that
        reads it.
        """
        sources = Sources(self, analysis, weights, statistics)
        of_places: list[torch.Tensor | None] = []
        for place in analysis.places.places:
            tensor = analysis.graph.tensors[place.tensor]
            role = sources.roles.get(tensor.value)
            sums = None
            if role is not None and place.dim == role.into:
                sums = sources.about(INPUTS, tensor, len(place.units))
            of_places.append(None if sums is None else self.value(sums))
        return gathered(analysis, of_places, within="mean")


@dataclass(frozen=True, slots=True)
class MeanActivation(Activation):
    """The mean absolute activation of a unit: mean |x| over examples and positions.

    Molchanov et al. 2017, "Pruning Convolutional Neural Networks for Resource Efficient
    Inference", section 2.2, the mean activation, here of absolute values.
    """

    def __str__(self) -> str:
        return "mean activation"

    def value(self, sums: torch.Tensor) -> torch.Tensor:
        """mean |x|."""
        return sums[ABSOLUTE] / sums[COUNT]


@dataclass(frozen=True, slots=True)
class NonzeroActivation(Activation):
    """The share of a unit's activations that are not zero: 1 - APoZ.

    Average percentage of zeros (Hu et al. 2016, "Network Trimming: A Data-Driven Neuron Pruning
    Approach towards Efficient Deep Architectures", equation 1): units that are mostly zero go
    first.
    """

    def __str__(self) -> str:
        return "nonzero activation"

    def value(self, sums: torch.Tensor) -> torch.Tensor:
        """mean [x != 0]."""
        return 1 - sums[ZEROS] / sums[COUNT]


@dataclass(frozen=True, slots=True)
class ActivationVariance(Activation):
    """The variance of a unit's activations over examples and positions: mean x^2 - (mean x)^2.

    A unit that never changes can be replaced by a constant (Polyak and Wolf 2015, "Channel-Level
    Acceleration of Deep Face Representations", section 3, Inbound Pruning).
    """

    def __str__(self) -> str:
        return "activation variance"

    def value(self, sums: torch.Tensor) -> torch.Tensor:
        """mean x^2 - (mean x)^2, no less than 0."""
        mean = sums[SUM] / sums[COUNT]
        return (sums[SQUARE] / sums[COUNT] - mean * mean).clamp(min=0)


@dataclass(frozen=True, slots=True)
class Wanda(Additive):
    """The sum of |w_ij| ||x_j||_2 over all weights that leave with a unit, ||x_j||_2 the norm of
    the input channel j over all examples and positions.

    Wanda (Sun et al. 2024, "A Simple and Effective Pruning Approach for Large Language Models",
    equation 1), summed over what leaves with a unit. Parameters that read no channels (biases,
    norms) count nothing.
    """

    def __str__(self) -> str:
        return "wanda"

    @property
    def needs(self) -> tuple[str, ...]:
        """What the weights read."""
        return (INPUTS,)

    def element(self, sources: Sources, tensor: Tensor) -> torch.Tensor | None:
        """|w_ij| ||x_j||_2."""
        role = sources.roles.get(tensor.value)
        if role is None or role.into is None:
            return None
        weight = sources.weight(tensor)
        channels = role.channels or weight.shape[role.into]
        found = sources.about(INPUTS, tensor, channels)
        if found is None:
            return None
        return weight.abs() * _along(found[SQUARE].sqrt().to(weight), weight, role.into)


def _along(channels: torch.Tensor, weight: torch.Tensor, into: int) -> torch.Tensor:
    """A value of each input channel beside the weights that read it; a grouped convolution's
    channels are those of its groups one after the other, and so are its outputs.
    """
    shape = [1] * weight.dim()
    shape[into] = weight.shape[into]
    groups = len(channels) // weight.shape[into]
    if groups == 1:
        return channels.view(shape)
    shape[0] = groups
    return channels.view(shape).repeat_interleave(weight.shape[0] // groups, 0)
