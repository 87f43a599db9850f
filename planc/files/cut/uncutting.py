"""The other half of a cut, and the way back: what a cut removes from a tensor in a file, and the
whole tensor from what was kept and what was removed.

Both go through the original tensor in pieces, in the order of its bytes, so that removed values
come and go in that order too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from planc.files.cut.cutting import Array, Box, Memory, Rows, boxes, chunked
from planc.files.disk.stream import Space
from planc.files.tensors.header import Entry
from planc.files.tensors.pieces import JoinedFile
from planc.files.tensors.reader import TensorFile
from planc.ir.groups import Indices
from planc.plan.plan import Cut

_Piece = tuple[tuple[int, ...], int, int]  # fixed leading indices, rows of the next dimension


def removed_into(
    file: TensorFile | JoinedFile,
    entry: Entry,
    cut: Cut,
    space: Space,
    memory: Memory,
    seen: Callable[[memoryview], object],
) -> None:
    """Copies the values that the cut removes, in C order of their coordinates.

    Args:
        seen: is given all bytes of the tensor, in their order.
    """
    source, parts = Rows(file, entry, memory), boxes(cut)
    for piece in _pieces(entry.shape, source.width, memory.size):
        lead, start, stop = piece
        rows = source.read(lead, start, stop)
        seen(rows.ravel().view(np.uint8).data)
        gone = _gone(parts, piece, entry.shape)
        count = (int(np.count_nonzero(gone)),)
        source.array(space(source.bytes(count)), count)[:] = rows[gone]


def restored_into(
    small: TensorFile,
    entry: Entry,
    removed: Callable[[Array], None],
    cut: Cut,
    shape: tuple[int, ...],
    space: Space,
    memory: Memory,
) -> None:
    """Copies the whole tensor of ``shape``.

    Args:
        small: the file of the cut tensor, ``entry`` its place.
        removed: fills an array with the next of the removed values.
    """
    source, parts = Rows(small, entry, memory), boxes(cut)
    for piece in _pieces(shape, source.width, memory.size):
        lead, start, stop = piece
        whole = (stop - start, *shape[len(lead) + 1 :])
        rows = source.array(space(source.bytes(whole)), whole)
        for box in parts:
            places = _places(box, piece, shape)
            if places is not None:
                rows[np.ix_(*places)] = _kept(source, box, piece)
        gone = _gone(parts, piece, shape)
        values = memory.array(1, (int(np.count_nonzero(gone)),), source.dtype)
        removed(values)
        rows[gone] = values


def _pieces(shape: tuple[int, ...], width: int, buffer: int) -> Iterator[_Piece]:
    if math.prod(shape) == 0:
        return
    dim, rows = chunked(shape, width, buffer)
    for lead in np.ndindex(*shape[:dim]):
        for start in range(0, shape[dim], rows):
            yield lead, start, min(start + rows, shape[dim])


def _gone(parts: tuple[Box, ...], piece: _Piece, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Which values of a piece the cut removes."""
    lead, start, stop = piece
    gone = np.ones((stop - start, *shape[len(lead) + 1 :]), dtype=bool)
    for box in parts:
        places = _places(box, piece, shape)
        if places is not None:
            gone[np.ix_(*places)] = False
    return gone


def _places(box: Box, piece: _Piece, shape: tuple[int, ...]) -> list[Indices] | None:
    """Where in a piece the values of a box lie, None if nowhere."""
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
    """The values of a box in a piece, from the cut tensor."""
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
    """Which of the box's indices of dimension ``dim`` lie between two of the tensor's."""
    indices = box.kept[dim]
    if indices is None:
        return start, stop
    first, last = np.searchsorted(indices, (start, stop)).tolist()
    return first, last


def _position(indices: Indices, value: int) -> int | None:
    at = int(np.searchsorted(indices, value))
    return at if at < len(indices) and indices[at] == value else None
