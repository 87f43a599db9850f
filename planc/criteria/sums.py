"""Sums over the coordinates that leave with a unit: of any quantity that each coordinate has.

In: a tensor of the parameter's shape. Out: its sums for each index of a place. Nothing here loops
over channels, and every parameter is read in pieces that stay in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from planc.places import Place

Sums = NDArray[Any]
_PIECE = 1 << 20  # elements: four megabytes in single precision
_DOT = 1 << 13


def place_sums(element: torch.Tensor, places: Sequence[Place]) -> list[torch.Tensor]:
    """For each place the sums over all dimensions but its own, flat as ``Place.units``."""
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
    """The sums over all dimensions but ``dims``, which stay in their order in the tensor."""
    others = [d for d in range(element.dim()) if d not in dims]
    return element.sum(others) if others else element


def power_sums(
    weight: torch.Tensor, p: float, places: Sequence[Place]
) -> Sequence[torch.Tensor | Sums]:
    """:func:`place_sums` of |w|^p, in one pass over the parameter where it is laid out by rows."""
    plain = all(place.blocks == 1 and place.dim < 2 for place in places)
    if not (plain and weight.dim() > 1 and weight.is_contiguous() and weight.device.type == "cpu"):
        return place_sums(power(weight, p), places)
    if weight.is_complex():
        weight = weight.abs()
    rows, columns = _rows_and_columns(weight.flatten(1), p, {place.dim for place in places})
    found = {0: rows, 1: columns}
    if weight.dim() > 2 and columns is not None:
        found[1] = columns.reshape(weight.shape[1], -1).sum(axis=1)
    return [sums for place in places for sums in [found[place.dim]] if sums is not None]


def power(weight: torch.Tensor, p: float) -> torch.Tensor:
    """|w|^p of each coordinate."""
    if p == 2 and not weight.is_complex():
        return weight * weight
    return weight.abs() if p == 1 else weight.abs() ** p


def _rows_and_columns(
    matrix: torch.Tensor, p: float, dims: set[int]
) -> tuple[Sums | None, Sums | None]:
    """Sums of |w|^p over columns and over rows, those of ``dims``."""
    height = max(1, _PIECE // max(1, matrix.shape[1]))
    rows: list[Sums] = []
    columns: list[Sums] = []
    content = matrix.numpy()
    for start in range(0, len(content), height):
        piece = content[start : start + height]
        if p == 2:  # the columns first: what reads memory may be slow, what reads the cache not
            if 1 in dims:
                columns.append(np.einsum("ij,ij->j", piece, piece))
            if 0 in dims:
                rows.append(_row_squares(piece))
        else:
            powers = power(matrix[start : start + height], p)
            if 1 in dims:
                columns.append(powers.sum(0).numpy())
            if 0 in dims:
                rows.append(powers.sum(1).numpy())
    return _joined(rows), _total(columns)


def _joined(rows: list[Sums]) -> Sums | None:
    return np.concatenate(rows) if len(rows) > 1 else next(iter(rows), None)


def _total(columns: list[Sums]) -> Sums | None:
    if len(columns) < 2:
        return next(iter(columns), None)
    total: Sums = np.add.reduce(columns, axis=0, dtype=np.float64)
    return total


def _row_squares(piece: NDArray[Any]) -> Sums:
    """The sum of squares of each row, by dot products so short that BLAS never divides them among
    threads: the last bit would depend on how many there are.
    """
    width = piece.shape[1]
    parts = [piece[:, start : start + _DOT] for start in range(0, width, _DOT)]
    sums: list[Sums] = [np.vecdot(part, part) for part in parts]
    total = _total(sums)
    return np.zeros(len(piece)) if total is None else total
