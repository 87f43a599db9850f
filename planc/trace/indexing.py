"""Indices containing sizes: the assignment of an index's numbers to its operators.

``x[:, :n, i]`` becomes one operator per position and per slice, in order; torch skips a slice
covering its whole dimension. A slice with bounds from sizes may be skipped at one size and not at
another, so these slices are called explicitly, first and always.
"""

from __future__ import annotations

import sys
from typing import Any

import torch

from planc.ir.expressions import Number, Size, SizeOf, leaves

Pieces = list[list[Number]]


def pieces(index: Any) -> Pieces:
    """The numbers of each operator of an index, in order."""
    found: Pieces = []
    for item in index if isinstance(index, tuple) else (index,):
        if isinstance(item, slice):
            start = 0 if item.start is None else item.start
            stop = sys.maxsize if item.stop is None else item.stop
            bounds = (start, stop) if item.step is None else (start, stop, item.step)
            found.append([bound for bound in bounds if isinstance(bound, int)])
        elif isinstance(item, int) and not isinstance(item, bool):
            found.append([item])
    return found


def taken(found: Pieces, numbers: list[Number]) -> list[Number] | None:
    """The first piece equal to these numbers, removed from ``found`` with all pieces before it;
    None if there is none.
    """
    for i, piece in enumerate(found):
        if piece[: len(numbers)] == numbers:
            del found[: i + 1]
            return piece[: len(numbers)]
    return None


def sized_slices(x: torch.Tensor, index: Any) -> tuple[list[tuple[int, Number, Number]], Any]:
    """The slices of an index with bounds from sizes (dimension, start, stop), and the index without
    them; ``...`` if nothing is left.
    """
    items = list(index) if isinstance(index, tuple) else [index]
    rank, dim, found = x.dim(), 0, []
    for i, item in enumerate(items):
        if item is Ellipsis:
            dim = rank - sum(map(_dims, items[i + 1 :]))
        elif isinstance(item, slice) and dim < rank and _sized(item):
            start = 0 if item.start is None else item.start
            found.append((dim, start, sys.maxsize if item.stop is None else item.stop))
            items[i] = slice(None)
        dim += _dims(item)
    if found and all(item is Ellipsis or _is_all(item) for item in items):
        return found, ...
    return found, tuple(items) if isinstance(index, tuple) else items[0]


def _is_all(item: Any) -> bool:
    return isinstance(item, slice) and (item.start, item.stop, item.step) == (None, None, None)


def _dims(item: Any) -> int:
    """The number of dimensions consumed by an item of an index."""
    if item is None or item is Ellipsis or isinstance(item, bool):
        return 0
    truths = isinstance(item, torch.Tensor) and item.dtype in (torch.bool, torch.uint8)
    return int(item.dim()) if truths else 1


def _sized(item: slice) -> bool:
    bounds = (item.start, item.stop)
    return (
        item.step is None
        and all(bound is None or isinstance(bound, int) for bound in bounds)
        and any(
            isinstance(leaf, SizeOf)
            for bound in bounds
            if isinstance(bound, Size)
            for leaf in leaves(bound.expr)
        )
    )
