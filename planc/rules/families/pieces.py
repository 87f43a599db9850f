"""Tensors joined along a dimension, and parts of one: concatenation, slices, splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from planc.rules import labels
from planc.rules.common import axis, pin_dims
from planc.rules.labels import Labelled, concatenate, take, unify, window
from planc.rules.labels.facts import Facts
from planc.rules.registry import rule


@rule("aten.cat", "aten.concat", "aten.concatenate")
def cat(facts: Facts, tensors: Sequence[Labelled], dim: int = 0) -> Labelled:
    parts = [t for t in tensors if t.shape != (0,)]
    if not parts:
        return Labelled(facts.shape)
    return concatenate(facts, parts, axis(parts[0], dim))


@rule("aten.stack")
def stack(facts: Facts, tensors: Sequence[Labelled], dim: int = 0) -> Labelled:
    return labels.stack(facts, tensors, dim % (tensors[0].rank + 1))


@rule("aten.hstack", "aten.vstack", "aten.row_stack", "aten.dstack", "aten.column_stack")
def join_rows(facts: Facts, tensors: Sequence[Labelled]) -> Labelled:
    rank = len(facts.shape)
    if any(t.rank != rank for t in tensors):
        for t in tensors:
            pin_dims(facts, t, range(t.rank), "joined after a change of rank")
        return Labelled(facts.shape)
    dim = next((d for d in range(rank) if tensors[0].shape[d] != facts.shape[d]), 0)
    return concatenate(facts, tensors, dim)


@rule("aten.slice")
def slice_dim(
    facts: Facts, x: Labelled, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Labelled:
    """x[start:end:step] of one dimension: bounds must count the coordinates kept before them."""
    dim = axis(x, dim)
    n = x.shape[dim]
    low, high, step = slice(start, end, step).indices(n)
    phase = 0 <= (start or 0) < step
    if step != 1 and phase and n % step == 0 and (end is None or end >= n):
        labels.bind(facts, x, dim, step)  # whole steps are removed, so each keeps its phase
        return take(facts, x, dim, np.arange(low, high, step))
    if step != 1:
        x = pin_dims(facts, x, (dim,), "a slice with steps")
    _bound(facts, "start", x, dim, start, low)
    _bound(facts, "end", x, dim, end, high)
    return take(facts, x, dim, np.arange(low, high, step)) if high - low < n or step != 1 else x


def _bound(facts: Facts, arg: str, x: Labelled, dim: int, given: Any, at: int) -> None:
    n = x.shape[dim]
    if given is None or (type(given) is int and (given == 0 or given >= n or given <= -n)):
        return  # at or beyond an end of the dimension
    if given < 0:
        facts.demand(arg, None, window(x, dim, at, n), dim, sign=-1)
    else:
        facts.demand(arg, None, window(x, dim, 0, at), dim)


@rule("aten.narrow", "aten.narrow_copy")
def narrow(facts: Facts, x: Labelled, dim: int, start: Any, length: int) -> Labelled:
    dim = axis(x, dim)
    if isinstance(start, Labelled):
        y = pin_dims(facts, x, (dim,), "a computed position")
        return Labelled(facts.shape, labels.even(facts, y, (dim,)).layers)
    _bound(facts, "start", x, dim, start, start % x.shape[dim])
    y = take(facts, x, dim, np.arange(start, start + length))
    facts.demand("length", None, y, dim)
    return y


@rule("aten.select", "aten.select_copy")
def select(facts: Facts, x: Labelled, dim: int, index: Any) -> Labelled:
    """x[index] of one dimension: coordinates before it are pinned, because their removal would
    shift the selection.
    """
    dim = axis(x, dim)
    n = x.shape[dim]
    if not isinstance(index, int):
        x = pin_dims(facts, x, (dim,), "a computed position")
        return labels.squeeze(
            facts, Labelled(_one(x, dim), labels.even(facts, x, (dim,)).layers), (dim,)
        )
    before = window(x, dim, 0, index + 1) if index >= 0 else window(x, dim, n + index, n)
    facts.pin(before.targeting(dim), "one coordinate is picked by its position")
    kept = Labelled(x.shape, tuple(layer for layer in x.layers if layer.target != dim))
    return labels.squeeze(facts, window(kept, dim, index % n, index % n + 1), (dim,))


def _one(x: Labelled, dim: int) -> tuple[int, ...]:
    return tuple(1 if d == dim else n for d, n in enumerate(x.shape))


@rule("aten.slice_scatter")
def slice_scatter(
    facts: Facts,
    x: Labelled,
    src: Labelled,
    dim: int = 0,
    start: Any = None,
    end: Any = None,
    step: int = 1,
) -> Labelled:
    """``x`` with ``src`` at the places of a slice."""
    dim = axis(x, dim)
    low, high, step = slice(start, end, step).indices(x.shape[dim])
    if step != 1:
        x, src = (pin_dims(facts, part, (dim,), "a slice with steps") for part in (x, src))
        one, other = (labels.reduce(facts, part, (dim,), keepdim=True) for part in (x, src))
        return Labelled(facts.shape, unify(facts, one, other, "add").layers)
    _bound(facts, "start", x, dim, start, low)
    _bound(facts, "end", x, dim, end, high)
    inside = replace(take(facts, x, dim, np.arange(low, high)), blank=False)
    written = unify(facts, inside, src, "add")
    sides = ((0, low), (high, x.shape[dim]))
    before, after = (
        [take(facts, x, dim, np.arange(*side))] if side[0] < side[1] else [] for side in sides
    )
    return concatenate(facts, [*before, written, *after], dim)


@rule("aten.unbind")
def unbind(facts: Facts, x: Labelled, dim: int = 0) -> tuple[Labelled, ...]:
    dim = axis(x, dim)
    return tuple(select(facts, x, dim, i) for i in range(x.shape[dim]))


def _pieces(facts: Facts, x: Labelled, dim: int) -> tuple[Labelled, ...]:
    """The parts of ``x`` along ``dim`` with the sizes of the results."""
    parts, at = [], 0
    for shape in facts.shapes:
        parts.append(take(facts, x, dim, np.arange(at, at + shape[dim])))
        at += shape[dim]
    return tuple(parts)


@rule("aten.split_with_sizes", "aten.split.sizes", "aten.unsafe_split_with_sizes")
def split_with_sizes(
    facts: Facts, x: Labelled, split_sizes: Sequence[int], dim: int = 0
) -> tuple[Labelled, ...]:
    dim = axis(x, dim)
    parts = _pieces(facts, x, dim)
    for i, part in enumerate(parts):
        facts.demand("split_sizes", i, part, dim)
    return parts


@rule("aten.split.Tensor", "aten.unsafe_split.Tensor")
def split(facts: Facts, x: Labelled, split_size: int, dim: int = 0) -> tuple[Labelled, ...]:
    """Parts of one size; the graph's constants can express several."""
    dim = axis(x, dim)
    parts = _pieces(facts, x, dim)
    for part in parts:
        if part.shape[dim] == split_size:
            facts.demand("split_size", None, part, dim)
        else:
            facts.pin(part.targeting(dim), "the smaller last part of a split")
    return parts


@rule("aten.chunk", "aten.unsafe_chunk")
def chunk(facts: Facts, x: Labelled, chunks: int, dim: int = 0) -> tuple[Labelled, ...]:
    """Parts of one size, computed by the operator itself; the last one may be smaller."""
    dim = axis(x, dim)
    if len(facts.shapes) < chunks:
        x = pin_dims(facts, x, (dim,), "the number of chunks follows from its width")
    return _computed(facts, x, dim, [chunks - 1] * (len(facts.shapes) - 1), chunks)


@rule("aten.tensor_split.sections")
def sections(facts: Facts, x: Labelled, sections: int, dim: int = 0) -> tuple[Labelled, ...]:
    """Parts of one size, computed by the operator itself; the first ones may be larger by one."""
    return _computed(facts, x, axis(x, dim), range(sections - 1, -1, -1), sections)


def _computed(
    facts: Facts, x: Labelled, dim: int, plus: Sequence[int], count: int
) -> tuple[Labelled, ...]:
    """Parts that the operator measures itself, each ``(width of x + plus) // count``."""
    parts = _pieces(facts, x, dim)
    if all(part.shape[dim] == parts[0].shape[dim] for part in parts):
        for part in parts[1:]:
            facts.equal((part, dim), (parts[0], dim), module_only=True)
    elif x.targeting(dim):
        for part, more in zip(parts, plus, strict=False):
            facts.share((part, dim), (x, dim), more, count)
    return parts


@rule("aten.tensor_split.indices")
def tensor_split(
    facts: Facts, x: Labelled, indices: Sequence[int], dim: int = 0
) -> tuple[Labelled, ...]:
    dim = axis(x, dim)
    for i, at in enumerate(indices):
        place = min(max(at + x.shape[dim] if at < 0 else at, 0), x.shape[dim])
        side = window(x, dim, place, x.shape[dim]) if at < 0 else window(x, dim, 0, place)
        facts.demand("indices", i, side, dim, sign=-1 if at < 0 else 1)
    return _pieces(facts, x, dim)


@rule("aten.hsplit.int", "aten.vsplit.int", "aten.dsplit.int")
def split_by_name(facts: Facts, x: Labelled, sections: int) -> tuple[Labelled, ...]:
    """Chunks of the dimension implied by the operator's name: the one with another size."""
    dim = next((d for d in range(x.rank) if x.shape[d] != facts.shape[d]), 0)
    return _computed(facts, x, dim, (), sections)


@rule("aten.glu")
def glu(facts: Facts, x: Labelled, dim: int = -1) -> Labelled:
    """The first half times the sigmoid of the second."""
    dim = axis(x, dim)
    half = x.shape[dim] // 2
    left, right = (
        take(facts, x, dim, np.arange(half)),
        take(facts, x, dim, np.arange(half, 2 * half)),
    )
    facts.equal((left, dim), (right, dim))
    return unify(facts, left, right.nonzero(), "mul")
