"""Runs in another precision than the model's own: all that is floating is of one type there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

_COMPLEX = {torch.float64: torch.complex128, torch.float32: torch.complex64}


def converted(tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    """A floating or complex tensor in the precision of ``dtype``, any other one as it is."""
    if dtype is None or tensor.layout is not torch.strided:
        return tensor
    return tensor.to(type_in(tensor.dtype, dtype))


def type_in(found: torch.dtype, dtype: torch.dtype) -> torch.dtype:
    """The type that takes the place of ``found``."""
    if found.is_complex:
        return _COMPLEX[dtype]
    return dtype if found.is_floating_point else found


class Precision(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch gives no types
    """Within it every operator reads and gives tensors of one floating type.

    Types that code or a graph name themselves (``x.float()``, ``dtype=torch.float32``) give way.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.dtype = dtype

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = (args, dict(kwargs or {}))
        mutable = func._schema.is_mutable  # memory that is written to is that of the caller
        args, kwargs = pytree.tree_map(self._named if mutable else self._converted, given)
        result = func(*args, **kwargs)
        return result if mutable else pytree.tree_map(self._converted, result)

    def _converted(self, leaf: Any) -> Any:
        if isinstance(leaf, torch.Tensor):
            return converted(leaf, self.dtype)
        return self._named(leaf)

    def _named(self, leaf: Any) -> Any:
        return type_in(leaf, self.dtype) if isinstance(leaf, torch.dtype) else leaf
