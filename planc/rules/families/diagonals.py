"""Diagonals: a vector as a matrix, the diagonal of a matrix, matrices as blocks of a larger one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from planc.rules.common import axis, pin_dims
from planc.rules.families.reduction import summed
from planc.rules.labels import Labelled, Layer, dense, insert, lift, match, reshape, volume
from planc.rules.labels.facts import NEVER, Facts
from planc.rules.registry import rule


@rule("aten.diag_embed")
def diag_embed(
    facts: Facts, x: Labelled, offset: int = 0, dim1: int = -2, dim2: int = -1
) -> Labelled:
    """The last dimension of ``x`` as the diagonal of a matrix: a coordinate is a row and a column
    of it, zero elsewhere.
    """
    if offset:
        pin_dims(facts, x, range(x.rank), "beside the diagonal")
        return Labelled(facts.shape)
    x = dense(x)
    rank, last = x.rank + 1, x.rank - 1
    rows, columns = dim1 % rank, dim2 % rank
    layers: list[Layer] = []
    for at in (rows, columns):
        rest = iter(range(last))
        moved = [
            last if d == at else None if d in (rows, columns) else next(rest) for d in range(rank)
        ]
        for layer in lift(x, moved).layers:
            if layer.target == at or at == rows:
                layers.append(layer)
    return Labelled(facts.shape, tuple(layers))


@rule("aten.diagonal", "aten.linalg_diagonal", "aten.diagonal_copy")
def diagonal(facts: Facts, x: Labelled, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Labelled:
    """The diagonal of two dimensions, as the last dimension of the result."""
    dims = axis(x, dim1), axis(x, dim2)
    if offset or x.shape[dims[0]] != x.shape[dims[1]]:
        x = pin_dims(facts, x, range(x.rank), "beside the diagonal")
        return Labelled(facts.shape)
    first, last = dims
    x = lift(dense(x), [*(d for d in range(x.rank) if d not in dims), first, last])
    layers = [_on_diagonal(layer) for layer in x.layers]
    ends = x.rank - 2, x.rank - 1
    rows, columns = (
        tuple(line for line, of in zip(layers, x.layers, strict=True) if of.target == end)
        for end in ends
    )
    rest = (line for line, of in zip(layers, x.layers, strict=True) if of.target not in ends)
    return Labelled(facts.shape, (*rest, *match(facts, rows, columns, "mul")))


def _on_diagonal(layer: Layer) -> Layer:
    """A layer restricted to the diagonal of its last two dimensions, now its last one."""
    atoms = layer.atoms
    n = max(atoms.shape[-2:])
    square = np.broadcast_to(atoms, (*atoms.shape[:-2], n, n))
    line = np.diagonal(square, 0, -2, -1)
    return replace(layer, atoms=line, target=min(layer.target, line.ndim - 1))


@rule("aten.diag")
def diag(facts: Facts, x: Labelled, diagonal: int = 0) -> Labelled:
    return (diag_embed if x.rank == 1 else _diagonal)(facts, x, diagonal)


_diagonal = diagonal


@rule("aten.diagflat")
def diagflat(facts: Facts, x: Labelled, offset: int = 0) -> Labelled:
    return diag_embed(facts, reshape(facts, x, (volume(x.shape),)), offset)


@rule("aten.trace")
def trace(facts: Facts, x: Labelled) -> Labelled:
    return summed(facts, diagonal(facts, x), (0,), keepdim=False)


@rule("aten.block_diag")
def block_diag(facts: Facts, tensors: Sequence[Labelled]) -> Labelled:
    """Matrices along the diagonal of one, zero elsewhere."""
    parts = [dense(_as_matrix(part)) for part in tensors]
    if any(layer.ragged for part in parts for layer in part.layers):
        for part in parts:
            pin_dims(facts, part, (0, 1), "a block with rows of several kinds")
        return Labelled(facts.shape)
    layers = []
    for dim in (0, 1):
        finest = [part.finest(dim) for part in parts]
        for part, found in zip(parts, finest, strict=True):
            facts.pin([la for la in part.targeting(dim) if la is not found], "rows of a block")
        if any(layer is not None for layer in finest):
            lines = [
                np.full(part.shape[dim], NEVER) if layer is None else layer.along()
                for part, layer in zip(parts, finest, strict=True)
            ]
            shape = (-1, 1) if dim == 0 else (1, -1)
            zero = all(layer is None or layer.zero for layer in finest)
            layers.append(Layer(np.concatenate(lines).reshape(shape), dim, zero))
    return Labelled(facts.shape, tuple(layers))


def _as_matrix(x: Labelled) -> Labelled:
    for _ in range(2 - x.rank):
        x = insert(x, 0)
    return x
