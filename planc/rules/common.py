"""Arguments of operators in the form that rules of many families need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from planc.rules.labels import Labelled, lift
from planc.rules.labels.facts import Facts


def operand(value: Any) -> Labelled:
    """A tensor operand; numbers are tensors without dimensions."""
    return value if isinstance(value, Labelled) else Labelled(())


def axis(x: Labelled, dim: int) -> int:
    """A dimension counted from the front."""
    return dim % x.rank if x.rank else 0


def axes(x: Labelled, dims: int | Sequence[int] | None) -> tuple[int, ...]:
    """Dimensions counted from the front; all of them for None or an empty tuple."""
    if dims is None or dims == ():
        return tuple(range(x.rank))
    if isinstance(dims, int):
        return (axis(x, dims),)
    return tuple(axis(x, dim) for dim in dims)


def pin_dims(facts: Facts, x: Labelled, dims: Sequence[int], reason: str) -> Labelled:
    """``x`` without the layers targeting ``dims``, pinning those layers."""
    gone = set(dims)
    doomed = [layer for layer in x.layers if layer.target in gone]
    if not doomed:
        return x
    facts.pin(doomed, reason)
    return Labelled(x.shape, tuple(layer for layer in x.layers if layer.target not in gone))


def per_dim(value: Any, count: int) -> tuple[int, ...]:
    """One number for each of ``count`` dimensions, repeating a single number."""
    given = (value,) if isinstance(value, int) else tuple(value)
    return given * count if len(given) == 1 else given


def looking_along(first: int, kernel: Any, stride: Any, *paddings: Any) -> list[int]:
    """The dimensions, from ``first`` on, along which a sliding window combines or skips positions;
    along the others it treats each coordinate separately.
    """
    count = len(kernel)
    steps = per_dim(stride, count) if stride else kernel
    rims = [per_dim(padding, count) for padding in paddings]
    return [
        first + i
        for i in range(count)
        if kernel[i] != 1 or steps[i] != 1 or any(rim[i] != 0 for rim in rims)
    ]


def vector(x: Labelled, dim: int, rank: int) -> Labelled:
    """A vector placed along dimension ``dim`` of ``rank`` dimensions."""
    return lift(x, [0 if d == dim else None for d in range(rank)])
