"""Known values: tensors with a mask of the coordinates that are the same for all inputs.

Arithmetic is the model's. Activations are assumed finite, so 0 * x = 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """``value`` where ``known``, zero elsewhere. Both have the shape of the tensor in the model.

    ``weighs`` is True if each line along the last dimension sums to one for all inputs, as after a
    softmax.
    """

    value: Tensor
    known: Tensor
    weighs: bool = False

    @property
    def maybe(self) -> Tensor:
        """Mask of the coordinates that may be nonzero."""
        return ~self.known | (self.value != 0)

    @property
    def everywhere(self) -> bool:
        """True if every coordinate is known."""
        return bool(self.known.all())


def constant(value: Tensor) -> Known:
    """A tensor known everywhere."""
    return Known(value, torch.ones_like(value, dtype=torch.bool))


def unknown(shape: tuple[int, ...], like: Tensor) -> Known:
    """A tensor known nowhere."""
    value = like.new_zeros(shape)
    return Known(value, torch.zeros_like(value, dtype=torch.bool))


def known(value: Tensor, where: Tensor) -> Known:
    """A tensor known in places, by a mask that broadcasts to it."""
    where = where.expand(value.shape)
    return Known(torch.where(where, value, torch.zeros_like(value)), where)


def values(argument: Any) -> Any:
    """An argument with known operands replaced by their values."""
    return _mapped(argument, lambda operand: operand.value)


def masks(argument: Any) -> Any:
    """An argument with known operands replaced by their masks as floating-point ones and zeros."""
    return _mapped(argument, lambda operand: operand.known.float())


def operands(argument: Any) -> list[Known]:
    """The known operands in an argument, in order."""
    if isinstance(argument, Known):
        return [argument]
    if isinstance(argument, tuple):
        return [operand for item in argument for operand in operands(item)]
    return []


def _mapped(argument: Any, of: Callable[[Known], Tensor]) -> Any:
    if isinstance(argument, Known):
        return of(argument)
    if isinstance(argument, tuple):
        return tuple(_mapped(item, of) for item in argument)
    return argument
