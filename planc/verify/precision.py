"""Runs in a precision other than the model's own, with all floating-point tensors of one type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

_COMPLEX = {torch.float64: torch.complex128, torch.float32: torch.complex64}


def converted(tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    """Return a floating-point or complex tensor in the precision of ``dtype``, others unchanged."""
    if dtype is None or tensor.layout is not torch.strided:
        return tensor
    return tensor.to(type_in(tensor.dtype, dtype))


def type_in(found: torch.dtype, dtype: torch.dtype) -> torch.dtype:
    """Return the replacement of the type ``found``."""
    if found.is_complex:
        return _COMPLEX[dtype]
    return dtype if found.is_floating_point else found


class Precision(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch gives no types
    """Context in which every operator reads and returns tensors of one floating-point type.

    Types named explicitly by code or a graph (``x.float()``, ``dtype=torch.float32``) are replaced,
    too.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.dtype = dtype

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = (args, dict(kwargs or {}))
        mutable = func._schema.is_mutable  # writes must reach the caller's memory
        args, kwargs = pytree.tree_map(self._named if mutable else self._converted, given)
        result = func(*args, **kwargs)
        return result if mutable else pytree.tree_map(self._converted, result)

    def _converted(self, leaf: Any) -> Any:
        if isinstance(leaf, torch.Tensor):
            return converted(leaf, self.dtype)
        return self._named(leaf)

    def _named(self, leaf: Any) -> Any:
        return type_in(leaf, self.dtype) if isinstance(leaf, torch.dtype) else leaf
