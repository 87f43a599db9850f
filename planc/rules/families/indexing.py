"""Indexing by tensors, and whatever picks by position: it pins the dimension it looks along."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from planc.rules.labels import Labelled, even, lift, take, unify, window
from planc.rules.labels.facts import Atoms, Facts
from planc.rules.registry import axis, pin_dims, rule


@rule("aten.index.Tensor", "aten._unsafe_index.Tensor")
def index(cx: Facts, x: Labelled, indices: Sequence[Labelled | None]) -> Labelled:
    """Advanced indexing: the indexed dimensions are replaced by those of the indices."""
    if len(cx.shape) != x.rank - sum(e is not None for e in indices) + _rank_of(indices):
        picked(cx, x, indices)  # a mask of several dimensions
        return Labelled(cx.shape)
    given = [i for i, entry in enumerate(indices) if entry is not None]
    if len(given) == 1 and (chosen := _known(indices[given[0]])) is not None:
        return _taken(cx, x, given[0], chosen)
    x = even(cx, pin_dims(cx, x, given, "positions are picked by index"), given)
    for entry in indices:
        if entry is not None:
            pin_dims(cx, entry, range(entry.rank), "used as an index")
    rest = [d for d in range(x.rank) if d not in given]
    new = len(cx.shape) - len(rest)
    if given and given == list(range(given[0], given[-1] + 1)):
        at = given[0]
    else:
        at = 0
    places: list[int | None] = [*rest[:at], *[None] * new, *rest[at:]]
    if any(e is not None and e.shape and x.layers == () for e in indices):
        return Labelled(cx.shape)
    return Labelled(cx.shape, lift(_without(x, given), places).layers)


def _known(index: Labelled | None) -> Atoms | None:
    """The content of a list of positions, where it is known."""
    known = index is not None and index.rank == 1 and index.constant is not None
    if not known or index is None or index.constant is None or index.constant.dtype == bool:
        return None
    return index.constant.astype(np.int64)


def _taken(cx: Facts, x: Labelled, dim: int, chosen: Atoms) -> Labelled:
    """Coordinates picked by a constant list: what stands between them and the end that they are
    counted from must stay, or they are others.
    """
    n = x.shape[dim]
    for side in (chosen[chosen >= 0], chosen[chosen < 0]):
        if len(side):
            first, last = (0, side.max() + 1) if side[0] >= 0 else (n + side.min(), n)
            between = window(x, dim, int(first), int(last)).targeting(dim)
            cx.pin(between, "positions are picked by index")
    return take(cx, x, dim, chosen % n)


def _rank_of(indices: Sequence[Labelled | None]) -> int:
    """The number of dimensions that indices are broadcast to."""
    return max((entry.rank for entry in indices if entry is not None), default=0)


def _without(x: Labelled, dims: Sequence[int]) -> Labelled:
    gone = set(dims)
    return Labelled(tuple(1 if d in gone else n for d, n in enumerate(x.shape)), x.layers)


@rule("aten.index_put", "aten._index_put_impl")
def index_put(
    cx: Facts, x: Labelled, indices: Sequence[Labelled | None], values: Labelled, *_: Any
) -> Labelled:
    """x[indices] = values: beside the indexed dimensions, what is written shrinks with ``x``."""
    given = [i for i, entry in enumerate(indices) if entry is not None]
    adjacent = bool(given) and given == list(range(given[0], given[-1] + 1))
    if not adjacent or _rank_of(indices) != 1 or values.rank > x.rank - len(given) + 1:
        picked(cx, x, indices, values)
        return Labelled(cx.shape)
    for entry in indices:
        if entry is not None:
            pin_dims(cx, entry, range(entry.rank), "used as an index")
    first, after = given[0], x.rank - 1 - given[-1]
    row = [values.rank - 1 - after] if values.rank > after else []
    x = even(cx, pin_dims(cx, x, given, "positions are picked by index"), given)
    values = even(cx, pin_dims(cx, values, row, "positions are picked by index"), row)
    one = lift(_without(x, given), [*range(first + 1), *range(given[-1] + 1, x.rank)])
    y = unify(cx, one, _without(values, row), "add")
    rest = range(first + 1, y.rank)
    return Labelled(
        cx.shape, lift(y, [*range(first + 1), *[None] * (len(given) - 1), *rest]).layers
    )


@rule("aten.index_select")
def index_select(cx: Facts, x: Labelled, dim: int, index: Labelled) -> Labelled:
    dims = (axis(x, dim),)
    x = even(cx, pin_dims(cx, x, dims, "positions are picked by index"), dims)
    return Labelled(cx.shape, x.layers)


@rule("aten.take_along_dim")
def take_along_dim(cx: Facts, x: Labelled, indices: Labelled, dim: int | None = None) -> Labelled:
    if dim is None:
        picked(cx, x, indices)
        return Labelled(cx.shape)
    return gather(cx, x, dim, indices)


@rule("aten.gather")
def gather(cx: Facts, x: Labelled, dim: int, index: Labelled, **_: Any) -> Labelled:
    """out[i, j] = x[index[i, j], j]: the index shrinks with the other dimensions."""
    dims = (axis(x, dim),)
    x = even(cx, pin_dims(cx, x, dims, "positions are picked by index"), dims)
    if any(
        n != m for d, (n, m) in enumerate(zip(x.shape, index.shape, strict=True)) if d not in dims
    ):
        for value in (x, index):
            pin_dims(cx, value, range(value.rank), "gathered by an index of another shape")
        return Labelled(cx.shape)
    return unify(cx, _without(x, dims), index.nonzero(), "mul")


@rule("aten.scatter", "aten.scatter_add", "aten.scatter_reduce")
def scatter(
    cx: Facts, x: Labelled, dim: int, index: Labelled, src: Any, *_: Any, **__: Any
) -> Labelled:
    """out[index[i, j], j] = src[i, j]: beside the indexed dimension all three shrink together."""
    dims = (axis(x, dim),)
    tensors = [t for t in (x, index, src) if isinstance(t, Labelled) and t.rank == x.rank]
    rest = {tuple(n for d, n in enumerate(t.shape) if d not in dims) for t in tensors}
    if len(rest) > 1:
        picked(cx, x, index, src)
        return Labelled(cx.shape)
    return _written(cx, x, dims, src, index)


@rule("aten.index_add", "aten.index_copy", "aten.index_fill")
def index_write(
    cx: Facts, x: Labelled, dim: int, index: Labelled, src: Any, *_: Any, **__: Any
) -> Labelled:
    """out[index[i], j] = src[i, j], or one value."""
    pin_dims(cx, index, range(index.rank), "used as an index")
    return _written(cx, x, (axis(x, dim),), src)


def _written(
    cx: Facts, x: Labelled, dims: Sequence[int], src: Any, index: Labelled | None = None
) -> Labelled:
    """``x`` with ``src``, a tensor or a number, written somewhere along ``dims``."""

    def one(value: Labelled) -> Labelled:
        value = even(cx, pin_dims(cx, value, dims, "positions are picked by index"), dims)
        return _without(value, dims)

    y = one(x)
    if isinstance(src, Labelled):
        y = unify(cx, y, one(src) if src.rank else src, "add")
    elif src != 0:
        y = y.nonzero()
    if index is not None:  # it says where, not what
        y = unify(cx, y, one(index).nonzero(), "mul")
    return Labelled(cx.shape, y.layers)


@rule("aten.masked_scatter")
def masked_scatter(cx: Facts, x: Labelled, mask: Labelled, source: Labelled) -> Labelled:
    """Takes one coordinate of ``source`` after the other where the mask says so. Where the mask has
    one for all of the last dimensions, and they are as wide in both, it takes whole rows.
    """
    rank = len(cx.shape)
    if source.rank > rank:
        picked(cx, x, mask, source)
        return Labelled(cx.shape)
    rows, at, of = (lift(v, [None] * (rank - v.rank) + [*range(v.rank)]) for v in (x, mask, source))
    first = rank
    while first and at.shape[first - 1] == 1 and rows.shape[first - 1] == of.shape[first - 1]:
        first -= 1
    picking = range(first)
    rows, of = (
        even(cx, pin_dims(cx, v, picking, "picked by position or by value"), picking)
        for v in (rows, of)
    )
    pin_dims(cx, at, range(rank), "used as an index")
    y = unify(cx, _without(rows, picking), _without(of, picking), "add")
    return Labelled(cx.shape, y.layers)


@rule("aten.embedding")
def embedding(cx: Facts, weight: Labelled, indices: Labelled, *_: Any) -> Labelled:
    """Rows picked by index; the features stay labelled."""
    weight = even(cx, pin_dims(cx, weight, (0,), "rows are picked by index"), (0,))
    rank = len(cx.shape)
    layers = lift(_without(weight, (0,)), [*[None] * (rank - 1), 1]).layers
    return Labelled(cx.shape, layers)


@rule("aten.embedding_bag")
def embedding_bag(
    cx: Facts, weight: Labelled, indices: Labelled, offsets: Labelled, *_: Any, **__: Any
) -> tuple[Labelled, ...]:
    """Sums, means or maxima of rows picked by index; the others of its results count rows."""
    weight = even(cx, pin_dims(cx, weight, (0,), "rows are picked by index"), (0,))
    y = Labelled(cx.shape, _without(weight, (0,)).layers)
    # of maxima it says which rows they are from
    others = (y.nonzero() if len(s) == 2 else Labelled(s) for s in cx.shapes[1:])
    return y, *others


@rule("aten.sort")
def sort(cx: Facts, x: Labelled, dim: int = -1, *_: Any, **__: Any) -> tuple[Labelled, ...]:
    """Values in order of size, and where they were: the order is among all of them."""
    dims = (axis(x, dim),)
    x = even(cx, pin_dims(cx, x, dims, "values are put in order"), dims)
    return tuple(Labelled(shape, x.layers).nonzero() for shape in cx.shapes)


@rule("aten.topk")
def topk(cx: Facts, x: Labelled, k: int, dim: int = -1, *_: Any) -> tuple[Labelled, ...]:
    return sort(cx, x, dim)


_PICKED = [
    "nonzero",
    "masked_select",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "argsort",
    "searchsorted",
    "bucketize",
    "bincount",
    "histc",
    "item",
    "_local_scalar_dense",
    "is_nonzero",
    "equal",
    "allclose",
    "diag",
    "diagonal",
    "diag_embed",
    "one_hot",
    "multinomial",
    "trace",
    "cross",
    "cov",
    "corrcoef",
    "renorm",
    "take",
    "put",
]


@rule(
    *(f"aten.{name}" for name in _PICKED),
    "aten.where.default",
    "torchvision.nms",
    "torchvision.deform_conv2d",
)
def picked(cx: Facts, *args: Any, **named: Any) -> Any:
    """What is picked, counted or scattered by position leaves nothing to remove."""
    for value in (*args, *named.values()):
        for x in value if isinstance(value, tuple) else (value,):
            if isinstance(x, Labelled):
                pin_dims(cx, x, range(x.rank), "picked by position or by value")
    results = tuple(Labelled(shape) for shape in cx.shapes)
    return results if len(results) != 1 else results[0]
