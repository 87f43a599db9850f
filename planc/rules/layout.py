"""Layout: views, permutations, concatenation, slices. Labels move along with coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from planc import labels
from planc.facts import NEVER, Facts
from planc.labels import Labelled, Layer, concatenate, insert, permute, take, unify, window
from planc.rules.registry import axes, axis, pin_dims, rule

# -- views -----------------------------------------------------------------------------------------


@rule("aten.view", "aten.reshape", "aten._unsafe_view", "aten.view_copy")
def view(cx: Facts, x: Labelled, size: Sequence[int], *_: Any) -> Labelled:
    y = labels.reshape(cx, x, cx.shape)
    for i, n in enumerate(size):
        if n != -1:
            cx.demand("size", i, y, i)
    return y


@rule("aten.view.dtype")
def view_as_other_type(cx: Facts, x: Labelled, dtype: Any) -> Labelled:
    return pin_dims(cx, x, range(x.rank), "its bytes are read as another type")


@rule("aten.view_as", "aten.reshape_as")
def view_as(cx: Facts, x: Labelled, other: Labelled) -> Labelled:
    y = labels.reshape(cx, x, cx.shape)
    for dim in range(y.rank):
        cx.equal((y, dim), (other, dim))
    return y


@rule("aten.view_as_real", "aten.view_as_real_copy", "aten.view_as_complex")
def complex_pairs(cx: Facts, x: Labelled) -> Labelled:
    if len(cx.shape) < x.rank:
        x = pin_dims(cx, x, (x.rank - 1,), "real and imaginary part")
        x = labels.even(cx, x, (x.rank - 1,))
        return labels.lift(x, range(x.rank - 1))
    return Labelled(cx.shape, insert(x, x.rank).layers)


@rule("aten.flatten", "aten.ravel")
def flatten(cx: Facts, x: Labelled, *_: Any) -> Labelled:
    return labels.reshape(cx, x, cx.shape)


@rule("aten.unflatten")
def unflatten(cx: Facts, x: Labelled, dim: int, sizes: Sequence[int]) -> Labelled:
    y = labels.reshape(cx, x, cx.shape)
    for i, n in enumerate(sizes):
        if n != -1:
            cx.demand("sizes", i, y, axis(x, dim) + i)
    return y


@rule("aten.squeeze")
def squeeze(cx: Facts, x: Labelled, dim: Any = None) -> Labelled:
    for d in axes(x, dim):
        cx.plural(x, d)
    return labels.squeeze(cx, x, [d for d in axes(x, dim) if x.shape[d] == 1])


@rule("aten.unsqueeze")
def unsqueeze(cx: Facts, x: Labelled, dim: int) -> Labelled:
    return insert(x, dim % (x.rank + 1))


@rule("aten.permute")
def permute_dims(cx: Facts, x: Labelled, dims: Sequence[int]) -> Labelled:
    return permute(x, axes(x, tuple(dims)) if dims else ())


@rule("aten.transpose", "aten.swapaxes", "aten.swapdims")
def transpose(cx: Facts, x: Labelled, dim0: int, dim1: int) -> Labelled:
    order = list(range(x.rank))
    a, b = axis(x, dim0), axis(x, dim1)
    if order:
        order[a], order[b] = order[b], order[a]
    return permute(x, order)


@rule("aten.t", "aten.mT", "aten.mH", "aten.adjoint", "aten.matrix_H")
def matrix_transpose(cx: Facts, x: Labelled) -> Labelled:
    return transpose(cx, x, -1, -2) if x.rank > 1 else x


@rule("aten.numpy_T")
def reverse_dims(cx: Facts, x: Labelled) -> Labelled:
    return permute(x, range(x.rank)[::-1])


@rule("aten.movedim", "aten.moveaxis")
def movedim(cx: Facts, x: Labelled, source: Any, destination: Any) -> Labelled:
    to = dict(zip(axes(x, destination), axes(x, source), strict=True))
    rest = iter(d for d in range(x.rank) if d not in to.values())
    return permute(x, [to[d] if d in to else next(rest) for d in range(x.rank)])


@rule("aten.unfold", "aten.unfold_copy")
def unfold(cx: Facts, x: Labelled, dimension: int, *_: Any) -> Labelled:
    """Windows along a dimension: their number stands in its place, their content comes last."""
    dims = (axis(x, dimension),)
    x = labels.even(cx, pin_dims(cx, x, dims, "windows slide along it"), dims)
    return Labelled(cx.shape, insert(x, x.rank).layers)


# -- copies ----------------------------------------------------------------------------------------


def fresh(cx: Facts, x: Labelled, dims: Sequence[int], zero: bool) -> Labelled:
    """``x`` with new atoms along ``dims``: their size is free to follow what they meet."""
    layers = list(x.layers)
    for dim in dims:
        if x.shape[dim] > 1:
            shape = [x.shape[dim] if d == dim else 1 for d in range(x.rank)]
            layers.append(Layer(cx.fresh(x.shape[dim]).reshape(shape), dim, zero))
    return Labelled(x.shape, tuple(layers))


@rule("aten.expand", "aten.expand_copy", "aten.broadcast_to")
def expand(cx: Facts, x: Labelled, size: Sequence[int], **_: Any) -> Labelled:
    new = len(size) - x.rank
    lifted = labels.lift(x, [None] * new + list(range(x.rank)))
    grown = [d for d in range(len(size)) if lifted.shape[d] != cx.shape[d]]
    y = fresh(cx, Labelled(cx.shape, lifted.layers), grown, zero=False)
    for i, n in enumerate(size):
        if n != -1:
            cx.demand("size", i, y, i)
    return y


@rule("aten.expand_as")
def expand_as(cx: Facts, x: Labelled, other: Labelled) -> Labelled:
    plain = Labelled(other.shape, other.layers).nonzero()
    return unify(cx, x, plain, "mul")


@rule("aten.repeat", "aten.tile")
def repeat(cx: Facts, x: Labelled, repeats: Sequence[int]) -> Labelled:
    repeats = (1,) * (x.rank - len(repeats)) + tuple(repeats)
    y = labels.lift(x, [None] * (len(repeats) - x.rank) + list(range(x.rank)))
    for dim, times in enumerate(repeats):
        if times == 1:
            continue
        if y.shape[dim] == 1:
            y = Labelled((*y.shape[:dim], times, *y.shape[dim + 1 :]), y.layers)
            y = fresh(cx, y, (dim,), zero=False)
            cx.demand("repeats", dim, y, dim)
        else:
            y = take(cx, y, dim, np.tile(np.arange(y.shape[dim]), times))
    return y


@rule("aten.repeat_interleave.self_int")
def repeat_interleave(
    cx: Facts, x: Labelled, repeats: int, dim: int | None = None, **_: Any
) -> Labelled:
    if dim is None:
        x, dim = labels.reshape(cx, x, (labels.volume(x.shape),)), 0
    dim = axis(x, dim)
    return take(cx, x, dim, np.repeat(np.arange(x.shape[dim]), repeats))


# -- joining ---------------------------------------------------------------------------------------


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


# -- parts -----------------------------------------------------------------------------------------


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


# -- order -----------------------------------------------------------------------------------------


@rule("aten.flip")
def flip(cx: Facts, x: Labelled, dims: Sequence[int]) -> Labelled:
    for dim in axes(x, tuple(dims)) if dims else ():
        if x.shape[dim] > 1:
            x = take(cx, x, dim, np.arange(x.shape[dim])[::-1])
    return x


@rule("aten.roll")
def roll(cx: Facts, x: Labelled, shifts: Any, dims: Any = ()) -> Labelled:
    """Coordinates wrap around: the shift counts those that do."""
    shifts = (shifts,) if isinstance(shifts, int) else tuple(shifts)
    if not dims and dims != 0:
        return pin_dims(cx, x, range(x.rank), "rolled as one long row")
    for i, (shift, dim) in enumerate(zip(shifts, axes(x, dims), strict=True)):
        n = x.shape[dim]
        if n < 2:
            continue
        if abs(shift) >= n:
            x = pin_dims(cx, x, (dim,), "rolled more than once around")
        elif shift > 0:
            cx.demand("shifts", i, window(x, dim, n - shift, n), dim)
        elif shift < 0:
            cx.demand("shifts", i, window(x, dim, 0, -shift), dim, sign=-1)
        x = take(cx, x, dim, np.roll(np.arange(n), shift))
    return x


@rule("aten.constant_pad_nd")
def constant_pad(cx: Facts, x: Labelled, pad: Sequence[int], value: Any = 0) -> Labelled:
    """Coordinates that were never there are never removed."""
    if value != 0:
        x = x.nonzero()
    for i in range(len(pad) // 2):
        dim = x.rank - 1 - i
        before, after = pad[2 * i], pad[2 * i + 1]
        if before < 0 or after < 0:
            low, high = max(0, -before), x.shape[dim] - max(0, -after)
            if before < 0:
                cx.demand("pad", 2 * i, window(x, dim, 0, low), dim, sign=-1)
            if after < 0:
                cx.demand("pad", 2 * i + 1, window(x, dim, high, x.shape[dim]), dim, sign=-1)
            x = take(cx, x, dim, np.arange(low, high))
        x = _padded(x, dim, max(0, before), max(0, after))
    return x


def _padded(x: Labelled, dim: int, before: int, after: int) -> Labelled:
    if before == after == 0:
        return x
    shape = (*x.shape[:dim], x.shape[dim] + before + after, *x.shape[dim + 1 :])
    widths = [(before, after) if d == dim else (0, 0) for d in range(x.rank)]
    layers = []
    for layer in x.layers:
        if layer.atoms.shape[dim] == 1 and layer.target != dim:
            layers.append(layer)
        else:
            atoms = np.pad(layer.atoms, widths, constant_values=NEVER)
            layers.append(Layer(atoms, layer.target, layer.zero))
    return Labelled(shape, tuple(layers))


@rule("aten.pad")
def pad(
    cx: Facts, x: Labelled, pad: Sequence[int], mode: str = "constant", value: Any = None
) -> Labelled:
    if mode == "constant":
        return constant_pad(cx, x, pad, value or 0)
    return reflection_pad(cx, x, pad)


@rule(
    *(f"aten.{kind}_pad{d}d" for kind in ("reflection", "replication") for d in (1, 2, 3)),
    "aten._pad_circular",
    "aten._pad_enum",
)
def reflection_pad(cx: Facts, x: Labelled, padding: Sequence[int], *_: Any) -> Labelled:
    dims = [x.rank - 1 - i for i in range(len(padding) // 2)]
    changed = [d for d in dims if x.shape[d] != cx.shape[d]]
    x = labels.even(cx, pin_dims(cx, x, changed, "padded with its own content"), changed)
    return Labelled(cx.shape, x.layers)


@rule("aten.tril", "aten.triu")
def triangle(cx: Facts, x: Labelled, diagonal: int = 0) -> Labelled:
    return pin_dims(cx, x, (x.rank - 2, x.rank - 1), "a triangle is cut out")
