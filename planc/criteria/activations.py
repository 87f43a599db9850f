"""Criteria from activations: statistics of a unit's channels as the consuming weights read them.

A unit's activations are the values of its channels at the input of a weight (of a linear layer or a
convolution), after any normalization and nonlinearity in between. Each consuming weight is a
member.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch

from planc.analysis.places import Place
from planc.criteria.additive import Additive
from planc.criteria.members import PlaceCriterion
from planc.criteria.roles import Role
from planc.criteria.sources import Sources
from planc.criteria.statistics import INPUTS
from planc.ir.graph import Tensor

COUNT, SUM, ABSOLUTE, SQUARE, ZEROS = range(5)


class Activation(PlaceCriterion):
    """A criterion by a statistic of a unit's values at the input of the weights.

    Called as a criterion: the mean over all weights reading the unit. Undefined for groups without
    such a weight.
    """

    WITHIN = "mean"
    needs: ClassVar[tuple[str, ...]] = (INPUTS,)

    @abstractmethod
    def value(self, sums: torch.Tensor) -> torch.Tensor:
        """The statistic of each channel, from the sums ``[5, channels]`` of ``INPUTS``."""

    def values(
        self, sources: Sources, tensor: Tensor, role: Role, place: Place
    ) -> torch.Tensor | None:
        """The statistic of each input channel, None in other dimensions."""
        sums = None
        if place.dim == role.into:
            sums = sources.about(INPUTS, tensor, len(place.units))
        return None if sums is None else self.value(sums)


@dataclass(frozen=True, slots=True)
class MeanActivation(Activation):
    """The mean absolute activation of a unit: mean |x| over examples and positions.

    Molchanov et al. 2017, "Pruning Convolutional Neural Networks for Resource Efficient Inference",
    section 2.2, the mean activation, here of absolute values.
    """

    def __str__(self) -> str:
        return "mean activation"

    def value(self, sums: torch.Tensor) -> torch.Tensor:
        """mean |x|."""
        return sums[ABSOLUTE] / sums[COUNT]


@dataclass(frozen=True, slots=True)
class NonzeroActivation(Activation):
    """The share of nonzero activations of a unit: 1 - APoZ.

    Average percentage of zeros (Hu et al. 2016, "Network Trimming: A Data-Driven Neuron Pruning
    Approach towards Efficient Deep Architectures", equation 1): mostly zero units are removed
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

    A constant replaces a unit without variation (Polyak and Wolf 2015, "Channel-Level Acceleration
    of Deep Face Representations", section 3, Inbound Pruning).
    """

    def __str__(self) -> str:
        return "activation variance"

    def value(self, sums: torch.Tensor) -> torch.Tensor:
        """mean x^2 - (mean x)^2, no less than 0."""
        mean = sums[SUM] / sums[COUNT]
        return (sums[SQUARE] / sums[COUNT] - mean * mean).clamp(min=0)


@dataclass(frozen=True, slots=True)
class Wanda(Additive):
    """The sum of |w_ij| ||x_j||_2 over all weights removed with a unit; ||x_j||_2 is the norm of
    the input channel j over all examples and positions.

    Wanda (Sun et al. 2024, "A Simple and Effective Pruning Approach for Large Language Models",
    equation 1), summed over the weights of a unit. Parameters without input channels (biases,
    norms) do not count.
    """

    needs: ClassVar[tuple[str, ...]] = (INPUTS,)

    def __str__(self) -> str:
        return "wanda"

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
    """The value of each input channel, broadcast to the weights reading it.

    The channels of a grouped convolution are those of its groups one after the other, and so are
    its outputs.
    """
    shape = [1] * weight.dim()
    shape[into] = weight.shape[into]
    groups = len(channels) // weight.shape[into]
    if groups == 1:
        return channels.view(shape)
    shape[0] = groups
    return channels.view(shape).repeat_interleave(weight.shape[0] // groups, 0)
