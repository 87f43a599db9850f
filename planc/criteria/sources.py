"""The inputs of a criterion: the tensors of a model and its statistics, by the graph's tensors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from planc.analysis import Analysis
from planc.criteria.roles import Role, roles, scales
from planc.criteria.scores import Weights, named_in
from planc.criteria.statistics import Statistics, needed
from planc.errors import PolicyError, StalePlan
from planc.ir.graph import Tensor


@dataclass(frozen=True, eq=False)
class Sources:
    """The arguments of a criterion, looked up by tensor.

    All values come detached, and in single precision if stored in a lower one.
    """

    criterion: object
    analysis: Analysis
    weights: Weights
    statistics: Statistics | None

    @cached_property
    def roles(self) -> dict[int, Role]:
        """The role of every matrix, by its value in the graph."""
        return roles(self.analysis.graph)

    @cached_property
    def scales(self) -> frozenset[int]:
        """The scales of batch normalizations, as values of the graph."""
        return scales(self.analysis.graph)

    def weight(self, tensor: Tensor) -> torch.Tensor:
        """The values of a parameter.

        Raises:
            PolicyError: it is on the meta device and has no values.
        """
        return widened(self._stored(tensor).detach())

    def _stored(self, tensor: Tensor) -> torch.Tensor:
        found = named_in(self.weights, tensor)
        assert found is not None  # check_weights has seen it
        if found.is_meta:
            raise PolicyError(
                f"{tensor.name} is on the meta device and has no values to measure: load the "
                'weights, or choose the criterion "random"'
            )
        return found

    def mean(self, quantity: str, tensor: Tensor) -> torch.Tensor:
        """The mean over the batches of a quantity of the parameter's shape, on its device and in
        its dtype.

        Raises:
            PolicyError: it was not collected.
            StalePlan: it was collected from another model.
        """
        weight = self.weight(tensor)
        statistics = needed(self.criterion, self.statistics)
        found = statistics.mean(quantity, tensor.names, tensor.shape)
        return found.to(weight.device, weight.dtype)

    def about(self, quantity: str, tensor: Tensor, size: int) -> torch.Tensor | None:
        """A quantity collected for some parameters only, None for the others.

        Raises:
            PolicyError: it was not collected.
            StalePlan: its last dimension is not of ``size``: it was collected from another model.
        """
        found = needed(self.criterion, self.statistics).find(quantity, tensor.names)
        if found is not None and found.shape[-1] != size:
            raise StalePlan(
                f"statistics: {quantity} of {tensor.name} are of {found.shape[-1]} channels, the "
                f"parameter has {size}; calibrate this model"
            )
        return found


def widened(tensor: torch.Tensor) -> torch.Tensor:
    """Half precision as single; everything else unchanged."""
    if tensor.dtype in (torch.float32, torch.float64) or tensor.is_complex():
        return tensor
    return tensor.float()
