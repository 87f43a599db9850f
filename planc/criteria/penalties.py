"""Sparse training: penalties driving units to zero, as additional terms of a loss.

Each penalty maps a model in training to a differentiable tensor of one number. Whole rows with
cells inside (heads, convolution groups) are left to the penalty of their cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import nn

from planc.analysis import Analysis
from planc.analysis.places import NOWHERE
from planc.criteria.additive import positive
from planc.criteria.roles import scales
from planc.criteria.scores import check_weights, named_in
from planc.criteria.sums import place_sums, power
from planc.errors import AnalysisError, PolicyError, StalePlan
from planc.plan.plan import Plan


@dataclass(frozen=True, eq=False)
class UnitSquares:
    """For each unit, the differentiable sum of the squares of its parameters: ``[units]``.

    A parameter in two dimensions of one unit counts in each. Units are in the order of all groups,
    as in ``analysis.places``.

    Raises:
        StalePlan: (when called) a parameter is missing or differs in shape from the traced one.
    """

    analysis: Analysis

    def __call__(self, model: nn.Module) -> torch.Tensor:
        weights = _parameters(self.analysis, model)
        places = self.analysis.places
        parts: list[tuple[int, torch.Tensor]] = []
        device = next(iter(weights.values())).device if weights else torch.device("cpu")
        for number, positions in places.by_tensor.items():
            own = [places.places[position] for position in positions]
            sums = place_sums(power(weights[number], 2), own)
            parts += zip(positions, (part.to(device) for part in sums), strict=True)
        if not parts:
            return torch.zeros(places.count, device=device)
        joined = torch.cat([part.reshape(-1) for _, part in sorted(parts, key=lambda x: x[0])])
        at, unit = (index.to(device) for index in self._indices)
        return joined.new_zeros(places.count).index_add(0, unit, joined[at])

    @cached_property
    def _indices(self) -> tuple[torch.Tensor, torch.Tensor]:
        every = self.analysis.places.indices
        return torch.from_numpy(every.at), torch.from_numpy(every.unit)

    @cached_property
    def free(self) -> torch.Tensor:
        """``[units]``: 1 for units of penalised groups, 0 for whole rows."""
        rowed = self.analysis.grouping.rowed
        sizes = [group.size for group in self.analysis.groups]
        return torch.tensor([float(g not in rowed) for g in range(len(sizes))]).repeat_interleave(
            torch.tensor(sizes, dtype=torch.int64)
        )


@dataclass(frozen=True, eq=False)
class GroupNorm:
    """The group norm of DepGraph: sum_k gamma_k I_k^2 over all units k.

    I_k^2 is the sum of the squares of the unit's parameters, and gamma_k = 2^(alpha (max I - I_k) /
    (max I - min I)) within each group, so that the weakest units shrink 2^alpha times as fast as
    the strongest. Fang et al. 2023, "DepGraph: Towards Any Structural Pruning", equations 4 and 5,
    alpha = 4.

    Usage: ``loss = task + 1e-4 * penalty(model)``, with gamma following the weights. To update
    gamma once an epoch instead, pass ``gamma = penalty.strengths(model)`` as ``penalty(model,
    gamma)``.

    Raises:
        PolicyError: ``alpha`` is not a finite number above 0.
    """

    analysis: Analysis
    alpha: float = 4

    def __post_init__(self) -> None:
        positive(self.alpha, "alpha")

    @cached_property
    def _squares(self) -> UnitSquares:
        return UnitSquares(self.analysis)

    def strengths(self, model: nn.Module) -> torch.Tensor:
        """gamma of each unit at the model's weights, without gradient: ``[units]``."""
        with torch.no_grad():
            return self._strengths(self._squares(model))

    def __call__(self, model: nn.Module, strengths: torch.Tensor | None = None) -> torch.Tensor:
        squares = self._squares(model)
        gamma = self._strengths(squares.detach()) if strengths is None else strengths
        if gamma.shape != squares.shape:
            raise PolicyError(
                f"strengths of shape {tuple(gamma.shape)} for {len(squares)} units: take them from "
                "strengths(model)"
            )
        return (gamma * self._squares.free.to(gamma) * squares).sum()

    def _strengths(self, squares: torch.Tensor) -> torch.Tensor:
        sizes = [group.size for group in self.analysis.groups]
        parts = [
            self.alpha * (norms.max() - norms) / (norms.max() - norms.min()).clamp(min=1e-12)
            for norms in torch.split(squares.sqrt(), sizes)
        ]
        return torch.exp2(torch.cat(parts)) if parts else squares


@dataclass(frozen=True, eq=False)
class BatchNormPenalty:
    """The sum of |gamma| over the scales of batch normalizations with removable channels.

    Network slimming (Liu et al. 2017, "Learning Efficient Convolutional Networks through Network
    Slimming", equation 1, g(gamma) = |gamma|). Usage: ``loss = task + 1e-4 * penalty(model)``.

    Raises:
        AnalysisError: there are no such scales.
    """

    analysis: Analysis

    def __post_init__(self) -> None:
        if not self._own:
            raise AnalysisError(
                "no channels that may go have a batch normalization: use GroupNorm(analysis)"
            )

    @cached_property
    def _own(self) -> tuple[tuple[int, torch.Tensor], ...]:
        """The number of each scale, and the mask of its removable channels."""
        graph, found = self.analysis.graph, scales(self.analysis.graph)
        return tuple(
            (place.tensor, torch.from_numpy(place.units != NOWHERE))
            for place in self.analysis.places.places
            if graph.tensors[place.tensor].value in found
        )

    def __call__(self, model: nn.Module) -> torch.Tensor:
        weights = _parameters(self.analysis, model)
        parts = []
        for number, free in self._own:
            scale = weights[number]
            parts.append((scale.abs() * free.to(scale)).sum())
        return torch.stack([part.to(parts[0].device) for part in parts]).sum()


@dataclass(frozen=True, eq=False)
class Growing:
    """Growing regularisation of the units removed by a plan: lambda(t) / 2 times the sum of the
    squares of their parameters, lambda(t) = min(ceiling, delta floor(t / every)) at step t.

    Wang et al. 2021, "Neural Pruning via Growing Regularization", section 3.2 (GReg-1): the units
    are chosen first, then pushed out with growing force, so that the others take over while the
    model can still learn. Usage: ``loss = task + penalty(model, step)``, then apply the plan.

    Raises:
        StalePlan: the plan belongs to another model.
        PolicyError: a number is not above 0.
    """

    analysis: Analysis
    plan: Plan
    delta: float = 1e-4
    every: int = 10
    ceiling: float = 1.0

    def __post_init__(self) -> None:
        positive(self.delta, "delta")
        positive(self.every, "every")
        positive(self.ceiling, "ceiling")
        planned = [(group.name, group.size) for group in self.plan.groups]
        for group, found in zip(self.analysis.groups, planned, strict=False):
            if (group.name, group.size) != found:
                raise StalePlan(
                    f"the plan has the group {found[0]} of {found[1]} units where the analysis has "
                    f"{group}; compile a plan for this model"
                )
        if len(planned) != len(self.analysis.groups):
            raise StalePlan(
                f"the plan has {len(planned)} groups, the analysis {len(self.analysis.groups)}; "
                "compile a plan for this model"
            )

    @cached_property
    def _squares(self) -> UnitSquares:
        return UnitSquares(self.analysis)

    @cached_property
    def _removed(self) -> torch.Tensor:
        places = self.analysis.places
        chosen = np.zeros(places.count)
        for start, group in zip(places.offsets.tolist(), self.plan.groups, strict=False):
            chosen[start + np.asarray(group.removed, dtype=np.int64)] = 1
        return torch.from_numpy(chosen)

    def strength(self, step: int) -> float:
        """lambda at a step."""
        return min(self.ceiling, self.delta * (step // self.every))

    def __call__(self, model: nn.Module, step: int) -> torch.Tensor:
        squares = self._squares(model)
        return self.strength(step) / 2 * (squares * self._removed.to(squares)).sum()


def _parameters(analysis: Analysis, model: nn.Module) -> dict[int, torch.Tensor]:
    """The parameters by their number in the graph, as trained."""
    found = dict(model.named_parameters(remove_duplicate=False))
    check_weights(analysis, found)
    by_number = {n: named_in(found, tensor) for n, tensor in enumerate(analysis.graph.tensors)}
    return {n: weight for n, weight in by_number.items() if weight is not None}
