"""Removed values of a tensor in a file, and the whole tensor from kept and removed values.

Both directions go through the original tensor in pieces, in the order of its bytes. Removed values
are therefore written and read in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planc.files.cut.cutting import Array, Box, File, Memory, Rows, boxes, chunked
from planc.files.disk.stream import Space
from planc.files.tensors.header import Entry
from planc.files.tensors.pieces import Shape
from planc.ir.groups import Indices
from planc.plan.plan import Cut

Pieces = Iterator[tuple[Array, NDArray[np.bool_]]]
_Piece = tuple[tuple[int, ...], int, int]  # fixed leading indices, rows of the next dimension


@dataclass(frozen=True, slots=True)
class CutRemoval:
    """The removal of a cut from one tensor: see :class:`planc.files.cut.removed.Removal`."""

    cut: Cut

    def split(self, shape: Shape) -> tuple[Shape, int]:
        return self.cut.shape, math.prod(shape) - math.prod(self.cut.shape)

    def whole(self, file: File, entry: Entry, memory: Memory) -> Pieces:
        source, parts = Rows(file, entry, memory), boxes(self.cut)
        for piece in _pieces(entry.shape, source.width, memory.size):
            yield source.read(*piece), _gone(parts, piece, entry.shape)

    def kept(self, file: File, entry: Entry, shape: Shape, space: Space, memory: Memory) -> Pieces:
        source, parts = Rows(file, entry, memory), boxes(self.cut)
        for piece in _pieces(shape, source.width, memory.size):
            lead, start, stop = piece
            whole = (stop - start, *shape[len(lead) + 1 :])
            rows = source.array(space(source.bytes(whole)), whole)
            for box in parts:
                places = _places(box, piece, shape)
                if places is not None:
                    rows[np.ix_(*places)] = _kept(source, box, piece)
            yield rows, _gone(parts, piece, shape)


def _pieces(shape: tuple[int, ...], width: int, buffer: int) -> Iterator[_Piece]:
    if math.prod(shape) == 0:
        return
    dim, rows = chunked(shape, width, buffer)
    for lead in np.ndindex(*shape[:dim]):
        for start in range(0, shape[dim], rows):
            yield lead, start, min(start + rows, shape[dim])


def _gone(parts: tuple[Box, ...], piece: _Piece, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return the mask of values removed from a piece."""
    lead, start, stop = piece
    gone = np.ones((stop - start, *shape[len(lead) + 1 :]), dtype=bool)
    for box in parts:
        places = _places(box, piece, shape)
        if places is not None:
            gone[np.ix_(*places)] = False
    return gone


def _places(box: Box, piece: _Piece, shape: tuple[int, ...]) -> list[Indices] | None:
    """Return the positions of a box within a piece, None if they are disjoint."""
    lead, start, stop = piece
    dim = len(lead)
    for at, indices in zip(lead, box.kept, strict=False):
        if indices is not None and _position(indices, at) is None:
            return None
    first, last = _span(box, dim, start, stop)
    if first >= last:
        return None
    own = box.kept[dim]
    rows = np.arange(start, stop) if own is None else own[first:last]
    inner = [
        np.arange(size) if indices is None else indices
        for indices, size in zip(box.kept[dim + 1 :], shape[dim + 1 :], strict=True)
    ]
    return [rows - start, *inner]


def _kept(source: Rows, box: Box, piece: _Piece) -> Array:
    """Return the values of a box within a piece, read from the cut tensor."""
    lead, start, stop = piece
    dim = len(lead)
    at = []
    for number, indices, out in zip(lead, box.kept, box.out, strict=False):
        position = number if indices is None else _position(indices, number)
        assert position is not None  # the box lies in the piece
        at.append(position + out[0])
    first, last = _span(box, dim, start, stop)
    base = box.out[dim][0]
    rows = source.read(tuple(at), base + first, base + last)
    inside = (slice(None), *(slice(*ends) for ends in box.out[dim + 1 :]))
    block: Array = rows[inside]
    return block


def _span(box: Box, dim: int, start: int, stop: int) -> tuple[int, int]:
    """Return the span of the box's indices of dimension ``dim`` between ``start`` and ``stop``."""
    indices = box.kept[dim]
    if indices is None:
        return start, stop
    first, last = np.searchsorted(indices, (start, stop)).tolist()
    return first, last


def _position(indices: Indices, value: int) -> int | None:
    at = int(np.searchsorted(indices, value))
    return at if at < len(indices) and indices[at] == value else None
