"""The digest of a model's weights: the same for a module, a state dict and files.

It is the SHA-256 over names, dtypes, shapes and digests of the values of all parameters. Buffers
are left out, because state dicts and files may lack them, and runs change them.

SHA-256 over all bytes would take a quarter of the time of a compilation. Large tensors are mixed
before, four times as fast, into a row of 64 KiB: ``row = mix(row ^ next row of values)``, where
``mix`` is a bijection of 64-bit words. Any change of one word changes the row; two changes cancel
by chance alone, one time in 2^64. It finds other weights, and is no protection against forgery.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from hashlib import sha256
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from planc.errors import PlancWarning
from planc.plan.fingerprint import canonical
from planc.plan.masks import MaskPlan
from planc.plan.plan import Plan

AnyPlan = TypeVar("AnyPlan", Plan, MaskPlan)

Row = tuple[str, tuple[int, ...], bytes]
"""A tensor's dtype as torch names it, its shape, and the digest of its values in C order."""


_LANES = 1 << 13
_ROW = 8 * _LANES
_FACTOR, _SHIFT = np.uint64(0x9E3779B97F4A7C15), np.uint64(32)


def values_digest(pieces: Iterable[NDArray[np.uint8]], length: int) -> bytes:
    """The digest of a tensor's values.

    Args:
        pieces: its bytes in order; all pieces but the last are multiples of 64 KiB.
        length: the number of all bytes. Below 64 KiB it is their SHA-256.
    """
    if length < _ROW:
        return sha256(b"".join(piece.tobytes() for piece in pieces)).digest()
    row, shifted = np.zeros(_LANES, "<u8"), np.zeros(_LANES, "<u8")
    for values in (values for piece in pieces for values in _rows(piece)):
        np.bitwise_xor(row, values, out=row)
        np.multiply(row, _FACTOR, out=row)
        np.right_shift(row, _SHIFT, out=shifted)
        np.bitwise_xor(row, shifted, out=row)
    return sha256(row.tobytes()).digest()


def _rows(piece: NDArray[np.uint8]) -> Iterator[NDArray[np.uint64]]:
    """The rows of a piece; the last is filled up with zeros."""
    whole = len(piece) // _ROW * _ROW
    yield from piece[:whole].view("<u8").reshape(-1, _LANES)
    if whole < len(piece):
        last = np.zeros(_ROW, np.uint8)
        last[: len(piece) - whole] = piece[whole:]
        yield last.view("<u8")


class Named(Protocol):
    """A tensor with all its names, such as :class:`planc.plan.plan.TensorSpec`."""

    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def kind(self) -> str: ...


def weights_digest(tensors: Iterable[Named], found: Mapping[str, Row]) -> bytes | None:
    """The digest of the parameters among ``tensors``; None if one of them is not found.

    Args:
        tensors: the tensors of the model.
        found: a row for each parameter, under any of its names.
    """
    rows = []
    for spec in tensors:
        if spec.kind == "parameter":
            row = next((found[name] for name in spec.names if name in found), None)
            if row is None:
                return None
            rows.append((sorted(spec.names), *row))
    return sha256(canonical(sorted(rows))).digest()


def with_origin(plan: AnyPlan, origin: str) -> AnyPlan:
    """The plan with another origin of the weights in its last provenance."""
    *rest, last = plan.provenance
    return replace(plan, provenance=(*rest, replace(last, origin=origin)))


def expected_weights(plan: Plan) -> bytes | None:
    """The digest of the weights of the model that the plan is for; None if unknown."""
    return plan.provenance[0].weights if plan.provenance else None


def warn_if_different(plan: Plan, found: bytes | None, where: str, stacklevel: int = 4) -> None:
    """Warn with PlancWarning if weights are not those that the plan was computed from.

    Training after planning is legitimate, so this is no error. Nothing is known, and nothing said,
    if either digest is None.

    Args:
        plan: the plan.
        found: the digest of the weights at hand.
        where: their name in the message.
        stacklevel: as for ``warnings.warn``.
    """
    expected = expected_weights(plan)
    if found is None or expected is None or found == expected:
        return
    warnings.warn(
        f"{where}: the weights differ from those that the plan was computed from (digest "
        f"{found.hex()[:16]}..., the plan has {expected.hex()[:16]}...); if they were not trained "
        "or converted since, compile the plan again",
        PlancWarning,
        stacklevel=stacklevel,
    )
