"""Criteria from gradients of the loss: Taylor expansions of first and second order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch

from planc.analysis import Analysis
from planc.analysis.places import NOWHERE, Place
from planc.criteria.additive import Additive
from planc.criteria.changes import mean_changes, mean_member_changes
from planc.criteria.members import Members, PlaceCriterion, Values
from planc.criteria.roles import Role
from planc.criteria.scores import Opinions, Weights
from planc.criteria.sources import Sources
from planc.criteria.statistics import (
    ABSOLUTE_GRADIENT,
    CHANGES,
    KRONECKER,
    KRONECKER_OUT,
    SQUARED_GRADIENT,
    Statistics,
    needed,
)
from planc.errors import PolicyError
from planc.ir.graph import Tensor


@dataclass(frozen=True, slots=True)
class Taylor(Additive):
    """The first-order change of the loss on removal of a unit, averaged over the batches; g is the
    gradient of one batch.

    The power p (1 or 2) is taken before the mean, because changes of opposite sign would cancel,
    increasingly so in a well-trained model.

    ``per="element"``: sum |w g|^p over everything removed with the unit (Molchanov et al. 2019,
    "Importance Estimation for Neural Network Pruning", equation 9, p = 2; Molchanov et al. 2017,
    "Pruning Convolutional Neural Networks for Resource Efficient Inference", equation 7, for
    weights, p = 1). ``per="unit"``: |sum w g|^p (Molchanov et al. 2019, equation 8, p = 2, averaged
    over minibatches, with the group in the place of a filter). Elements are the default, because
    they prune better, before and after fine-tuning (``python -m tests.bench.digits``).

    ``Reduced(Taylor("unit"), "sum")`` raises each member's sum to the power before adding them.

    Raises:
        PolicyError: ``per`` or ``p`` has another value.
    """

    per: Literal["element", "unit"] = "element"
    p: Literal[1, 2] = 2

    def __post_init__(self) -> None:
        if isinstance(self.p, bool) or self.p not in (1, 2):
            raise PolicyError(f"p={self.p!r}: choose 1 or 2, the means that calibration takes")
        if self.per not in ("unit", "element"):
            raise PolicyError(f'per={self.per!r}: choose "unit" or "element"')

    def __str__(self) -> str:
        return f"taylor per {self.per}, p={self.p:g}"

    @property
    def needs(self) -> tuple[str, ...]:
        """The changes of each batch, or the mean size of the gradient."""
        return (CHANGES,) if self.per == "unit" else (self._of_gradient,)

    @property
    def _of_gradient(self) -> str:
        return ABSOLUTE_GRADIENT if self.p == 1 else SQUARED_GRADIENT

    def element(self, sources: Sources, tensor: Tensor) -> torch.Tensor:
        """|w|^p times the mean of |g|^p."""
        power = sources.weight(tensor).abs() ** self.p
        return power * sources.mean(self._of_gradient, tensor).real

    def finish(self, sums: Values) -> Values:
        """Clamp rounding errors below 0."""
        scores: Values = np.maximum(sums, 0)
        return scores

    def __call__(
        self, analysis: Analysis, weights: Weights, statistics: Statistics | None = None
    ) -> Opinions:
        if self.per == "element":
            return Additive.__call__(self, analysis, weights, statistics)
        return mean_changes(analysis, needed(self, statistics), self.p)

    def members(
        self, analysis: Analysis, weights: Weights, statistics: Statistics | None = None
    ) -> Members:
        """The importance of every unit in each of its members."""
        if self.per == "element":
            return Additive.members(self, analysis, weights, statistics)
        return mean_member_changes(analysis, needed(self, statistics), self.p)


@dataclass(frozen=True, slots=True)
class OptimalBrainDamage(Additive):
    """The second-order change of the loss on removal of a unit: sum 1/2 h w^2, with the diagonal of
    the empirical Fisher information, h = mean g^2, in place of the Hessian's.

    Optimal brain damage (LeCun et al. 1990, equation 3: the saliency h w^2 / 2) with the Fisher
    approximation (Theis et al. 2018, "Faster gaze prediction with dense networks and Fisher
    pruning", equation 9). Each batch gives one g: exact for batches of one example.
    """

    needs: ClassVar[tuple[str, ...]] = (SQUARED_GRADIENT,)

    def __str__(self) -> str:
        return "optimal brain damage"

    def element(self, sources: Sources, tensor: Tensor) -> torch.Tensor:
        """1/2 h w^2."""
        weight = sources.weight(tensor).abs()
        return weight * weight * sources.mean(SQUARED_GRADIENT, tensor).real / 2

    def finish(self, sums: Values) -> Values:
        """Clamp rounding errors below 0."""
        scores: Values = np.maximum(sums, 0)
        return scores


@dataclass(frozen=True, slots=True)
class KroneckerDamage(PlaceCriterion):
    """The second-order change of the loss on removal of a unit's filters, with Kronecker factors in
    place of the Hessian: 1/2 sum_{i, j in unit} S_ij w_i^T A w_j over the rows w_i of a weight.

    C-OBD (Wang et al. 2019, "EigenDamage: Structured Pruning in the Kronecker-Factored Eigenbasis",
    section 3.1, for units of one row: 1/2 S_ii w_i^T A w_i), with the factors of KFAC for linear
    layers (Martens and Grosse 2015) and convolutions (Grosse and Martens 2016). Covers the weights
    of ``nn.Linear``, ``nn.Conv1d`` and ``nn.Conv2d`` without channel groups; biases are left out.
    Called as a criterion: the sum over all weights producing the unit. Undefined for groups without
    such a weight.
    """

    REDUCTION = "sum"
    needs: ClassVar[tuple[str, ...]] = (KRONECKER,)

    def __str__(self) -> str:
        return "kronecker damage"

    def values(
        self, sources: Sources, tensor: Tensor, role: Role, place: Place
    ) -> torch.Tensor | None:
        """The damage of each unit, in the output dimension of a weight."""
        makes = place.dim == role.out == 0 and place.blocks == 1
        return _damage(sources, tensor, place) if makes else None


def _damage(sources: Sources, tensor: Tensor, place: Place) -> torch.Tensor | None:
    """For each row of a weight, its part of the damage: 1/2 sum_j S_ij w_i^T A w_j over the rows j
    of the same unit.
    """
    rows = sources.weight(tensor).flatten(1).double()
    inputs = sources.about(KRONECKER, tensor, rows.shape[1])
    outputs = sources.about(KRONECKER_OUT, tensor, rows.shape[0])
    if inputs is None or outputs is None or sources.statistics is None:
        return None
    batches = sources.statistics.batches
    inputs, outputs = (factor.to(rows) / batches for factor in (inputs, outputs))
    units = place.units
    if len(np.unique(units[units != NOWHERE])) == (units != NOWHERE).sum():
        return ((rows @ inputs) * rows).sum(1) * outputs.diagonal() / 2
    unit = torch.from_numpy(units).to(rows.device)
    together = (rows @ inputs @ rows.T) * outputs
    return (together * (unit[:, None] == unit[None, :])).sum(1) / 2
