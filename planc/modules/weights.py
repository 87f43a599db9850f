"""Digests of live weights: of a module, of a mapping, and of weights read one by one.

Values are hashed by other threads while the caller works, because that takes a quarter of the time
of a compilation.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import sha256
from typing import Any, TypeAlias

import torch
from torch import nn

from planc.modules.memory import Bytes, bytes_of
from planc.modules.tree import owned_tensors
from planc.plan.plan import Plan
from planc.plan.weights import (
    Named,
    Row,
    expected_weights,
    warn_if_different,
    weights_digest,
)

_THREADS = 8
_PLAIN = (torch.Tensor, nn.Parameter)
Weights: TypeAlias = nn.Module | Mapping[str, Any]


def row_of(tensor: torch.Tensor) -> Row | None:
    """Return a tensor's row; None without values, as on the meta device, and for sparse ones."""
    content = _content(tensor)
    return None if content is None else _hashed(tensor, content)


def digest_of(tensors: Iterable[Named], weights: Weights) -> bytes | None:
    """Return the digest of the parameters among ``tensors``; None if one has no values.

    Args:
        tensors: the tensors of the model.
        weights: the model, or its tensors by any of their names.
    """
    with hashing(weights) as hashes:
        return hashes.digest(tensors)


def hashing(weights: Weights) -> Hashes | HashedReads:
    """Begin to hash weights: those in memory in the background, stored ones as they are read."""
    stored = not isinstance(weights, nn.Module) and hasattr(weights, "meta")
    return HashedReads(weights) if stored else Hashes(weights)


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


class Hashes:
    """The rows of tensors in memory; a context in which they are hashed in the background.

    Attributes:
        weights: the module or mapping with the tensors.
    """

    def __init__(self, weights: Weights) -> None:
        self.weights: Any = weights
        self._pool = ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1))
        self._rows: dict[str, Callable[[], Row | None]] = {}
        found: dict[int, Callable[[], Row | None]] = {}
        for name, tensor in _tensors(weights):
            if id(tensor) not in found:
                found[id(tensor)] = self._row(tensor)
            self._rows[name] = found[id(tensor)]

    def _row(self, tensor: torch.Tensor) -> Callable[[], Row | None]:
        """Begin to hash a tensor; one that has to be copied for it waits until it is asked for."""
        if type(tensor) not in _PLAIN or tensor.device.type != "cpu" or not tensor.is_contiguous():
            return lambda: row_of(tensor)
        content = _content(tensor)  # no copy, and no operator while the caller traces
        if content is None:
            return lambda: None
        return self._pool.submit(_hashed, tensor, content).result

    def digest(self, tensors: Iterable[Named]) -> bytes | None:
        """Return the digest of the parameters among ``tensors``; None if one has no values."""
        parameters = [spec for spec in tensors if spec.kind == "parameter"]
        rows = {}
        for spec in parameters:
            name = next((name for name in spec.names if name in self._rows), None)
            row = None if name is None else self._rows[name]()
            if row is None:
                return None
            rows[spec.names[0]] = row
        return weights_digest(parameters, rows)

    def __enter__(self) -> Hashes:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)


class HashedReads(Mapping[str, torch.Tensor]):
    """Weights read one by one, each hashed after its first reading: nothing is read twice.

    Attributes:
        weights: this mapping.
    """

    def __init__(self, stored: Any) -> None:
        self.weights, self._stored = self, stored
        self._pool = ThreadPoolExecutor(1)
        self._rows: dict[str, Future[Row | None]] = {}
        self._last: Future[Row | None] | None = None

    @property
    def meta(self) -> Mapping[str, torch.Tensor]:
        """The same names with tensors on the meta device."""
        found: Mapping[str, torch.Tensor] = self._stored.meta
        return found

    def __getitem__(self, name: str) -> torch.Tensor:
        tensor: torch.Tensor = self._stored[name]
        if name not in self._rows:
            if self._last is not None:
                self._last.result()  # at most one tensor waits
            self._last = self._rows[name] = self._pool.submit(row_of, tensor)
        return tensor

    def __contains__(self, name: object) -> bool:
        return name in self._stored

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)

    def digest(self, tensors: Iterable[Named]) -> bytes | None:
        """Return the digest of the parameters among ``tensors``; those not read yet are read."""
        parameters = [spec for spec in tensors if spec.kind == "parameter"]
        rows = {}
        for spec in parameters:
            stored = [name for name in spec.names if name in self]
            read = next((name for name in stored if name in self._rows), stored[0])
            self[read]
            row = self._rows[read].result()
            if row is None:
                return None
            rows[spec.names[0]] = row
        return weights_digest(parameters, rows)

    def __enter__(self) -> HashedReads:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)


def _tensors(weights: Weights) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(weights, nn.Module):
        for owned in owned_tensors(weights):
            if owned.kind == "parameter":
                yield from ((name, owned.tensor) for name in owned.names)
        return
    yield from (
        (name, tensor) for name, tensor in weights.items() if isinstance(tensor, torch.Tensor)
    )


def _content(tensor: torch.Tensor) -> Bytes | None:
    try:
        if tensor.is_meta or tensor.layout is not torch.strided or tensor.is_quantized:
            return None
        return bytes_of(tensor)
    except (RuntimeError, TypeError, NotImplementedError):  # a subclass with a form of its own
        return None


def _hashed(tensor: torch.Tensor, content: Bytes) -> Row:
    dtype = str(tensor.dtype).removeprefix("torch.")
    return dtype, tuple(tensor.shape), sha256(content.data).digest()
