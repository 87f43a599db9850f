"""Digests of live weights: of a module, of a mapping, and of weights read one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import torch
from torch import nn

from planc.modules.memory import bytes_of
from planc.modules.tree import tensors_by_name
from planc.plan.plan import Plan
from planc.plan.weights import (
    Named,
    Row,
    expected_weights,
    values_digest,
    warn_if_different,
    weights_digest,
)

Weights: TypeAlias = nn.Module | Mapping[str, Any]


def row_of(tensor: torch.Tensor) -> Row | None:
    """Return a tensor's row; None without values, as on the meta device, and for sparse ones."""
    try:
        if tensor.is_meta or tensor.layout is not torch.strided or tensor.is_quantized:
            return None
        content = bytes_of(tensor)
    except (RuntimeError, TypeError, NotImplementedError):  # a subclass with a form of its own
        return None
    dtype = str(tensor.dtype).removeprefix("torch.")
    return dtype, tuple(tensor.shape), values_digest([content], len(content))


def digest_of(tensors: Iterable[Named], weights: Weights) -> bytes | None:
    """Return the digest of the parameters among ``tensors``; None if one has no values.

    Args:
        tensors: the tensors of the model.
        weights: the model, or its tensors by any of their names.
    """
    held: Mapping[str, Any]
    if isinstance(weights, nn.Module):
        held = tensors_by_name(weights)
    else:
        held = weights
    return HashedReads(held).digest(tensors)


def warn_if_other(plan: Plan, weights: Weights, where: str) -> None:
    """Warn if weights are not those that the plan was computed from; the caller's arguments are
    checked by :func:`planc.plan.arguments.takes`.

    Args:
        plan: the plan.
        weights: the model, or its tensors by name.
        where: their name in the message.
    """
    if expected_weights(plan) is not None:
        warn_if_different(plan, digest_of(plan.tensors, weights), where, stacklevel=5)


class HashedReads(Mapping[str, torch.Tensor]):
    """Weights that are hashed when they are first read, so that no file is read twice."""

    def __init__(self, weights: Any) -> None:
        self._weights = weights
        self._rows: dict[str, Row | None] = {}

    @property
    def meta(self) -> Mapping[str, torch.Tensor]:
        """The same names with tensors on the meta device."""
        found: Mapping[str, torch.Tensor] = self._weights.meta
        return found

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._read(name)

    def _read(self, name: str) -> torch.Tensor:
        tensor: torch.Tensor = self._weights[name]
        if name not in self._rows:
            self._rows[name] = row_of(tensor) if isinstance(tensor, torch.Tensor) else None
        return tensor

    def __contains__(self, name: object) -> bool:
        return name in self._weights

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)

    def digest(self, tensors: Iterable[Named]) -> bytes | None:
        """Return the digest of the parameters among ``tensors``; those not read yet are read."""
        parameters = [spec for spec in tensors if spec.kind == "parameter"]
        rows = {}
        for spec in parameters:
            there = [name for name in spec.names if name in self]
            if not there:
                return None
            name = next((name for name in there if name in self._rows), there[0])
            if name not in self._rows:
                self._read(name)
            row = self._rows[name]
            if row is None:
                return None
            rows[name] = row
        return weights_digest(parameters, rows)
