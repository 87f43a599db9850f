"""Labels under a change of shape: dimensions permuted, added, dropped, split and flattened."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from planc.rules.labels.atoms import Atoms
from planc.rules.labels.labelled import Labelled, Layer, Shape

if TYPE_CHECKING:
    from planc.rules.labels.facts import Facts


def lift(x: Labelled, places: Sequence[int | None]) -> Labelled:
    """Permute ``x`` and insert dimensions of size 1 where ``places`` is None.

    ``places`` names the old dimension of each new one; every old dimension occurs or has size 1.
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
        layers.append(Layer(atoms, inverse[layer.target], layer.zero, layer.whole))
    return Labelled(shape, tuple(layers))


def permute(x: Labelled, dims: Sequence[int]) -> Labelled:
    """Dimension ``i`` of the result is dimension ``dims[i]`` of ``x``."""
    return lift(x, dims)


def squeeze(facts: Facts, x: Labelled, dims: Sequence[int]) -> Labelled:
    """Drop dimensions of size 1."""
    return lift(x, [d for d in range(x.rank) if d not in set(dims)])


def insert(x: Labelled, dim: int) -> Labelled:
    """Add a dimension of size 1 before ``dim``."""
    places: list[int | None] = list(range(x.rank))
    places.insert(dim, None)
    return lift(x, places)


def dense(x: Labelled) -> Labelled:
    """``x`` with entries that stand for blocks repeated, one for each coordinate of the block."""
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


def volume(shape: Sequence[int]) -> int:
    """The number of coordinates of a shape."""
    return math.prod(shape)


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


def collapse(facts: Facts, layer: Layer, dims: Sequence[int]) -> Layer:
    """Tie the atoms of a layer along ``dims``, so that it no longer varies there."""
    atoms = layer.atoms
    for dim in dims:
        if atoms.shape[dim] > 1:
            first = atoms.take([0], axis=dim)
            facts.tie(atoms, np.broadcast_to(first, atoms.shape))
            atoms = first
    return replace(layer, atoms=atoms) if atoms is not layer.atoms else layer


def reshape(facts: Facts, x: Labelled, shape: Shape) -> Labelled:
    """``x`` viewed in row-major order with another shape. Splitting a labelled dimension requests a
    row family on every level of the split.
    """
    if x.shape == shape or not x.layers:
        return Labelled(shape, x.layers if x.shape == shape else ())
    if 0 in x.shape:
        return _reshape_empty(facts, x, shape)
    parts = list(blocks(x.shape, shape))
    if not all(_splits_blocks(x, i, j, shape[k:m]) for i, j, k, m in parts):
        x = dense(x)
    finest = {id(x.finest(layer.target)) for layer in x.layers}
    layers = []
    for layer in x.layers:
        new = _reshape_layer(facts, x, layer, shape, parts, id(layer) in finest)
        if new is not None:
            layers.append(new)
    result = Labelled(shape, tuple(layers))
    facts.balance(result)
    return result


def _reshape_empty(facts: Facts, x: Labelled, shape: Shape) -> Labelled:
    """Reshape a value without elements (an empty batch): empty dimensions count as size 1."""
    old, new = (tuple(n or 1 for n in sizes) for sizes in (x.shape, shape))
    if math.prod(old) != math.prod(new) or any(0 in la.atoms.shape for la in x.layers):
        facts.pin(x.layers, "a view of an empty tensor")
        return Labelled(shape)
    return Labelled(shape, reshape(facts, Labelled(old, x.layers), new).layers)


def _splits_blocks(x: Labelled, i: int, j: int, new: Shape) -> bool:
    """True if the blocks behind entries stay whole when ``x.shape[i:j]`` becomes ``new``."""
    if x.shape[i:j] == new:
        return True
    for layer in x.layers:
        entries = layer.atoms.shape[i:j]
        if any(n not in (1, m) for n, m in zip(entries, x.shape[i:j], strict=True)):
            return _outer_dims(entries, x.shape[i:j], new) is not None
    return True


def _reshape_layer(
    facts: Facts,
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
                layer = collapse(facts, layer, inner)
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
        facts.pin([layer], "a dimension of one coordinate")
        return None
    target = varying[-1]
    if split and finest and len(varying) > 1:
        _request_levels(facts, atoms, varying)
    return Layer(atoms, target, layer.zero)


def _outer_dims(entries: Shape, old: Shape, new: Shape) -> int | None:
    """The number of leading dimensions of a split that count the blocks behind its entries; None if
    each entry stands for itself.
    """
    if len(entries) != 1 or entries[0] in (1, old[0]):
        return None
    for count in range(1, len(new) + 1):
        if math.prod(new[:count]) == entries[0]:
            return count
    return None


def _request_levels(facts: Facts, atoms: Atoms, split: list[int]) -> None:
    """Request rows on every level above the innermost of the dimensions ``split``. A row is named
    by its first atom, so that a row occurring twice is one row.
    """
    for level in range(1, len(split)):
        rows = atoms
        for dim in split[level:]:
            rows = rows.take([0], axis=dim)
        facts.request_rows(atoms, np.broadcast_to(rows, atoms.shape))
