"""Tensors joined along a dimension, and parts cut from one: concatenation, slices, splits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from planc.rules import labels
from planc.rules.labels import Labelled, concatenate, take, unify, window
from planc.rules.labels.facts import Facts
from planc.rules.registry import axis, pin_dims, rule


@rule("aten.cat", "aten.concat", "aten.concatenate")
def cat(cx: Facts, tensors: Sequence[Labelled], dim: int = 0) -> Labelled:
    parts = [t for t in tensors if t.shape != (0,)]
    if not parts:
        return Labelled(cx.shape)
    return concatenate(cx, parts, axis(parts[0], dim))


@rule("aten.stack")
def stack(cx: Facts, tensors: Sequence[Labelled], dim: int = 0) -> Labelled:
    return labels.stack(cx, tensors, dim % (tensors[0].rank + 1))


@rule("aten.hstack", "aten.vstack", "aten.dstack", "aten.column_stack")
def join_rows(cx: Facts, tensors: Sequence[Labelled]) -> Labelled:
    rank = len(cx.shape)
    if any(t.rank != rank for t in tensors):
        for t in tensors:
            pin_dims(cx, t, range(t.rank), "joined after a change of rank")
        return Labelled(cx.shape)
    dim = next((d for d in range(rank) if tensors[0].shape[d] != cx.shape[d]), 0)
    return concatenate(cx, tensors, dim)


@rule("aten.slice")
def slice_dim(
    cx: Facts, x: Labelled, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Labelled:
    """x[start:end:step] of one dimension: bounds must count what is kept before them."""
    dim = axis(x, dim)
    n = x.shape[dim]
    low, high, step = slice(start, end, step).indices(n)
    phase = 0 <= (start or 0) < step
    if step != 1 and phase and n % step == 0 and (end is None or end >= n):
        labels.bind(cx, x, dim, step)  # then whole steps go, and each still begins with its first
        return take(cx, x, dim, np.arange(low, high, step))
    if step != 1:
        x = pin_dims(cx, x, (dim,), "a slice with steps")
    _bound(cx, "start", x, dim, start, low)
    _bound(cx, "end", x, dim, end, high)
    return take(cx, x, dim, np.arange(low, high, step)) if high - low < n or step != 1 else x


def _bound(cx: Facts, arg: str, x: Labelled, dim: int, given: Any, at: int) -> None:
    n = x.shape[dim]
    if given is None or (type(given) is int and (given == 0 or given >= n or given <= -n)):
        return  # counted from either end, it lies beyond the other
    if given < 0:
        cx.demand(arg, None, window(x, dim, at, n), dim, sign=-1)
    else:
        cx.demand(arg, None, window(x, dim, 0, at), dim)


@rule("aten.narrow")
def narrow(cx: Facts, x: Labelled, dim: int, start: Any, length: int) -> Labelled:
    dim = axis(x, dim)
    if isinstance(start, Labelled):
        y = pin_dims(cx, x, (dim,), "a computed position")
        return Labelled(cx.shape, labels.even(cx, y, (dim,)).layers)
    _bound(cx, "start", x, dim, start, start % x.shape[dim])
    y = take(cx, x, dim, np.arange(start, start + length))
    cx.demand("length", None, y, dim)
    return y


@rule("aten.select", "aten.select_copy")
def select(cx: Facts, x: Labelled, dim: int, index: Any) -> Labelled:
    """x[index] of one dimension: what stands before it must stay, or it is another one."""
    dim = axis(x, dim)
    n = x.shape[dim]
    if not isinstance(index, int):
        x = pin_dims(cx, x, (dim,), "a computed position")
        return labels.squeeze(cx, Labelled(_one(x, dim), labels.even(cx, x, (dim,)).layers), (dim,))
    before = window(x, dim, 0, index + 1) if index >= 0 else window(x, dim, n + index, n)
    cx.pin(before.targeting(dim), "one coordinate is picked by its position")
    kept = Labelled(x.shape, tuple(layer for layer in x.layers if layer.target != dim))
    return labels.squeeze(cx, window(kept, dim, index % n, index % n + 1), (dim,))


def _one(x: Labelled, dim: int) -> tuple[int, ...]:
    return tuple(1 if d == dim else n for d, n in enumerate(x.shape))


@rule("aten.unbind")
def unbind(cx: Facts, x: Labelled, dim: int = 0) -> tuple[Labelled, ...]:
    dim = axis(x, dim)
    return tuple(select(cx, x, dim, i) for i in range(x.shape[dim]))


def _pieces(cx: Facts, x: Labelled, dim: int) -> tuple[Labelled, ...]:
    """The parts of ``x`` along ``dim`` with the sizes that the results have."""
    parts, at = [], 0
    for shape in cx.shapes:
        parts.append(take(cx, x, dim, np.arange(at, at + shape[dim])))
        at += shape[dim]
    return tuple(parts)


@rule("aten.split_with_sizes", "aten.split.sizes", "aten.unsafe_split_with_sizes")
def split_with_sizes(
    cx: Facts, x: Labelled, split_sizes: Sequence[int], dim: int = 0
) -> tuple[Labelled, ...]:
    dim = axis(x, dim)
    parts = _pieces(cx, x, dim)
    for i, part in enumerate(parts):
        cx.demand("split_sizes", i, part, dim)
    return parts


@rule("aten.split.Tensor", "aten.unsafe_split.Tensor")
def split(cx: Facts, x: Labelled, split_size: int, dim: int = 0) -> tuple[Labelled, ...]:
    """Parts of one size; the graph's constants can say several."""
    dim = axis(x, dim)
    parts = _pieces(cx, x, dim)
    for part in parts:
        if part.shape[dim] == split_size:
            cx.demand("split_size", None, part, dim)
        else:
            cx.pin(part.targeting(dim), "the smaller last part of a split")
    return parts


@rule("aten.chunk", "aten.unsafe_chunk", "aten.tensor_split.sections")
def chunk(cx: Facts, x: Labelled, chunks: int, dim: int = 0) -> tuple[Labelled, ...]:
    """Parts of one size that the operator computes itself."""
    dim = axis(x, dim)
    parts = _pieces(cx, x, dim)
    for part in parts[1:]:
        if part.shape[dim] == parts[0].shape[dim]:
            cx.equal((part, dim), (parts[0], dim), module_only=True)
        else:
            cx.pin(x.targeting(dim), "chunks of unequal size")
    return parts


@rule("aten.tensor_split.indices")
def tensor_split(
    cx: Facts, x: Labelled, indices: Sequence[int], dim: int = 0
) -> tuple[Labelled, ...]:
    dim = axis(x, dim)
    for i, at in enumerate(indices):
        place = min(max(at + x.shape[dim] if at < 0 else at, 0), x.shape[dim])
        side = window(x, dim, place, x.shape[dim]) if at < 0 else window(x, dim, 0, place)
        cx.demand("indices", i, side, dim, sign=-1 if at < 0 else 1)
    return _pieces(cx, x, dim)


@rule("aten.hsplit.int", "aten.vsplit.int", "aten.dsplit.int")
def split_by_name(cx: Facts, x: Labelled, sections: int) -> tuple[Labelled, ...]:
    """Chunks of the dimension that is named by the operator: the one whose size changes."""
    dim = next((d for d in range(x.rank) if x.shape[d] != cx.shape[d]), 0)
    return chunk(cx, x, sections, dim)


@rule("aten.glu")
def glu(cx: Facts, x: Labelled, dim: int = -1) -> Labelled:
    """The first half times the sigmoid of the second."""
    dim = axis(x, dim)
    half = x.shape[dim] // 2
    left, right = take(cx, x, dim, np.arange(half)), take(cx, x, dim, np.arange(half, 2 * half))
    cx.equal((left, dim), (right, dim))
    return unify(cx, left, right.nonzero(), "mul")
