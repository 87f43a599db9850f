"""Calls of operators on known values, and the functions that propagate through them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from planc.analysis.constants.known import Known, values

Operator = Callable[..., Any]


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """An operator with its arguments, tensors among them as :class:`Known`."""

    operator: Operator
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def value(self) -> Any:
        """The operator's own result, right where the operands are known."""
        named = {name: values(arg) for name, arg in self.kwargs.items()}
        return self.operator(*values(self.args), **named)


Transfer = Callable[[Call], Any]
TRANSFERS: dict[str, Transfer] = {}


def transfers(*names: str) -> Callable[[Transfer], Transfer]:
    """Register a transfer function for operators, named without overload."""

    def register(transfer: Transfer) -> Transfer:
        TRANSFERS.update(dict.fromkeys(" ".join(names).split(), transfer))
        return transfer

    return register


def alike(x: Known, dim: int) -> tuple[Tensor, Tensor]:
    """Mask of positions known to be equal along ``dim``, and their value."""
    if not x.value.shape[dim]:
        none = x.known.sum(dim, keepdim=True)
        return none > 0, none.to(x.value.dtype)
    first = x.value.narrow(dim, 0, 1)
    return (x.known & (x.value == first)).all(dim, keepdim=True), first
