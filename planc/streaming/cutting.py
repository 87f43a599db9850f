"""Cutting a tensor that no memory holds: a cut and a tensor in a file in, the bytes of the smaller
one out, piece by piece in their order.

A cut is taken apart into **boxes**: products of index lists, one for each combination of the ranges
in which it is ragged. The output is made in pieces of rows of one dimension, so small that the rows
of the source that a piece needs fit in a buffer. Values are moved as bits and never looked at.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planc.errors import PlancError
from planc.groups import Indices
from planc.plan import Cut
from planc.tensorfiles.header import BITS, Entry
from planc.tensorfiles.pieces import JoinedFile
from planc.tensorfiles.reader import Bytes, TensorFile

BUFFER = 16 << 20  # bytes that are read at once
_GAP = 4096  # bytes between wanted rows that are read along sooner than skipped
Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Box:
    """``kept[d]`` are the source's indices of dimension ``d`` that stay, None where all do; they
    go to the positions ``out[d]`` of the result.
    """

    kept: tuple[Indices | None, ...]
    out: tuple[tuple[int, int], ...]


def boxes(cut: Cut) -> tuple[Box, ...]:
    """The boxes of a cut: disjoint, and together all of the result."""
    whole = [(0, size) for size in cut.shape]
    found = []
    for parts in product(*(ranges for _, _, ranges in cut.ragged)):
        kept, out = list(cut.kept), list(whole)
        for (dim, over, _), part in zip(cut.ragged, parts, strict=True):
            dense = cut.kept[over]
            if dense is None:
                first, last = part.start, part.stop
                inside = np.arange(first, last)
            else:
                first, last = (int(at) for at in np.searchsorted(dense, (part.start, part.stop)))
                inside = dense[first:last]
            before = kept[over]
            if before is not None and before is not dense:  # another ragged dimension's range
                inside = np.intersect1d(before, inside, assume_unique=True)
                first, last = max(first, out[over][0]), min(last, out[over][1])
            kept[dim], kept[over], out[over] = part.kept, inside, (first, last)
        if all(start < stop for start, stop in out) or 0 in cut.shape:
            found.append(Box(tuple(kept), tuple(out)))
    return tuple(found)


def cut_chunks(
    file: TensorFile | JoinedFile, entry: Entry, cut: Cut, buffer: int = BUFFER
) -> Iterator[Bytes]:
    """The bytes of the cut tensor; each piece is only valid until the next is asked for.

    Raises:
        PlancError: elements are smaller than a byte.
        TruncatedFile: the file has become shorter.
    """
    if math.prod(cut.shape) == 0:
        return
    source = Rows(file, entry)
    dim, rows = chunked(entry.shape, source.width, buffer)
    parts = boxes(cut)
    for lead in np.ndindex(*cut.shape[:dim]):
        here = [box for box in parts if _holds(box, lead)]
        for start in range(0, cut.shape[dim], rows):
            span = (start, min(start + rows, cut.shape[dim]))
            yield _piece(source, here, lead, span, cut.shape)


def chunked(shape: tuple[int, ...], width: int, buffer: int) -> tuple[int, int]:
    """The first dimension of which a few rows fit in a buffer, and how many do."""
    for dim in range(len(shape)):
        size = math.prod(shape[dim + 1 :]) * width
        if size <= buffer // 4:
            return dim, buffer // max(size, 1)
    return 0, 1


def _holds(box: Box, lead: tuple[int, ...]) -> bool:
    return all(start <= at < stop for at, (start, stop) in zip(lead, box.out, strict=False))


class Rows:
    """The rows of a tensor in a file: ``shape[:dim]`` fixed, some indices of ``dim``."""

    def __init__(self, file: TensorFile | JoinedFile, entry: Entry) -> None:
        if BITS[entry.dtype] % 8:
            raise PlancError(
                f"{entry.name}: {entry.dtype} has elements of {BITS[entry.dtype]} bits, which "
                "cannot be cut; leave its groups whole (--keep)"
            )
        self.file, self.entry, self.shape = file, entry, entry.shape
        self.width = BITS[entry.dtype] // 8
        self.dtype = np.dtype(f"u{self.width}")

    def rows(self, lead: tuple[int, ...], wanted: Indices) -> Array:
        """The wanted (sorted) rows of dimension ``len(lead)``: [rows, *inner]."""
        dim = len(lead)
        inner = self.shape[dim + 1 :]
        size = math.prod(inner) * self.width
        first = 0
        for at, length in zip(lead, self.shape, strict=False):
            first = first * length + at
        first *= self.shape[dim] * size
        breaks = np.flatnonzero(np.diff(wanted) - 1 > _GAP // max(size, 1)) + 1
        starts = np.concatenate(([0], breaks))
        stops = np.concatenate((breaks, [len(wanted)])) - 1
        lows, highs = wanted[starts], wanted[stops] + 1
        total = int((highs - lows).sum())
        into: Bytes = np.empty(total * size, dtype=np.uint8)
        at = 0
        for low, high in zip(lows.tolist(), highs.tolist(), strict=True):
            length = (high - low) * size
            self.file.read_into(self.entry, first + low * size, into[at : at + length])
            at += length
        rows = into.view(self.dtype).reshape(total, *inner)
        if total == len(wanted):
            return rows
        began = np.concatenate(([0], np.cumsum(highs - lows)[:-1]))  # each stretch, in `rows`
        return np.take(rows, wanted - np.repeat(lows - began, stops - starts + 1), axis=0)


def _piece(
    source: Rows,
    parts: list[Box],
    lead: tuple[int, ...],
    span: tuple[int, int],
    shape: tuple[int, ...],
) -> Bytes:
    """The bytes of the result at ``lead`` in the rows ``span`` of the dimension after it."""
    dim = len(lead)
    result: Array | None = None
    for box in parts:
        start, stop = max(span[0], box.out[dim][0]), min(span[1], box.out[dim][1])
        if start >= stop:
            continue
        kept = box.kept[dim]
        base = box.out[dim][0]
        wanted = np.arange(start, stop) if kept is None else kept[start - base : stop - base]
        at = tuple(
            number if indices is None else int(indices[number - out[0]])
            for number, indices, out in zip(lead, box.kept, box.out, strict=False)
        )
        block = source.rows(at, wanted)
        for axis, indices in enumerate(box.kept[dim + 1 :], 1):
            if indices is not None:
                block = np.take(block, indices, axis=axis)
        if len(parts) == 1:
            return as_bytes(block)
        if result is None:
            result = np.empty((span[1] - span[0], *shape[dim + 1 :]), dtype=source.dtype)
        where = ((start - span[0], stop - span[0]), *box.out[dim + 1 :])
        result[tuple(slice(*ends) for ends in where)] = block
    assert result is not None  # boxes cover the result
    return as_bytes(result)


def as_bytes(array: Array) -> Bytes:
    flat: Bytes = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return flat
