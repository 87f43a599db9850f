"""Sums of a per-coordinate quantity over the coordinates removed with a unit.

Given a tensor of the parameter's shape, the sums for each index of a place. No function here loops
over channels, and every parameter is read in pieces small enough for the processor's cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from planc.analysis.places import Place

Sums = NDArray[Any]
_PIECE = 1 << 20  # elements: four megabytes in single precision
_DOT = 1 << 13  # elements: too short for a BLAS to divide the product among threads, whose number
# would then decide its last bit


def place_sums(element: torch.Tensor, places: Sequence[Place]) -> list[torch.Tensor]:
    """For each place, the sums over all dimensions except its own, flat as ``Place.units``."""
    if element.dim() == 1:
        return [element] * len(places)
    if element.dim() > 2 and all(max(place.dim, place.over) < 2 for place in places):
        element = element.flatten(2).sum(2)
    return [_place_sum(element, place) for place in places]


def _place_sum(element: torch.Tensor, place: Place) -> torch.Tensor:
    dim = place.dim
    if place.blocks == 1:
        return sum_over(element, (dim,))
    apart = element.unflatten(place.over, (place.blocks, -1))  # type: ignore[no-untyped-call]
    dim += place.over < dim
    summed = sum_over(apart, (place.over, dim))
    return (summed.T if place.over > place.dim else summed).reshape(-1)


def sum_over(element: torch.Tensor, dims: tuple[int, ...]) -> torch.Tensor:
    """The sums over all dimensions except ``dims``; those keep their order in the tensor."""
    others = [d for d in range(element.dim()) if d not in dims]
    return element.sum(others) if others else element


def power_sums(
    weight: torch.Tensor, p: float, places: Sequence[Place]
) -> Sequence[torch.Tensor | Sums]:
    """:func:`place_sums` of |w|^p, in one pass over a parameter in row-major layout."""
    if weight.dim() == 1:
        values = power(weight, p)
        return [values.numpy() if values.is_cpu else values] * len(places)
    matrix = _matrix(weight, places)
    if matrix is None:
        return place_sums(power(weight, p), places)
    found = _sums_by_dim(matrix, p, {place.dim for place in places})
    return [_without_kernel(found[place.dim], weight.shape[place.dim]) for place in places]


def _matrix(weight: torch.Tensor, places: Sequence[Place]) -> Sums | None:
    """``[out, in * kernel]``, None if other sums than those of rows and columns are requested."""
    plain = all(place.blocks == 1 and place.dim < 2 for place in places)
    if not (plain and weight.dim() > 1 and weight.is_contiguous() and weight.is_cpu):
        return None
    matrix: Sums = weight.numpy()
    return matrix.reshape(len(matrix), -1) if matrix.ndim > 2 else matrix


def _without_kernel(sums: Sums, size: int) -> Sums:
    """Sums for each index of a dimension, from sums possibly separate for the kernel."""
    if len(sums) == size:
        return sums
    joined: Sums = sums.reshape(size, -1).sum(axis=1)
    return joined


def power(weight: torch.Tensor, p: float) -> torch.Tensor:
    """|w|^p of each coordinate."""
    if p == 2 and not weight.is_complex():
        return weight * weight
    return weight.abs() if p == 1 else weight.abs() ** p


def _sums_by_dim(matrix: Sums, p: float, dims: set[int]) -> dict[int, Sums]:
    """Sums of |w|^p over the other dimension, for each of ``dims``."""
    height = max(1, _PIECE // max(1, matrix.shape[1]))
    parts: dict[int, list[Sums]] = {dim: [] for dim in sorted(dims, reverse=True)}
    squares = p == 2 and matrix.dtype.kind == "f"
    for start in range(0, max(1, len(matrix)), height):
        piece = matrix[start : start + height]
        powers = None if squares else power(torch.from_numpy(piece), p)
        for dim, own in parts.items():  # columns first: they may wait for memory, rows do not
            own.append(_squares(piece, dim) if powers is None else powers.sum(1 - dim).numpy())
    found = {}
    for dim, own in parts.items():
        found[dim] = own[0] if len(own) == 1 else np.concatenate(own) if dim == 0 else _total(own)
    return found


def _squares(piece: Sums, dim: int) -> Sums:
    """The sums of squares over the other dimension."""
    if dim == 1:
        columns: Sums = np.einsum("ij,ij->j", piece, piece)
        return columns
    if piece.shape[1] > _DOT:
        parts = [piece[:, start : start + _DOT] for start in range(0, piece.shape[1], _DOT)]
        return _total([np.vecdot(part, part) for part in parts])
    rows: Sums = np.vecdot(piece, piece)
    return rows


def _total(parts: list[Sums]) -> Sums:
    total: Sums = np.add.reduce(parts, axis=0, dtype=np.float64)
    return total
