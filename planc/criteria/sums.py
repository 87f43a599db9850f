"""Sums over the coordinates that leave with a unit: of any quantity that each coordinate has.

In: a tensor of the parameter's shape. Out: its sums for each index of a place. Nothing here loops
over channels, and every parameter is read in pieces that stay in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from planc.places import Place

Element = Callable[[torch.Tensor], torch.Tensor]
_PIECE = 1 << 20  # elements: four megabytes in single precision


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


def power_sums(weight: torch.Tensor, p: float, places: Sequence[Place]) -> list[torch.Tensor]:
    """:func:`place_sums` of |w|^p, in one pass over the parameter where it is laid out by rows."""
    plain = all(place.blocks == 1 and place.dim < 2 for place in places)
    if not (plain and weight.dim() > 1 and weight.is_contiguous() and weight.device.type == "cpu"):
        return place_sums(power(weight, p), places)
    rows, columns = _rows_and_columns(weight.flatten(1), p, {place.dim for place in places})
    if columns is not None and weight.dim() > 2:
        columns = columns.view(weight.shape[1], -1).sum(1)
    found = {0: rows, 1: columns}
    return [sums for place in places for sums in [found[place.dim]] if sums is not None]


def power(weight: torch.Tensor, p: float) -> torch.Tensor:
    """|w|^p of each coordinate."""
    if p == 2 and not weight.is_complex():
        return weight * weight
    return weight.abs() if p == 1 else weight.abs() ** p


def _rows_and_columns(
    matrix: torch.Tensor, p: float, dims: set[int]
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Sums of |w|^p over columns and over rows, those of ``dims``."""
    height = max(1, _PIECE // matrix.shape[1])
    rows, columns = [], []
    squares = p == 2 and matrix.dtype in (torch.float32, torch.float64)
    for piece in torch.split(matrix, height) if height < len(matrix) else (matrix,):
        powers = piece if squares else power(piece, p)
        if 1 in dims and squares:
            content = piece.numpy()
            columns.append(torch.from_numpy(np.einsum("ij,ij->j", content, content)))
        elif 1 in dims:
            columns.append(powers.sum(0))
        if 0 in dims and squares:
            rows.append(torch.linalg.vector_norm(piece, dim=1).square_())
        elif 0 in dims:
            rows.append(powers.sum(1))
    return (
        torch.cat(rows) if len(rows) > 1 else next(iter(rows), None),
        torch.stack(columns).double().sum(0) if len(columns) > 1 else next(iter(columns), None),
    )
