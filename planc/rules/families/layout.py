"""Layout: views, permutations, copies, order. Labels move along with coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from planc.rules import labels
from planc.rules.common import axes, axis, pin_dims
from planc.rules.labels import Labelled, Layer, insert, permute, take, unify, window
from planc.rules.labels.facts import Facts
from planc.rules.registry import rule

# -- views -----------------------------------------------------------------------------------------


@rule("aten.view", "aten.reshape", "aten._unsafe_view", "aten.view_copy", "aten._reshape_copy")
def view(facts: Facts, x: Labelled, size: Sequence[int], *_: Any) -> Labelled:
    y = labels.reshape(facts, x, facts.shape)
    for i, n in enumerate(size):
        if n != -1:
            facts.demand("size", i, y, i)
    return y


@rule("aten.resize")
def resize(facts: Facts, x: Labelled, size: Sequence[int], *_: Any, **__: Any) -> Labelled:
    """The same tensor, if it has the size already."""
    if x.shape != facts.shape:
        x = pin_dims(facts, x, range(x.rank), "a tensor takes another size")
        return Labelled(facts.shape)
    for i in range(x.rank):
        facts.demand("size", i, x, i)
    return x


@rule("aten.view.dtype")
def view_as_other_type(facts: Facts, x: Labelled, dtype: Any) -> Labelled:
    pin_dims(facts, x, range(x.rank), "its bytes are read as another type")
    return Labelled(facts.shape)


@rule("aten.view_as", "aten.reshape_as")
def view_as(facts: Facts, x: Labelled, other: Labelled) -> Labelled:
    y = labels.reshape(facts, x, facts.shape)
    for dim in range(y.rank):
        facts.equal((y, dim), (other, dim))
    return y


@rule("aten.view_as_real", "aten.view_as_real_copy", "aten.view_as_complex")
def complex_pairs(facts: Facts, x: Labelled) -> Labelled:
    if len(facts.shape) < x.rank:
        x = pin_dims(facts, x, (x.rank - 1,), "real and imaginary part")
        x = labels.even(facts, x, (x.rank - 1,))
        return labels.lift(x, range(x.rank - 1))
    return Labelled(facts.shape, insert(x, x.rank).layers)


@rule("aten.flatten", "aten.ravel")
def flatten(facts: Facts, x: Labelled, *_: Any) -> Labelled:
    return labels.reshape(facts, x, facts.shape)


@rule("aten.unflatten")
def unflatten(facts: Facts, x: Labelled, dim: int, sizes: Sequence[int]) -> Labelled:
    y = labels.reshape(facts, x, facts.shape)
    for i, n in enumerate(sizes):
        if n != -1:
            facts.demand("sizes", i, y, axis(x, dim) + i)
    return y


@rule("aten.squeeze")
def squeeze(facts: Facts, x: Labelled, dim: Any = None) -> Labelled:
    for d in axes(x, dim):
        facts.plural(x, d)
    return labels.squeeze(facts, x, [d for d in axes(x, dim) if x.shape[d] == 1])


@rule("aten.unsqueeze")
def unsqueeze(facts: Facts, x: Labelled, dim: int) -> Labelled:
    return insert(x, dim % (x.rank + 1))


@rule("aten.permute")
def permute_dims(facts: Facts, x: Labelled, dims: Sequence[int]) -> Labelled:
    return permute(x, axes(x, tuple(dims)) if dims else ())


@rule("aten.transpose", "aten.swapaxes", "aten.swapdims")
def transpose(facts: Facts, x: Labelled, dim0: int, dim1: int) -> Labelled:
    order = list(range(x.rank))
    a, b = axis(x, dim0), axis(x, dim1)
    if order:
        order[a], order[b] = order[b], order[a]
    return permute(x, order)


@rule("aten.t", "aten.mT", "aten.mH", "aten.adjoint", "aten.matrix_H")
def matrix_transpose(facts: Facts, x: Labelled) -> Labelled:
    return transpose(facts, x, -1, -2) if x.rank > 1 else x


@rule("aten.numpy_T")
def reverse_dims(facts: Facts, x: Labelled) -> Labelled:
    return permute(x, range(x.rank)[::-1])


@rule("aten.movedim", "aten.moveaxis")
def movedim(facts: Facts, x: Labelled, source: Any, destination: Any) -> Labelled:
    to = dict(zip(axes(x, destination), axes(x, source), strict=True))
    rest = iter(d for d in range(x.rank) if d not in to.values())
    return permute(x, [to[d] if d in to else next(rest) for d in range(x.rank)])


@rule("aten.unfold", "aten.unfold_copy")
def unfold(facts: Facts, x: Labelled, dimension: int, *_: Any) -> Labelled:
    """Windows along a dimension: their number replaces it, their content becomes the last one."""
    dims = (axis(x, dimension),)
    x = labels.even(facts, pin_dims(facts, x, dims, "windows slide along it"), dims)
    return Labelled(facts.shape, insert(x, x.rank).layers)


# -- copies ----------------------------------------------------------------------------------------


def fresh(facts: Facts, x: Labelled, dims: Sequence[int], zero: bool) -> Labelled:
    """``x`` with new atoms along ``dims``, free to follow the widths of later operands."""
    layers = list(x.layers)
    for dim in dims:
        if x.shape[dim] > 1:
            shape = [x.shape[dim] if d == dim else 1 for d in range(x.rank)]
            layers.append(Layer(facts.fresh(x.shape[dim]).reshape(shape), dim, zero))
    return Labelled(x.shape, tuple(layers))


@rule("aten.expand", "aten.expand_copy", "aten.broadcast_to")
def expand(facts: Facts, x: Labelled, size: Sequence[int], **_: Any) -> Labelled:
    new = len(size) - x.rank
    lifted = labels.lift(x, [None] * new + list(range(x.rank)))
    grown = [d for d in range(len(size)) if lifted.shape[d] != facts.shape[d]]
    y = fresh(facts, Labelled(facts.shape, lifted.layers), grown, zero=False)
    for i, n in enumerate(size):
        if n != -1:
            facts.demand("size", i, y, i)
    return y


@rule("aten.atleast_1d", "aten.atleast_2d", "aten.atleast_3d")
def at_least(facts: Facts, x: Any) -> Any:
    """With dimensions of size 1 added in front, and behind for the third."""
    if isinstance(x, tuple):
        pairs = zip(x, facts.shapes, strict=True)
        return tuple(labels.reshape(facts, part, shape) for part, shape in pairs)
    return labels.reshape(facts, x, facts.shape)


@rule("aten.expand_as")
def expand_as(facts: Facts, x: Labelled, other: Labelled) -> Labelled:
    plain = Labelled(other.shape, other.layers).nonzero()
    return unify(facts, x, plain, "mul")


@rule("aten.repeat", "aten.tile")
def repeat(facts: Facts, x: Labelled, repeats: Sequence[int]) -> Labelled:
    repeats = (1,) * (x.rank - len(repeats)) + tuple(repeats)
    y = labels.lift(x, [None] * (len(repeats) - x.rank) + list(range(x.rank)))
    for dim, times in enumerate(repeats):
        if times == 1:
            continue
        if y.shape[dim] == 1:
            y = Labelled((*y.shape[:dim], times, *y.shape[dim + 1 :]), y.layers)
            y = fresh(facts, y, (dim,), zero=False)
            facts.demand("repeats", dim, y, dim)
        else:
            y = take(facts, y, dim, np.tile(np.arange(y.shape[dim]), times))
    return y


@rule("aten.repeat_interleave.self_int")
def repeat_interleave(
    facts: Facts, x: Labelled, repeats: int, dim: int | None = None, **_: Any
) -> Labelled:
    if dim is None:
        x, dim = labels.reshape(facts, x, (labels.volume(x.shape),)), 0
    return each_repeated(facts, x, axis(x, dim), repeats)


def each_repeated(facts: Facts, x: Labelled, dim: int, repeats: int) -> Labelled:
    """Each coordinate ``repeats`` times in a row: their number follows the argument ``repeats``, if
    the operator has one, or the width of another operand.
    """
    if repeats == 1:
        return x
    y = insert(x, dim + 1)
    y = Labelled((*y.shape[: dim + 1], repeats, *y.shape[dim + 2 :]), y.layers)
    y = fresh(facts, y, (dim + 1,), zero=False)
    facts.demand("repeats", None, y, dim + 1)
    merged = (*x.shape[:dim], x.shape[dim] * repeats, *x.shape[dim + 1 :])
    return labels.reshape(facts, y, merged)


# -- order -----------------------------------------------------------------------------------------


@rule("aten.flip")
def flip(facts: Facts, x: Labelled, dims: Sequence[int]) -> Labelled:
    for dim in axes(x, tuple(dims)) if dims else ():
        if x.shape[dim] > 1:
            x = take(facts, x, dim, np.arange(x.shape[dim])[::-1])
    return x


@rule("aten.roll")
def roll(facts: Facts, x: Labelled, shifts: Any, dims: Any = ()) -> Labelled:
    """Coordinates wrap around: the shift is the number of wrapped coordinates."""
    shifts = (shifts,) if isinstance(shifts, int) else tuple(shifts)
    if not dims and dims != 0:
        return pin_dims(facts, x, range(x.rank), "rolled as one long row")
    for i, (shift, dim) in enumerate(zip(shifts, axes(x, dims), strict=True)):
        n = x.shape[dim]
        if n < 2:
            continue
        if abs(shift) >= n:
            x = pin_dims(facts, x, (dim,), "rolled more than once around")
        elif shift > 0:
            facts.demand("shifts", i, window(x, dim, n - shift, n), dim)
        elif shift < 0:
            facts.demand("shifts", i, window(x, dim, 0, -shift), dim, sign=-1)
        x = take(facts, x, dim, np.roll(np.arange(n), shift))
    return x


@rule("aten.tril", "aten.triu")
def triangle(facts: Facts, x: Labelled, diagonal: int = 0) -> Labelled:
    return pin_dims(facts, x, (x.rank - 2, x.rank - 1), "a triangle is cut out")
