"""Labels of several operands: matched elementwise, contracted, joined along a dimension."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from planc.rules.labels.atoms import NEVER, Atoms, canonical
from planc.rules.labels.coordinates import reduce
from planc.rules.labels.labelled import Labelled, Layer
from planc.rules.labels.shape import collapse, dense, insert, lift

if TYPE_CHECKING:
    from planc.rules.labels.facts import Facts

Mode = Literal["mul", "add", "div"]


def match(
    facts: Facts, xs: tuple[Layer, ...], ys: tuple[Layer, ...], mode: Mode
) -> tuple[Layer, ...]:
    """Tie the layers of two operands targeting one dimension, coarse with coarse and fine with
    fine. An unmatched layer is pinned, and a matching row family is requested for the next walk.
    """
    if not xs or not ys:
        facts.pin(xs or ys, "the other operand cannot shrink")
        return ()
    if len(xs) == len(ys) == 1:
        return (_tied(facts, xs[0], ys[0], mode),)
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
    result = [_tied(facts, x, y, mode) for x, y in pairs]
    for unmatched, other in ((alone, finest_y), (rest, finest_x)):
        for layer in unmatched:
            atoms, rows = np.broadcast_arrays(other.atoms, layer.atoms)
            facts.request_rows(atoms, rows)
            facts.pin([layer], "the other operand has no such rows")
            result.append(replace(layer, zero=False))
    return tuple(result)


def _partition(layer: Layer) -> Atoms:
    return canonical(layer.along())


def _tied(facts: Facts, x: Layer, y: Layer, mode: Mode) -> Layer:
    facts.tie(x.atoms, y.atoms)
    atoms = x.atoms if x.atoms.size <= y.atoms.size else y.atoms
    if mode == "mul":
        zero = x.zero or y.zero
    elif mode == "add":
        zero = x.zero and y.zero
    else:
        zero = x.zero and y.whole
        facts.mix([y] if y.zero else [], "division by removed coordinates")
    return Layer(atoms, x.target, zero)


def unify(facts: Facts, x: Labelled, y: Labelled, mode: Mode) -> Labelled:
    """Labels of an elementwise operation with broadcasting.

    ``mode`` determines the coordinates of the result that are zero in the masked model: those zero
    in either operand (``mul``), in both (``add``), or in the first one (``div``).
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
            layers.extend(match(facts, xs, ys, mode))
        elif m == 1:
            layers.extend(la if mode != "add" else replace(la, zero=False) for la in xs)
        else:
            if mode == "div":
                facts.mix([la for la in ys if la.zero], "division by removed coordinates")
            layers.extend(la if mode == "mul" else replace(la, zero=False) for la in ys)
    return Labelled(shape, tuple(replace(la, whole=False) if la.whole else la for la in layers))


def contract(
    facts: Facts, x: Labelled, x_dims: str, y: Labelled, y_dims: str, out_dims: str
) -> Labelled:
    """The sum of products over the letters absent from ``out_dims`` (einsum's notation)."""
    letters = out_dims + "".join(c for c in dict.fromkeys(x_dims + y_dims) if c not in out_dims)
    product = unify(facts, _lettered(x, x_dims, letters), _lettered(y, y_dims, letters), "mul")
    summed = range(len(out_dims), len(letters))
    for dim in summed:
        left_over = [la for la in product.targeting(dim) if not la.zero]
        facts.mix(left_over, "summed over coordinates that are not zero when masked")
    return reduce(facts, product, tuple(summed), keepdim=False)


def _lettered(x: Labelled, dims: str, letters: str) -> Labelled:
    return lift(x, [dims.index(c) if c in dims else None for c in letters])


def stack(facts: Facts, parts: Sequence[Labelled], dim: int) -> Labelled:
    """The parts as slices of a new dimension. They may lose different coordinates, but equally
    many.
    """
    parts = [insert(dense(part), dim) for part in parts]
    counts = {tuple(sorted(layer.target for layer in part.layers)) for part in parts}
    if len(counts) > 1:
        return concatenate(facts, parts, dim)
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
    facts.balance(result)
    return result


def _by_fineness(x: Labelled, dim: int) -> list[Layer]:
    return sorted(x.targeting(dim), key=Layer.fineness)


def concatenate(facts: Facts, parts: Sequence[Labelled], dim: int) -> Labelled:
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
            layers.extend(_together(facts, parts, other, dim))
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


def _together(facts: Facts, parts: Sequence[Labelled], dim: int, along: int) -> tuple[Layer, ...]:
    """The layers of all parts targeting ``dim``, matched with one another."""
    result: tuple[Layer, ...] | None = None
    for part in parts:
        layers = tuple(collapse(facts, layer, [along]) for layer in part.targeting(dim))
        if result is None:
            result = layers
        else:
            result = match(facts, result, layers, "add")
    return result or ()
