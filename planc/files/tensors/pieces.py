"""Tensors stored in pieces of files, readable as one joined file.

A piece was written by a rank of a distributed job, or is a storage in an archive of ``torch.save``.
Before anything is read, the pieces are proven to cover every tensor exactly.
"""

from __future__ import annotations

import math
import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from planc.errors import MalformedFile, ShardMismatch, TruncatedFile
from planc.files.disk.atomic import open_regular
from planc.files.disk.limits import Limits
from planc.files.disk.stream import Bytes
from planc.files.tensors.header import BITS, Entry, Header, aligned, nbytes, place, write_header
from planc.files.tensors.reader import OpenFile, Readable

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a tensor, from ``offsets`` of the whole on, stored at byte ``start`` of a file.

    The order is C unless ``strides`` (in elements) are given.
    """

    path: Path
    start: int
    shape: Shape
    offsets: Shape
    strides: Shape | None = None

    def holds(self, at: Shape) -> bool:
        """True if the piece contains an element of the whole."""
        return all(
            first <= i < first + size
            for i, first, size in zip(at, self.offsets, self.shape, strict=True)
        )

    @property
    def span(self) -> int:
        """Number of elements from its first to its last in the file, inclusive."""
        if self.strides is None or 0 in self.shape:
            return math.prod(self.shape)
        return 1 + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))


@dataclass(frozen=True, slots=True)
class Whole:
    """A tensor and its pieces."""

    dtype: str
    shape: Shape
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Joined:
    """Tensors of one joined file, by name, and the state of their files when joined."""

    tensors: Mapping[str, Whole]
    files: Mapping[Path, tuple[int, int]]  # size and time of the last change

    @property
    def header(self) -> Header:
        """The header of the joined file."""
        specs = [(name, whole.dtype, whole.shape) for name, whole in self.tensors.items()]
        entries = place(aligned(specs))
        metadata = {"format": "pt"}
        return Header(entries, metadata, write_header(entries, metadata))


def join(tensors: Mapping[str, Whole], limits: Limits) -> Joined:
    """The file made of pieces.

    Raises:
        ShardMismatch: pieces overlap or leave a hole, or a file is missing; it is named.
        TruncatedFile: a file ends before its pieces do.
        LimitExceeded: there are too many tensors, or their header would be too long.
    """
    limits.check("tensors", len(tensors), "the checkpoint")
    files: dict[Path, tuple[int, int]] = {}
    for name, whole in tensors.items():
        _check(name, whole)
        for piece in whole.pieces:
            if piece.path not in files:
                files[piece.path] = _look_at(piece.path)
            end = piece.start + piece.span * BITS[whole.dtype] // 8
            if piece.start < 0 or end > files[piece.path][0]:
                raise TruncatedFile(
                    f"{piece.path}: byte {files[piece.path][0]}: the file ends here, {name} goes "
                    f"on to byte {end}; copy it again"
                )
    joined = Joined(tensors, files)
    limits.check("header", len(joined.header.raw), "the header of all tensors")
    return joined


def parts(joined: Joined, size: int) -> list[Joined]:
    """Split tensors into files of at most ``size`` bytes; a larger tensor has its own."""
    found: list[dict[str, Whole]] = [{}]
    held = 0
    for name, whole in joined.tensors.items():
        more, file = nbytes(whole.dtype, whole.shape), found[-1]
        if file and held + more > size:
            file, held = {}, 0
            found.append(file)
        file[name] = whole
        held += more
    return [
        Joined(tensors, {p.path: joined.files[p.path] for w in tensors.values() for p in w.pieces})
        for tensors in found
    ]


class JoinedFile(Readable):
    """Reads pieces as one file."""

    def __init__(self, joined: Joined, files: Mapping[Path, OpenFile]) -> None:
        self.header = joined.header
        self._tensors, self._files = joined.tensors, files
        self._finders: dict[str, _Finder] = {}
        self._dense: tuple[Piece, Bytes] | None = None

    def read_into(self, entry: Entry, start: int, into: Bytes) -> None:
        whole, done = self._tensors[entry.name], 0
        width = BITS[entry.dtype] // 8
        while done < len(into):
            element, inside = divmod(start + done, width)
            piece, first, run = self._stretch(entry.name, whole, element)
            stop = done + run * width - inside
            self._read(piece, width, first * width + inside, into[done:stop])
            done = stop

    def _stretch(self, name: str, whole: Whole, element: int) -> tuple[Piece, int, int]:
        """The piece holding an element, its local index in C order, and the length of the run.

        Within the run, whole and piece are contiguous together.
        """
        finder = self._finders.get(name)
        if finder is None:
            finder = self._finders[name] = _Finder(whole)
        at = tuple(map(int, np.unravel_index(element, whole.shape)))
        piece = finder.piece(at)
        local = 0
        for i, first, size in zip(at, piece.offsets, piece.shape, strict=True):
            local = local * size + i - first
        sizes = enumerate(zip(piece.shape, whole.shape, strict=True))
        dim = max((dim for dim, (own, all_of) in sizes if own != all_of), default=0)
        size = math.prod(piece.shape[dim:])  # later dimensions are complete
        return piece, local, size - local % size

    def _read(self, piece: Piece, width: int, at: int, into: Bytes) -> None:
        """Read bytes of a piece as if it were in C order."""
        if piece.strides is None:
            self._files[piece.path].read(piece.start + at, into)
            return
        if self._dense is None or self._dense[0] is not piece:
            self._dense = None
            stored: Bytes = np.empty(piece.span * width, dtype=np.uint8)
            self._files[piece.path].read(piece.start, stored)
            strided = np.lib.stride_tricks.as_strided(
                stored.view(f"V{width}"), piece.shape, [s * width for s in piece.strides]
            )
            self._dense = piece, np.ascontiguousarray(strided).ravel().view(np.uint8)
        into[:] = self._dense[1][at : at + len(into)]


class _Finder:
    """Finds the piece holding an element.

    The offsets of all pieces divide the tensor into cells; each cell lies in exactly one piece.
    """

    def __init__(self, whole: Whole) -> None:
        self._pieces = whole.pieces
        dims = range(len(whole.shape))
        self._bounds = [sorted({piece.offsets[dim] for piece in whole.pieces}) for dim in dims]
        self._cells: dict[tuple[int, ...], Piece] = {}

    def piece(self, at: Shape) -> Piece:
        """The piece holding an element."""
        cell = tuple(map(bisect_right, self._bounds, at))
        found = self._cells.get(cell)
        if found is None:
            found = next(piece for piece in self._pieces if piece.holds(at))
            self._cells[cell] = found
        return found


@contextmanager
def open_joined(joined: Joined) -> Iterator[JoinedFile]:
    """Open the files of all pieces for one reading.

    Raises:
        ShardMismatch: a file was changed since :func:`join`.
        OSError: a file cannot be opened.
    """
    with ExitStack() as opened:
        files = {}
        for path, seen in joined.files.items():
            descriptor = open_regular(path)
            opened.callback(os.close, descriptor)
            status = os.fstat(descriptor)
            if (status.st_size, status.st_mtime_ns) != seen:
                raise ShardMismatch(f"{path}: was changed while it was read; run again")
            files[path] = OpenFile(path, descriptor, once=True)
        yield JoinedFile(joined, files)


def _look_at(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except FileNotFoundError:
        raise ShardMismatch(f"{path}: this file of the checkpoint is missing; get it") from None
    return status.st_size, status.st_mtime_ns


def _check(name: str, whole: Whole) -> None:
    """Check that pieces cover the whole: disjoint, and as large as the whole together."""
    if whole.dtype not in BITS or BITS[whole.dtype] % 8:
        raise MalformedFile(f"{name}: pieces of {whole.dtype} cannot be joined")
    for piece in whole.pieces:
        for first, size, total in zip(piece.offsets, piece.shape, whole.shape, strict=True):
            if first < 0 or first + size > total:
                raise ShardMismatch(
                    f"{name}: {piece.path} has {piece.shape} of it at {piece.offsets}, it is of "
                    f"shape {whole.shape}; they are of different checkpoints"
                )
    for one, other in _near(whole):
        if _overlap(one, other):
            raise ShardMismatch(
                f"{name}: {os.fspath(one.path)} and {os.fspath(other.path)} both have part of it; "
                "one of them is of another checkpoint"
            )
    held = sum(math.prod(piece.shape) for piece in whole.pieces)
    if held != math.prod(whole.shape):
        raise ShardMismatch(
            f"{name}: its pieces hold {held} of the {math.prod(whole.shape)} values of "
            f"{whole.shape}; a file is missing: get it"
        )


def _near(whole: Whole) -> Iterator[tuple[Piece, Piece]]:
    """Pairs of pieces meeting in the most divided dimension; no other pairs overlap."""
    if not whole.shape:
        yield from combinations(whole.pieces, 2)
        return
    dims = range(len(whole.shape))
    dim = max(dims, key=lambda d: len({piece.offsets[d] for piece in whole.pieces}))
    open_ones: list[Piece] = []
    for piece in sorted(whole.pieces, key=lambda piece: piece.offsets[dim]):
        begin = piece.offsets[dim]
        open_ones = [p for p in open_ones if p.offsets[dim] + p.shape[dim] > begin]
        yield from ((other, piece) for other in open_ones)
        open_ones.append(piece)


def _overlap(one: Piece, other: Piece) -> bool:
    return all(
        max(a, b) < min(a + m, b + n)
        for a, m, b, n in zip(one.offsets, one.shape, other.offsets, other.shape, strict=True)
    )
