"""The label algebra: atoms on coordinates, and the few operations that all rules are made of.

A value is :class:`Labelled`: its shape and layers of atoms. A coordinate vanishes when any layer
gives it a removed atom; the layer's ``target`` is the dimension that gets shorter. Operations take
and return labelled values and write what follows (ties, pins, requests) to :class:`Facts`. No
operator is named here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from planc.facts import NEVER, Atoms, Facts, canonical

Shape = tuple[int, ...]
Mode = Literal["mul", "add", "div"]


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """Atoms that broadcast to the value's shape, and the dimension that they make shorter.

    In a dimension of size n that is not the target, the array may have a divisor of n as its size:
    each entry then stands for a block of equal ones (:func:`dense` spells them out).

    ``zero`` says that in the masked model the coordinates of removed atoms are exactly zero.
    """

    atoms: Atoms
    target: int
    zero: bool = True

    @property
    def varying(self) -> tuple[int, ...]:
        """The dimensions along which the atoms differ."""
        return tuple(d for d, n in enumerate(self.atoms.shape) if n > 1)

    @property
    def ragged(self) -> bool:
        """Whether the atoms differ along other dimensions than the target."""
        return bool(self.atoms.size > self.atoms.shape[self.target])

    def along(self) -> Atoms:
        """The atoms along the target, at the first place of all other dimensions."""
        atoms = self.atoms
        if atoms.size == atoms.shape[self.target]:
            return atoms.reshape(-1)
        first: Atoms = self.lines()[0]
        return first

    def lines(self) -> Atoms:
        """The atoms along the target, one line for each place outside it."""
        moved = np.moveaxis(self.atoms, self.target, -1)
        return moved.reshape(-1, moved.shape[-1])

    def fineness(self) -> int:
        """The number of distinct atoms along the target."""
        return int(canonical(self.along()).max(initial=0))


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """A value's shape and its layers; ``constant`` is what is known of its content, ``blank`` that
    it is zero all over, so that one of its coordinates is as good as another.
    """

    shape: Shape
    layers: tuple[Layer, ...] = ()
    constant: Atoms | None = None
    blank: bool = False

    @property
    def rank(self) -> int:
        return len(self.shape)

    def targeting(self, dim: int) -> tuple[Layer, ...]:
        """The layers that make dimension ``dim`` shorter, in no particular order."""
        return tuple(layer for layer in self.layers if layer.target == dim)

    def finest(self, dim: int) -> Layer | None:
        """The layer targeting ``dim`` with the most distinct atoms."""
        layers = self.targeting(dim)
        if len(layers) < 2:
            return layers[0] if layers else None
        return max(layers, key=Layer.fineness)

    def nonzero(self) -> Labelled:
        """The same labels, with no coordinate known to be zero in the masked model."""
        if not self.blank and not any(layer.zero for layer in self.layers):
            return self
        return Labelled(self.shape, tuple(replace(layer, zero=False) for layer in self.layers))


# -- shape ---------------------------------------------------------------------------------------


def lift(x: Labelled, places: Sequence[int | None]) -> Labelled:
    """``x`` permuted and with new dimensions of size 1 where ``places`` says None.

    ``places`` names, for each new dimension, the old one; all old ones occur or have size 1.
    """
    shape = tuple(1 if old is None else x.shape[old] for old in places)
    order = [old for old in places if old is not None]
    inverse = {old: new for new, old in enumerate(places) if old is not None}
    layers = []
    for layer in x.layers:
        dims = tuple(1 if old is None else layer.atoms.shape[old] for old in places)
        if order != sorted(order) or len(order) < x.rank:
            rest = [d for d in range(x.rank) if d not in inverse]
            atoms = layer.atoms.transpose(order + rest).reshape(dims)
        else:
            atoms = layer.atoms.reshape(dims)
        layers.append(Layer(atoms, inverse[layer.target], layer.zero))
    return Labelled(shape, tuple(layers))


def permute(x: Labelled, dims: Sequence[int]) -> Labelled:
    """Dimension ``i`` of the result is dimension ``dims[i]`` of ``x``."""
    return lift(x, dims)


def blocks(old: Shape, new: Shape) -> Iterator[tuple[int, int, int, int]]:
    """Ranges ``old[i:j]`` and ``new[k:l]`` of equal product, as small as possible."""
    i = k = 0
    while i < len(old) or k < len(new):
        j, m = i, k
        left = right = 1
        if j < len(old):
            left, j = old[j], j + 1
        if m < len(new):
            right, m = new[m], m + 1
        while left != right:
            if left < right:
                left, j = left * old[j], j + 1
            else:
                right, m = right * new[m], m + 1
        yield i, j, k, m
        i, k = j, m


def reshape(cx: Facts, x: Labelled, shape: Shape) -> Labelled:
    """``x`` viewed in row-major order with another shape. Splitting a labelled dimension asks for a
    row family on every level of the split.
    """
    if x.shape == shape or not x.layers:
        return Labelled(shape, x.layers if x.shape == shape else ())
    if 0 in x.shape:
        return _reshape_empty(cx, x, shape)
    parts = list(blocks(x.shape, shape))
    if not all(_splits_blocks(x, i, j, shape[k:m]) for i, j, k, m in parts):
        x = dense(x)
    finest = {id(x.finest(layer.target)) for layer in x.layers}
    layers = []
    for layer in x.layers:
        new = _reshape_layer(cx, x, layer, shape, parts, id(layer) in finest)
        if new is not None:
            layers.append(new)
    result = Labelled(shape, tuple(layers))
    cx.balance(result)
    return result


def _reshape_empty(cx: Facts, x: Labelled, shape: Shape) -> Labelled:
    """``x`` has no elements: its other dimensions are viewed as if there were one in each empty one
    (a batch of nothing).
    """
    old, new = (tuple(n or 1 for n in sizes) for sizes in (x.shape, shape))
    if math.prod(old) != math.prod(new) or any(0 in la.atoms.shape for la in x.layers):
        cx.pin(x.layers, "a view of an empty tensor")
        return Labelled(shape)
    return Labelled(shape, reshape(cx, Labelled(old, x.layers), new).layers)


def _splits_blocks(x: Labelled, i: int, j: int, new: Shape) -> bool:
    """Whether blocks that entries stand for stay whole when ``x.shape[i:j]`` becomes ``new``."""
    if x.shape[i:j] == new:
        return True
    for layer in x.layers:
        entries = layer.atoms.shape[i:j]
        if any(n not in (1, m) for n, m in zip(entries, x.shape[i:j], strict=True)):
            return _outer_dims(entries, x.shape[i:j], new) is not None
    return True


def _reshape_layer(
    cx: Facts,
    x: Labelled,
    layer: Layer,
    shape: Shape,
    parts: list[tuple[int, int, int, int]],
    finest: bool,
) -> Layer | None:
    full: list[int] = []
    result: list[int] = []
    changed: list[int] = []
    home = (0, 0)
    split = False
    for i, j, k, m in parts:
        same = x.shape[i:j] == shape[k:m]
        if i <= layer.target < j:
            home = (k, m)
            split = not same
            if split:
                inner = [d for d in range(layer.target + 1, j) if layer.atoms.shape[d] > 1]
                layer = collapse(cx, layer, inner)
        constant = all(n == 1 for n in layer.atoms.shape[i:j])
        outer = _outer_dims(layer.atoms.shape[i:j], x.shape[i:j], shape[k:m])
        if outer is not None:
            full.extend(layer.atoms.shape[i:j])
            result.extend((*shape[k : k + outer], *(1,) * (m - k - outer)))
        elif constant or same:
            full.extend(layer.atoms.shape[i:j])
            result.extend((1,) * (m - k) if constant else layer.atoms.shape[i:j])
        else:
            full.extend(x.shape[i:j])
            result.extend(shape[k:m])
            changed.extend(range(k, m))
    atoms = np.broadcast_to(layer.atoms, full).reshape(result)
    for dim in changed:
        if atoms.shape[dim] > 1:
            first = atoms.take([0], axis=dim)
            if (atoms == first).all():
                atoms = first
    varying = [d for d in range(*home) if atoms.shape[d] > 1]
    if not varying:
        cx.pin([layer], "a dimension of one coordinate")
        return None
    target = varying[-1]
    if split and finest and len(varying) > 1:
        _request_levels(cx, atoms, varying)
    return Layer(atoms, target, layer.zero)


def _outer_dims(entries: Shape, old: Shape, new: Shape) -> int | None:
    """How many of the dimensions that one is split into count the blocks that its entries stand
    for; None where each entry stands for itself.
    """
    if len(entries) != 1 or entries[0] in (1, old[0]):
        return None
    for count in range(1, len(new) + 1):
        if math.prod(new[:count]) == entries[0]:
            return count
    return None


def _request_levels(cx: Facts, atoms: Atoms, split: list[int]) -> None:
    """Asks for rows on every level above the innermost of the dimensions ``split``: a row is named
    by the atom it begins with, so that a row that occurs twice is one.
    """
    for level in range(1, len(split)):
        rows = atoms
        for dim in split[level:]:
            rows = rows.take([0], axis=dim)
        cx.request_rows(atoms, np.broadcast_to(rows, atoms.shape))


def squeeze(cx: Facts, x: Labelled, dims: Sequence[int]) -> Labelled:
    """Drops dimensions of size 1."""
    return lift(x, [d for d in range(x.rank) if d not in set(dims)])


def insert(x: Labelled, dim: int) -> Labelled:
    """Adds a dimension of size 1 before ``dim``."""
    places: list[int | None] = list(range(x.rank))
    places.insert(dim, None)
    return lift(x, places)


def dense(x: Labelled) -> Labelled:
    """``x`` with every entry that stands for a block of coordinates repeated for each of them."""
    if all(n in (1, m) for la in x.layers for n, m in zip(la.atoms.shape, x.shape, strict=True)):
        return x
    layers = []
    for layer in x.layers:
        atoms = layer.atoms
        for dim, (n, m) in enumerate(zip(atoms.shape, x.shape, strict=True)):
            if 1 < n < m:
                atoms = atoms.repeat(m // n, axis=dim)
        layers.append(replace(layer, atoms=atoms))
    return Labelled(x.shape, tuple(layers), x.constant)


# -- coordinates ---------------------------------------------------------------------------------


def collapse(cx: Facts, layer: Layer, dims: Sequence[int]) -> Layer:
    """Ties the atoms of a layer along ``dims``, so that it no longer varies there."""
    atoms = layer.atoms
    for dim in dims:
        if atoms.shape[dim] > 1:
            first = atoms.take([0], axis=dim)
            cx.tie(atoms, np.broadcast_to(first, atoms.shape))
            atoms = first
    return replace(layer, atoms=atoms) if atoms is not layer.atoms else layer


def even(cx: Facts, x: Labelled, dims: Sequence[int]) -> Labelled:
    """Ties layers along ``dims`` that they do not target: the operation looks along ``dims``."""
    if not any(n > 1 for layer in x.layers for n in (layer.atoms.shape[d] for d in dims)):
        return x
    layers = (collapse(cx, la, [d for d in dims if d != la.target]) for la in x.layers)
    return Labelled(x.shape, tuple(layers))


def reduce(cx: Facts, x: Labelled, dims: Sequence[int], keepdim: bool) -> Labelled:
    """Drops the layers that target ``dims``; the result has size 1 there, or no such dimension."""
    gone = set(dims)
    x = even(cx, x, dims)
    cx.end([layer for layer in x.layers if layer.target in gone])
    layers = tuple(layer for layer in x.layers if layer.target not in gone)
    kept = Labelled(tuple(1 if d in gone else n for d, n in enumerate(x.shape)), layers)
    return kept if keepdim else squeeze(cx, kept, dims)


def take(cx: Facts, x: Labelled, dim: int, index: Atoms) -> Labelled:
    """The coordinates ``index`` of dimension ``dim``, in that order."""
    x = dense(x)
    shape = (*x.shape[:dim], len(index), *x.shape[dim + 1 :])
    layers = []
    for layer in x.layers:
        atoms = layer.atoms if layer.atoms.shape[dim] == 1 else layer.atoms.take(index, axis=dim)
        if layer.target == dim and len(index) < 2:
            cx.pin([replace(layer, atoms=atoms)], "a single coordinate is picked")
        else:
            layers.append(replace(layer, atoms=atoms))
    return Labelled(shape, tuple(layers))


def window(x: Labelled, dim: int, start: int, stop: int) -> Labelled:
    """The coordinates ``start <= i < stop`` of dimension ``dim``, to measure their width."""
    x = dense(x)
    shape = (*x.shape[:dim], stop - start, *x.shape[dim + 1 :])
    layers = []
    for layer in x.layers:
        if layer.atoms.shape[dim] > 1:
            layer = replace(layer, atoms=layer.atoms.take(np.arange(start, stop), axis=dim))
        layers.append(layer)
    return Labelled(shape, tuple(layers))


def merge(cx: Facts, x: Labelled, dim: int) -> Labelled:
    """Ties the coordinates along ``dim``, so that only whole lines of it can go."""
    x = dense(x)
    layers = []
    for layer in x.layers:
        rest = [d for d in layer.varying if d != dim]
        if layer.target != dim:
            layers.append(collapse(cx, layer, [dim]))
        elif rest:
            layers.append(replace(collapse(cx, layer, [dim]), target=rest[-1]))
        else:
            cx.pin([layer], "all of the dimension is needed")
    return Labelled(x.shape, tuple(layers))


def bind(cx: Facts, x: Labelled, dim: int, size: int) -> None:
    """Ties the coordinates in each of the equal blocks of ``size`` of a dimension to one another,
    so that only whole blocks can go.
    """
    for layer in dense(x).targeting(dim):
        atoms = layer.atoms
        apart = atoms.reshape((*atoms.shape[:dim], -1, size, *atoms.shape[dim + 1 :]))
        cx.tie(apart, np.broadcast_to(apart.take([0], axis=dim + 1), apart.shape))


def fold(cx: Facts, x: Labelled, dim: int, count: int) -> Labelled:
    """Ties ``count`` equal blocks of a dimension, index by index; one block is left. Unlike after
    a reshape, no block can go by itself, so no row family is asked for.
    """
    x = dense(x)
    size = x.shape[dim] // count
    layers = []
    for layer in x.layers:
        atoms = layer.atoms
        if atoms.shape[dim] > 1:
            apart = atoms.reshape((*atoms.shape[:dim], count, size, *atoms.shape[dim + 1 :]))
            first = apart.take([0], axis=dim)
            cx.tie(apart, np.broadcast_to(first, apart.shape))
            atoms = first.squeeze(dim)
        if layer.target == dim and (atoms == atoms.take([0], axis=dim)).all():
            cx.pin([layer], "a dimension of one coordinate")
        else:
            layers.append(replace(layer, atoms=atoms))
    return Labelled((*x.shape[:dim], size, *x.shape[dim + 1 :]), tuple(layers))


def stack(cx: Facts, parts: Sequence[Labelled], dim: int) -> Labelled:
    """The parts as slices of a new dimension: which coordinates go may differ, how many may not."""
    parts = [insert(dense(part), dim) for part in parts]
    counts = {tuple(sorted(layer.target for layer in part.layers)) for part in parts}
    if len(counts) > 1:
        return concatenate(cx, parts, dim)
    shape = (*parts[0].shape[:dim], len(parts), *parts[0].shape[dim + 1 :])
    layers = []
    for target in range(len(shape)):
        for pieces in zip(*(_by_fineness(part, target) for part in parts), strict=True):
            if all(np.array_equal(piece.atoms, pieces[0].atoms) for piece in pieces):
                layers.append(replace(pieces[0], zero=all(piece.zero for piece in pieces)))
                continue
            full = np.broadcast_shapes(*(piece.atoms.shape for piece in pieces))
            atoms = np.concatenate([np.broadcast_to(p.atoms, full) for p in pieces], axis=dim)
            layers.append(Layer(atoms, target, all(piece.zero for piece in pieces)))
    result = Labelled(shape, tuple(layers))
    cx.balance(result)
    return result


def _by_fineness(x: Labelled, dim: int) -> list[Layer]:
    return sorted(x.targeting(dim), key=Layer.fineness)


def concatenate(cx: Facts, parts: Sequence[Labelled], dim: int) -> Labelled:
    """The parts one after another along ``dim``; their other dimensions shrink together."""
    parts = [dense(part) for part in parts]
    sizes = [part.shape[dim] for part in parts]
    total = sum(sizes)
    shape = (*parts[0].shape[:dim], total, *parts[0].shape[dim + 1 :])
    layers: list[Layer] = []
    finest = [part.finest(dim) for part in parts]
    if any(layer is not None for layer in finest):
        layers.append(_joined(finest, sizes, dim, len(shape)))
    for i, part in enumerate(parts):
        for layer in part.targeting(dim):
            if layer is not finest[i]:
                alone = [layer if j == i else None for j in range(len(parts))]
                layers.append(_joined(alone, sizes, dim, len(shape)))
    for other in range(len(shape)):
        if other != dim and shape[other] > 1:
            layers.extend(_together(cx, parts, other, dim))
    return Labelled(shape, tuple(layers))


def _joined(pieces: Sequence[Layer | None], sizes: list[int], dim: int, rank: int) -> Layer:
    present = [piece for piece in pieces if piece is not None]
    others = np.broadcast_shapes(
        *(tuple(1 if d == dim else n for d, n in enumerate(p.atoms.shape)) for p in present)
    )
    arrays = []
    for piece, size in zip(pieces, sizes, strict=True):
        shape = (*others[:dim], size, *others[dim + 1 :])
        atoms = np.int64(NEVER) if piece is None else piece.atoms
        arrays.append(np.broadcast_to(atoms, shape))
    zero = all(piece is None or piece.zero for piece in pieces)
    return Layer(np.concatenate(arrays, axis=dim), dim, zero)


def _together(cx: Facts, parts: Sequence[Labelled], dim: int, along: int) -> tuple[Layer, ...]:
    """The layers targeting ``dim`` of all parts, matched with one another."""
    result: tuple[Layer, ...] | None = None
    for part in parts:
        layers = tuple(collapse(cx, layer, [along]) for layer in part.targeting(dim))
        if result is None:
            result = layers
        else:
            result = match(cx, result, layers, "add")
    return result or ()


# -- two operands --------------------------------------------------------------------------------


def match(cx: Facts, xs: tuple[Layer, ...], ys: tuple[Layer, ...], mode: Mode) -> tuple[Layer, ...]:
    """Ties the layers of two operands that target one dimension, coarse with coarse and fine with
    fine. What has no partner is asked for on the other side, and pinned until it is there.
    """
    if not xs or not ys:
        cx.pin(xs or ys, "the other operand cannot shrink")
        return ()
    if len(xs) == len(ys) == 1:
        return (_tied(cx, xs[0], ys[0], mode),)
    pairs: list[tuple[Layer, Layer]] = []
    rest = list(ys)
    keys = [_partition(layer) for layer in rest]
    alone: list[Layer] = []
    for x in xs:
        key = _partition(x)
        at = next((i for i, other in enumerate(keys) if np.array_equal(other, key)), None)
        if at is None:
            alone.append(x)
        else:
            pairs.append((x, rest.pop(at)))
            keys.pop(at)
    finest_x, finest_y = max(xs, key=Layer.fineness), max(ys, key=Layer.fineness)
    if any(x is finest_x for x in alone) and any(y is finest_y for y in rest):
        pairs.append((finest_x, finest_y))
        alone = [x for x in alone if x is not finest_x]
        rest = [y for y in rest if y is not finest_y]
    result = [_tied(cx, x, y, mode) for x, y in pairs]
    for unmatched, other in ((alone, finest_y), (rest, finest_x)):
        for layer in unmatched:
            atoms, rows = np.broadcast_arrays(other.atoms, layer.atoms)
            cx.request_rows(atoms, rows)
            cx.pin([layer], "the other operand has no such rows")
            result.append(replace(layer, zero=False))
    return tuple(result)


def _partition(layer: Layer) -> Atoms:
    return canonical(layer.along())


def _tied(cx: Facts, x: Layer, y: Layer, mode: Mode) -> Layer:
    cx.tie(x.atoms, y.atoms)
    atoms = x.atoms if x.atoms.size <= y.atoms.size else y.atoms
    if mode == "mul":
        zero = x.zero or y.zero
    elif mode == "add":
        zero = x.zero and y.zero
    else:
        zero = False
        cx.mix([y] if y.zero else [], "division by removed coordinates")
    return Layer(atoms, x.target, zero)


def unify(cx: Facts, x: Labelled, y: Labelled, mode: Mode) -> Labelled:
    """An elementwise operation with broadcasting.

    ``mode`` says when a coordinate of the result is zero in the masked model: ``mul`` if either
    operand's is, ``add`` if both are, ``div`` if the first one's is.
    """
    x, y = dense(x), dense(y)
    rank = max(x.rank, y.rank)
    x, y = (lift(v, [None] * (rank - v.rank) + list(range(v.rank))) for v in (x, y))
    shape = tuple(b if a == 1 else a for a, b in zip(x.shape, y.shape, strict=True))
    layers: list[Layer] = []
    for dim, (n, m) in enumerate(zip(x.shape, y.shape, strict=True)):
        xs, ys = x.targeting(dim), y.targeting(dim)
        if not xs and not ys:
            continue
        if n == m:
            layers.extend(match(cx, xs, ys, mode))
        elif m == 1:
            layers.extend(la if mode != "add" else replace(la, zero=False) for la in xs)
        else:
            if mode == "div":
                cx.mix([la for la in ys if la.zero], "division by removed coordinates")
            layers.extend(la if mode == "mul" else replace(la, zero=False) for la in ys)
    return Labelled(shape, tuple(layers))


def contract(
    cx: Facts, x: Labelled, x_dims: str, y: Labelled, y_dims: str, out_dims: str
) -> Labelled:
    """The sum of products over the letters that are not in ``out_dims`` (einsum's notation)."""
    letters = out_dims + "".join(c for c in dict.fromkeys(x_dims + y_dims) if c not in out_dims)
    product = unify(cx, _lettered(x, x_dims, letters), _lettered(y, y_dims, letters), "mul")
    summed = range(len(out_dims), len(letters))
    for dim in summed:
        left_over = [la for la in product.targeting(dim) if not la.zero]
        cx.mix(left_over, "summed over coordinates that are not zero when masked")
    return reduce(cx, product, tuple(summed), keepdim=False)


def _lettered(x: Labelled, dims: str, letters: str) -> Labelled:
    return lift(x, [dims.index(c) if c in dims else None for c in letters])


def volume(shape: Sequence[int]) -> int:
    """The number of coordinates of a shape."""
    return math.prod(shape)
