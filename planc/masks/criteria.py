"""Criteria of single elements: a score for each element of a parameter."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Protocol

import numpy as np
import torch
from torch import nn

from planc.criteria import NAMES, Additive, Statistics, named
from planc.criteria.random import checked_seed
from planc.criteria.roles import Role
from planc.criteria.sources import Sources
from planc.criteria.statistics import INPUTS, needed, needs_of
from planc.errors import PolicyError
from planc.ir.graph import Tensor
from planc.plan.arguments import function_of

_INPUTS_FIRST = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_INPUTS_SECOND = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_SUMMED = ("taylor", "obd", "wanda")
ELEMENT_NAMES = ("magnitude", "l1", "l2", "random", *_SUMMED)
"""The names of element criteria."""


class ElementCriterion(Protocol):
    """A pure function from a tensor to a score per element; ``str`` of it is its name in plans."""

    def __call__(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """Return real scores in the shape of ``tensor``; the lowest are removed first.

        Args:
            name: the parameter's full name.
            tensor: its values, of any shape, without gradient.
        """


@dataclass(frozen=True, slots=True)
class ElementMagnitude:
    """The magnitude |w| of each element, LeCun et al.'s baseline for optimal brain damage, 1989."""

    def __str__(self) -> str:
        return "magnitude"

    def __call__(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.abs()


@dataclass(frozen=True, slots=True)
class RandomElements:
    """Uniform scores in [0, 1), determined by the seed and the tensor's name.

    Args:
        seed: an integer from 0 to 2^63 - 1.
    """

    seed: int = 0

    def __str__(self) -> str:
        return "random"

    def __call__(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        digest = sha256(f"{checked_seed(self.seed)} {name}".encode()).digest()
        generator = np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))
        return torch.from_numpy(generator.random(tuple(tensor.shape)))


@dataclass(frozen=True, eq=False)
class Summands:
    """The quantity of each element that a criterion of units sums: |w| ||x|| for Wanda (Sun et al.
    2024, equation 1), w^2 g^2 for Taylor, h w^2 / 2 for optimal brain damage.

    Args:
        criterion: the criterion of units.
        model: the model of the parameters.
        statistics: the result of :func:`planc.calibrate`, if the criterion needs them.
    """

    criterion: Additive
    model: nn.Module
    statistics: Statistics | None = None

    def __str__(self) -> str:
        return str(self.criterion)

    def __call__(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        if (found := self.of(name, tensor)) is None:
            raise PolicyError(
                f"{self} says nothing of {name}: calibration has seen no operator that reads its "
                f"inputs; leave it out with keep=({name!r},)"
            )
        return found

    def of(self, name: str, tensor: torch.Tensor) -> torch.Tensor | None:
        """The scores, None for a parameter about which the criterion says nothing."""
        own = Tensor((name,), tuple(tensor.shape), "", "parameter", 0, tensor.element_size())
        sources = _One(self.criterion, None, {name: tensor}, self.statistics, self.model)  # type: ignore[arg-type]
        return self.criterion.element(sources, own)


@dataclass(frozen=True, eq=False)
class _One(Sources):
    """One parameter in place of a model's analysis."""

    model: nn.Module

    @cached_property
    def roles(self) -> Mapping[int, Role]:  # type: ignore[override]
        """The output and input dimensions of the parameter, if its inputs were collected."""
        ((name, tensor),) = self.weights.items()
        found = None if self.statistics is None else self.statistics.find(INPUTS, (name,))
        if found is None or tensor.dim() < 2:
            return {}
        channels = found.shape[-1]
        into = self._input_dimension(name, tensor, channels)
        return {0: Role(1 - into, into, channels)}

    def _input_dimension(self, name: str, tensor: torch.Tensor, channels: int) -> int:
        path, _, own = name.rpartition(".")
        module = self.model.get_submodule(path)
        if own == "weight" and isinstance(module, _INPUTS_SECOND + _INPUTS_FIRST):
            return int(isinstance(module, _INPUTS_SECOND))
        if tensor.shape[0] == tensor.shape[1]:
            raise PolicyError(
                f"{name} is square, and {type(module).__name__} does not say which of its "
                f"dimensions is that of the inputs; leave it out with keep=({name!r},)"
            )
        return int(tensor.shape[1] == channels)


def element_criterion(
    criterion: str | ElementCriterion | Additive,
    model: nn.Module,
    statistics: Statistics | None,
    seed: int,
) -> ElementCriterion:
    """Return the criterion itself, the one of that name, or the summands of a criterion of units.

    Raises:
        PolicyError: the name is unknown, or names a criterion of whole units; statistics are
            missing.
    """
    if isinstance(criterion, str):
        if criterion == "random":
            return RandomElements(checked_seed(seed))
        if criterion not in ELEMENT_NAMES:
            raise _unknown(criterion)
        if criterion not in _SUMMED:
            return ElementMagnitude()
        summed = named(criterion)
        assert isinstance(summed, Additive)
        criterion = summed
    if isinstance(criterion, Additive):
        if needs_of(criterion):
            needed(criterion, statistics)
        return Summands(criterion, model, statistics)
    found: ElementCriterion = function_of("name", "tensor")("criterion", criterion)
    return found


def _unknown(name: str) -> PolicyError:
    why = "measures units, not elements" if name in NAMES else "is unknown"
    near = difflib.get_close_matches(name, ELEMENT_NAMES, n=1)
    return PolicyError(
        f"criterion {name!r} {why}: choose one of {', '.join(ELEMENT_NAMES)}, or give a function "
        f"of a name and a tensor{f'; did you mean {near[0]}?' if near else ''}"
    )
