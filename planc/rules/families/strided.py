"""Views by strides: those that are views of whole dimensions as well."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from planc.rules import labels
from planc.rules.common import pin_dims
from planc.rules.labels import Labelled, lift, volume
from planc.rules.labels.facts import Facts
from planc.rules.registry import rule

Shape = tuple[int, ...]


@rule("aten.as_strided", "aten.as_strided_copy")
def as_strided(
    facts: Facts,
    x: Labelled,
    size: Sequence[int],
    stride: Sequence[int],
    storage_offset: int | None = None,
    **_: Any,
) -> Labelled:
    """Another shape of a tensor in row-major order, or windows and parts along its dimensions: a
    dimension that is taken as a whole keeps its labels.
    """
    if facts.in_order and not storage_offset and 0 not in x.shape:
        if _strides(facts.shape) == tuple(stride) and volume(facts.shape) == volume(x.shape):
            y = labels.reshape(facts, x, facts.shape)
            for i in range(y.rank):
                _demand(facts, i, y, y, i, 1)
            return y
        places = _places(x.shape, size, stride)
        if places is not None:
            return _windows(facts, x, *places, size, stride)
    pin_dims(facts, x, range(x.rank), "its memory is read by strides")
    return Labelled(facts.shape)


def _strides(shape: Sequence[int]) -> Shape:
    """The strides of a shape in row-major order."""
    return tuple(volume(shape[d + 1 :]) for d in range(len(shape)))


def _places(
    shape: Shape, size: Sequence[int], stride: Sequence[int]
) -> tuple[Shape, list[int | None]] | None:
    """The shape, with dimensions merged where strides run through several, and its dimension behind
    each one of the result: none for a new one. None if strides run out of all dimensions.
    """
    own, reach = _strides(shape), [0] * len(shape)
    inner = [d for d, n in enumerate(shape) if n > 1]
    places: list[int | None] = []
    for count, step in zip(size, stride, strict=True):
        fits = [d for d in inner if own[d] <= step and not step % own[d]] if count > 1 else []
        places.append(fits[0] if fits else None)
        if fits:
            reach[fits[0]] += (count - 1) * (step // own[fits[0]])
        elif count > 1 and step:
            return None
    for d, most in enumerate(reach):
        if most >= shape[d]:
            merged = (*shape[: d - 1], shape[d - 1] * shape[d], *shape[d + 1 :])
            return _places(merged, size, stride) if d else None
    return shape, places


def _windows(
    facts: Facts,
    x: Labelled,
    shape: Shape,
    places: list[int | None],
    size: Sequence[int],
    stride: Sequence[int],
) -> Labelled:
    """The labels of the dimensions taken as a whole, each at its new place."""
    x, own = labels.reshape(facts, x, shape), _strides(shape)
    whole = {
        d
        for i, d in enumerate(places)
        if d is not None and places.count(d) == 1 and (size[i], stride[i]) == (shape[d], own[d])
    }
    cut = [d for d in range(x.rank) if d not in whole]
    x = labels.even(facts, pin_dims(facts, x, cut, "windows slide along it"), cut)
    rest = Labelled(tuple(n if d in whole else 1 for d, n in enumerate(shape)), x.layers)
    moved = lift(rest, [d if d in whole else None for d in places])
    y = Labelled(facts.shape, moved.layers)
    for i, d in enumerate(places):
        if d is not None:
            _demand(facts, i, y, x, d, stride[i] // own[d])
        elif size[i] == 1:
            facts.ignore("stride", i)
    return y


def _demand(facts: Facts, i: int, y: Labelled, x: Labelled, dim: int, step: int) -> None:
    """Require the size of dimension ``i`` of the result, and its stride: ``step`` times the volume
    of ``x`` behind ``dim``.
    """
    facts.demand("size", i, y, i)
    if any(layer.target > dim for layer in x.layers):
        outer = volume(x.shape[: dim + 1])
        flat = labels.reshape(facts, x, (outer, volume(x.shape) // outer))
        facts.demand("stride", i, flat, 1, step)
