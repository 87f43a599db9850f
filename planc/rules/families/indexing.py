"""Indexing by tensors and other access by position, pinning the dimension indexed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from planc.rules.common import axis, pin_dims
from planc.rules.families.reduction import mixed
from planc.rules.labels import Labelled, even, lift, take, unify, window
from planc.rules.labels.facts import Atoms, Facts
from planc.rules.registry import rule


@rule("aten.index.Tensor", "aten._unsafe_index.Tensor")
def index(facts: Facts, x: Labelled, indices: Sequence[Labelled | None]) -> Labelled:
    """Advanced indexing: the dimensions of the indices replace the indexed ones."""
    if len(facts.shape) != x.rank - sum(e is not None for e in indices) + _rank_of(indices):
        picked(facts, x, indices)  # a mask of several dimensions
        return Labelled(facts.shape)
    given = [i for i, entry in enumerate(indices) if entry is not None]
    if len(given) == 1 and (chosen := _known(indices[given[0]])) is not None:
        return _taken(facts, x, given[0], chosen)
    x = even(facts, pin_dims(facts, x, given, "positions are picked by index"), given)
    for entry in indices:
        if entry is not None:
            pin_dims(facts, entry, range(entry.rank), "used as an index")
    rest = [d for d in range(x.rank) if d not in given]
    new = len(facts.shape) - len(rest)
    if given and given == list(range(given[0], given[-1] + 1)):
        at = given[0]
    else:
        at = 0
    places: list[int | None] = [*rest[:at], *[None] * new, *rest[at:]]
    if any(e is not None and e.shape and x.layers == () for e in indices):
        return Labelled(facts.shape)
    return Labelled(facts.shape, lift(_without(x, given), places).layers)


def _known(index: Labelled | None) -> Atoms | None:
    """The content of a list of positions, if known."""
    known = index is not None and index.rank == 1 and index.constant is not None
    if not known or index is None or index.constant is None or index.constant.dtype == bool:
        return None
    return index.constant.astype(np.int64)


def _taken(facts: Facts, x: Labelled, dim: int, chosen: Atoms) -> Labelled:
    """Coordinates selected by a constant list. The coordinates between each of them and the end it
    is counted from are pinned, because their removal would shift the selection.
    """
    n = x.shape[dim]
    for side in (chosen[chosen >= 0], chosen[chosen < 0]):
        if len(side):
            first, last = (0, side.max() + 1) if side[0] >= 0 else (n + side.min(), n)
            between = window(x, dim, int(first), int(last)).targeting(dim)
            facts.pin(between, "positions are picked by index")
    return take(facts, x, dim, chosen % n)


def _rank_of(indices: Sequence[Labelled | None]) -> int:
    """The number of dimensions that indices broadcast to."""
    return max((entry.rank for entry in indices if entry is not None), default=0)


def _without(x: Labelled, dims: Sequence[int]) -> Labelled:
    gone = set(dims)
    return Labelled(tuple(1 if d in gone else n for d, n in enumerate(x.shape)), x.layers)


@rule("aten.index_put", "aten._index_put_impl", "aten._unsafe_index_put")
def index_put(
    facts: Facts, x: Labelled, indices: Sequence[Labelled | None], values: Labelled, *_: Any
) -> Labelled:
    """x[indices] = values: outside the indexed dimensions, the values shrink with ``x``."""
    given = [i for i, entry in enumerate(indices) if entry is not None]
    adjacent = bool(given) and given == list(range(given[0], given[-1] + 1))
    if not adjacent or _rank_of(indices) != 1 or values.rank > x.rank - len(given) + 1:
        picked(facts, x, indices, values)
        return Labelled(facts.shape)
    for entry in indices:
        if entry is not None:
            pin_dims(facts, entry, range(entry.rank), "used as an index")
    first, after = given[0], x.rank - 1 - given[-1]
    row = [values.rank - 1 - after] if values.rank > after else []
    x = even(facts, pin_dims(facts, x, given, "positions are picked by index"), given)
    values = even(facts, pin_dims(facts, values, row, "positions are picked by index"), row)
    one = lift(_without(x, given), [*range(first + 1), *range(given[-1] + 1, x.rank)])
    y = unify(facts, one, _without(values, row), "add")
    rest = range(first + 1, y.rank)
    return Labelled(
        facts.shape, lift(y, [*range(first + 1), *[None] * (len(given) - 1), *rest]).layers
    )


@rule("aten.index_select")
def index_select(facts: Facts, x: Labelled, dim: int, index: Labelled) -> Labelled:
    dims = (axis(x, dim),)
    x = even(facts, pin_dims(facts, x, dims, "positions are picked by index"), dims)
    return Labelled(facts.shape, x.layers)


@rule("aten.take_along_dim")
def take_along_dim(
    facts: Facts, x: Labelled, indices: Labelled, dim: int | None = None
) -> Labelled:
    if dim is None:
        picked(facts, x, indices)
        return Labelled(facts.shape)
    return gather(facts, x, dim, indices)


@rule("aten.gather")
def gather(facts: Facts, x: Labelled, dim: int, index: Labelled, **_: Any) -> Labelled:
    """out[i, j] = x[index[i, j], j]: the index shrinks with the other dimensions."""
    dims = (axis(x, dim),)
    x = even(facts, pin_dims(facts, x, dims, "positions are picked by index"), dims)
    if any(
        n != m for d, (n, m) in enumerate(zip(x.shape, index.shape, strict=True)) if d not in dims
    ):
        for value in (x, index):
            pin_dims(facts, value, range(value.rank), "gathered by an index of another shape")
        return Labelled(facts.shape)
    return unify(facts, _without(x, dims), index.nonzero(), "mul")


@rule("aten.scatter", "aten.scatter_add", "aten.scatter_reduce")
def scatter(
    facts: Facts, x: Labelled, dim: int, index: Labelled, src: Any, *_: Any, **__: Any
) -> Labelled:
    """out[index[i, j], j] = src[i, j]: all three shrink together outside the indexed dimension."""
    dims = (axis(x, dim),)
    tensors = [t for t in (x, index, src) if isinstance(t, Labelled) and t.rank == x.rank]
    rest = {tuple(n for d, n in enumerate(t.shape) if d not in dims) for t in tensors}
    if len(rest) > 1:
        picked(facts, x, index, src)
        return Labelled(facts.shape)
    return _written(facts, x, dims, src, index)


@rule("aten.index_add", "aten.index_copy", "aten.index_fill")
def index_write(
    facts: Facts, x: Labelled, dim: int, index: Labelled, src: Any, *_: Any, **__: Any
) -> Labelled:
    """out[index[i], j] = src[i, j], or one value."""
    pin_dims(facts, index, range(index.rank), "used as an index")
    return _written(facts, x, (axis(x, dim),), src)


def _written(
    facts: Facts, x: Labelled, dims: Sequence[int], src: Any, index: Labelled | None = None
) -> Labelled:
    """``x`` with ``src``, a tensor or a number, written along ``dims``."""

    def one(value: Labelled) -> Labelled:
        value = even(facts, pin_dims(facts, value, dims, "positions are picked by index"), dims)
        return _without(value, dims)

    y = one(x)
    if isinstance(src, Labelled):
        y = unify(facts, y, one(src) if src.rank else src, "add")
    elif src != 0:
        y = y.nonzero()
    if index is not None:  # an index selects places, its values are never results
        y = unify(facts, y, one(index).nonzero(), "mul")
    return Labelled(facts.shape, y.layers)


@rule("aten.masked_scatter")
def masked_scatter(facts: Facts, x: Labelled, mask: Labelled, source: Labelled) -> Labelled:
    """Consume coordinates of ``source`` in order where the mask is True. If the mask has size 1 in
    all of the last dimensions, and both tensors are equally wide there, whole rows are consumed.
    """
    rank = len(facts.shape)
    if source.rank > rank:
        picked(facts, x, mask, source)
        return Labelled(facts.shape)
    rows, at, of = (lift(v, [None] * (rank - v.rank) + [*range(v.rank)]) for v in (x, mask, source))
    first = rank
    while first and at.shape[first - 1] == 1 and rows.shape[first - 1] == of.shape[first - 1]:
        first -= 1
    picking = range(first)
    rows, of = (
        even(facts, pin_dims(facts, v, picking, "picked by position or by value"), picking)
        for v in (rows, of)
    )
    pin_dims(facts, at, range(rank), "used as an index")
    y = unify(facts, _without(rows, picking), _without(of, picking), "add")
    return Labelled(facts.shape, y.layers)


@rule("aten.embedding")
def embedding(facts: Facts, weight: Labelled, indices: Labelled, *_: Any) -> Labelled:
    """Rows selected by index; the features stay labelled."""
    weight = even(facts, pin_dims(facts, weight, (0,), "rows are picked by index"), (0,))
    rank = len(facts.shape)
    layers = lift(_without(weight, (0,)), [*[None] * (rank - 1), 1]).layers
    return Labelled(facts.shape, layers)


@rule("aten.embedding_bag")
def embedding_bag(
    facts: Facts, weight: Labelled, indices: Labelled, offsets: Labelled, *_: Any, **__: Any
) -> tuple[Labelled, ...]:
    """Sums, means or maxima of rows selected by index; the other results count rows."""
    weight = even(facts, pin_dims(facts, weight, (0,), "rows are picked by index"), (0,))
    y = Labelled(facts.shape, _without(weight, (0,)).layers)
    # for maxima one result holds their rows
    others = (y.nonzero() if len(s) == 2 else Labelled(s) for s in facts.shapes[1:])
    return y, *others


@rule("aten.sort")
def sort(facts: Facts, x: Labelled, dim: int = -1, *_: Any, **__: Any) -> tuple[Labelled, ...]:
    """Sorted values and their positions, depending on all coordinates along ``dim``."""
    dims = (axis(x, dim),)
    x = even(facts, pin_dims(facts, x, dims, "values are put in order"), dims)
    return tuple(Labelled(shape, x.layers).nonzero() for shape in facts.shapes)


@rule("aten.topk")
def topk(facts: Facts, x: Labelled, k: int, dim: int = -1, *_: Any) -> tuple[Labelled, ...]:
    """The largest values in order, and their positions: if read, these pin the dimension."""
    if facts.unsure or facts.read[1]:
        return sort(facts, x, dim)
    dim = axis(x, dim)
    facts.plural(x, dim, least=k)
    y = mixed(facts, x, (dim,), True, "its largest values are picked")
    return tuple(Labelled(shape, y.layers).nonzero() for shape in facts.shapes)


_PICKED = """
    _local_scalar_dense _unique2 allclose argsort bincount bucketize corrcoef cov cross equal
    histc is_nonzero item linalg_cross masked_select multinomial nonzero one_hot put renorm
    searchsorted take unique_consecutive unique_dim
"""


@rule(
    *(f"aten.{name}" for name in _PICKED.split()),
    "aten.where.default",
    "torchvision.nms",
)
def picked(facts: Facts, *args: Any, **named: Any) -> Any:
    """Results selected, counted or scattered by position: every operand is pinned."""
    for value in (*args, *named.values()):
        for x in value if isinstance(value, tuple) else (value,):
            if isinstance(x, Labelled):
                pin_dims(facts, x, range(x.rank), "picked by position or by value")
    results = tuple(Labelled(shape) for shape in facts.shapes)
    return results if len(results) != 1 else results[0]
