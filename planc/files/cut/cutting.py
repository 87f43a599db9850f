"""Cutting a tensor larger than memory: the bytes of the smaller one, piece by piece in order.

A cut is split into **boxes**: products of index lists, one for each combination of its ragged
ranges. The output is made in pieces of rows of one dimension, small enough for the source rows of
a piece to fit in a buffer. Values are moved as bits, without being interpreted: they are read into
reused memory and taken from there into the memory of the writer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from planc.errors import PlancError
from planc.files.disk import stream
from planc.files.disk.stream import Bytes, Space
from planc.files.tensors.header import BITS, Entry
from planc.files.tensors.pieces import JoinedFile
from planc.files.tensors.reader import TensorFile
from planc.ir.groups import Indices
from planc.plan.plan import Cut, TensorSpec
from planc.plan.weights import values_digest

# Gaps of at most this many bytes between wanted rows are read instead of skipped: a disk delivers
# about as many during a seek.
_GAP = 256 << 10
Array = NDArray[Any]
File = TensorFile | JoinedFile
_T = TypeVar("_T")


def by_every_name(tensors: Iterable[TensorSpec], by_name: Mapping[str, _T]) -> dict[str, _T]:
    """Extend a mapping of tensors by their first names to all of their names."""
    known = [spec for spec in tensors if spec.name in by_name]
    return {name: by_name[spec.name] for spec in known for name in spec.names}


@dataclass(frozen=True, slots=True)
class Box:
    """A block of the result: the source's indices ``kept[d]`` of dimension ``d``, None for all of
    them, go to positions ``out[d]``.
    """

    kept: tuple[Indices | None, ...]
    out: tuple[tuple[int, int], ...]


def boxes(cut: Cut) -> tuple[Box, ...]:
    """Split a cut into disjoint boxes covering the result."""
    whole = [(0, size) for size in cut.shape]
    found = []
    for parts in product(*(ranges for _, _, ranges in cut.ragged)):
        kept, out = list(cut.kept), list(whole)
        for (dim, over, _), part in zip(cut.ragged, parts, strict=True):
            dense = cut.kept[over]
            first, last = part.start, part.stop
            if dense is not None:
                first, last = np.searchsorted(dense, (first, last)).tolist()
            # another ragged dimension may limit the same range
            first, last = max(first, out[over][0]), min(last, out[over][1])
            inside = np.arange(first, last) if dense is None else dense[first:last]
            kept[dim], kept[over], out[over] = part.kept, inside, (first, last)
        if all(start < stop for start, stop in out):
            found.append(Box(tuple(kept), tuple(out)))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Take:
    """The kept part of one dimension: the numbers of its stretches of ``run`` values."""

    axis: int
    stretches: Indices
    run: int

    def shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the shape of the part taken from an array of ``shape``."""
        size = len(self.stretches) * self.run
        return (*shape[: self.axis], size, *shape[self.axis + 1 :])

    def into(self, out: Array, array: Array) -> None:
        """Copy the part from ``array`` to ``out``, both in C order."""
        inner = (self.run, *array.shape[self.axis + 1 :])
        split = (*array.shape[: self.axis], array.shape[self.axis] // self.run, *inner)
        wide = out.reshape(*array.shape[: self.axis], len(self.stretches), *inner)
        # mode="raise", the default, makes numpy copy the result
        np.take(array.reshape(split), self.stretches, axis=self.axis, out=wide, mode="clip")


def taking(axis: int, kept: Indices, size: int) -> Take:
    """Return the part ``kept``, sorted indices below ``size``, in the longest equal stretches."""
    assert 0 <= kept[0] <= kept[-1] < size  # np.take does not check it in mode="clip"
    breaks = np.flatnonzero(np.diff(kept) != 1) + 1
    starts, stops = kept[breaks], kept[breaks - 1] + 1
    ends = np.concatenate((starts, stops, kept[:1], kept[-1:] + 1, [size]))
    run = int(np.gcd.reduce(ends))
    return Take(axis, kept[::run] // run, run)


class Memory:
    """Two reused buffers for the tensors of one file."""

    def __init__(self) -> None:
        self.size = stream.BLOCK
        self._halves: list[Bytes | None] = [None, None]

    def array(self, half: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return a buffer as an array of at most ``size`` bytes, with arbitrary values."""
        memory = self._halves[half]
        if memory is None:
            memory = self._halves[half] = np.empty(self.size, dtype=np.uint8)
        return memory[: math.prod(shape) * dtype.itemsize].view(dtype).reshape(shape)


def copy_into(file: File, entry: Entry, space: Space) -> None:
    """Copy a whole tensor. Raises TruncatedFile if the file has become shorter."""
    length = entry.stop - entry.start
    for start in range(0, length, stream.BLOCK):
        file.read_into(entry, start, space(min(stream.BLOCK, length - start)))


def digest_of(file: File, entry: Entry, memory: Memory) -> bytes:
    """Return the digest of a tensor's values (:mod:`planc.plan.weights`).

    Raises:
        TruncatedFile: the file has become shorter.
    """
    length = entry.stop - entry.start

    def pieces() -> Iterator[Bytes]:
        for start in range(0, length, memory.size):
            piece = memory.array(0, (min(memory.size, length - start),), np.dtype("u1"))
            file.read_into(entry, start, piece)
            yield piece

    return values_digest(pieces(), length)


def cut_into(file: File, entry: Entry, cut: Cut, space: Space, memory: Memory) -> None:
    """Copy the kept part of a tensor.

    Raises:
        PlancError: elements are smaller than a byte.
        TruncatedFile: the file has become shorter.
    """
    if math.prod(cut.shape) == 0:
        return
    source = Rows(file, entry, memory)
    dim, rows = chunked(entry.shape, source.width, memory.size)
    parts = [_Part(box, _inner(box, dim, entry.shape)) for box in boxes(cut)]
    for lead in np.ndindex(*cut.shape[:dim]):
        here = [part for part in parts if _holds(part.box, lead)]
        for start in range(0, cut.shape[dim], rows):
            span = (start, min(start + rows, cut.shape[dim]))
            shape = (span[1] - span[0], *cut.shape[dim + 1 :])
            _fill(source, here, lead, span, source.array(space(source.bytes(shape)), shape))


def chunked(shape: tuple[int, ...], width: int, buffer: int) -> tuple[int, int]:
    """Return the first dimension with several rows in a buffer, and their number; no size is 0."""
    sizes = [math.prod(shape[dim + 1 :]) * width for dim in range(len(shape))]
    dim = next(dim for dim, size in enumerate(sizes) if size <= buffer // 4)
    return dim, buffer // sizes[dim]


@dataclass(frozen=True, slots=True)
class _Part:
    """A box, and the parts to take inside its rows; axis 0 is the dimension of the rows."""

    box: Box
    takes: tuple[Take, ...]


def _inner(box: Box, dim: int, shape: tuple[int, ...]) -> tuple[Take, ...]:
    inner = enumerate(zip(box.kept[dim + 1 :], shape[dim + 1 :], strict=True), 1)
    return tuple(taking(axis, kept, size) for axis, (kept, size) in inner if kept is not None)


def _holds(box: Box, lead: tuple[int, ...]) -> bool:
    return all(start <= at < stop for at, (start, stop) in zip(lead, box.out, strict=False))


class Rows:
    """The rows of a tensor in a file: indices of one dimension, with all earlier ones fixed."""

    def __init__(self, file: File, entry: Entry, memory: Memory) -> None:
        if BITS[entry.dtype] % 8:
            raise PlancError(
                f"{entry.name}: {entry.dtype} has elements of {BITS[entry.dtype]} bits, which "
                "cannot be cut; leave its groups whole (--keep)"
            )
        self.shape, self.width = entry.shape, BITS[entry.dtype] // 8
        self.dtype = np.dtype(f"u{self.width}")
        self._file, self._entry, self._memory = file, entry, memory

    def bytes(self, shape: tuple[int, ...]) -> int:
        return math.prod(shape) * self.width

    def array(self, content: Bytes, shape: tuple[int, ...]) -> Array:
        return content.view(self.dtype).reshape(shape)

    def read(self, lead: tuple[int, ...], low: int, high: int, into: Array | None = None) -> Array:
        """Read rows ``low`` to ``high`` of dimension ``len(lead)`` as [rows, *inner].

        Without ``into``, the result lies in memory reused by the next call.
        """
        dim = len(lead)
        inner = self.shape[dim + 1 :]
        if into is None:
            into = self._memory.array(0, (high - low, *inner), self.dtype)
        first = 0
        for at, length in zip(lead, self.shape, strict=False):
            first = first * length + at
        start = (first * self.shape[dim] + low) * self.bytes(inner)
        self._file.read_into(self._entry, start, into.ravel().view(np.uint8))
        return into

    def gather(
        self, lead: tuple[int, ...], wanted: Indices, takes: tuple[Take, ...], into: Array
    ) -> None:
        """Fill ``into`` with the parts taken from the rows ``wanted``, sorted indices."""
        size = self.bytes(self.shape[len(lead) + 1 :])
        for first, last in _stretches(wanted, _GAP // size, self._memory.size // size):
            low, high = int(wanted[first]), int(wanted[last - 1]) + 1
            part = into[first:last]
            whole = high - low == last - first
            if whole and not takes and part.flags.c_contiguous:
                self.read(lead, low, high, part)
                continue
            rows = self.read(lead, low, high)
            steps = takes if whole else (taking(0, wanted[first:last] - low, high - low), *takes)
            self._take(rows, steps, part)

    def _take(self, rows: Array, takes: tuple[Take, ...], into: Array) -> None:
        for number, take in enumerate(takes, 1):
            if number == len(takes) and into.flags.c_contiguous:
                take.into(into, rows)
                return
            taken = self._memory.array(number % 2, take.shape(rows.shape), self.dtype)
            take.into(taken, rows)
            rows = taken
        into[:] = rows


def _stretches(wanted: Indices, gap: int, most: int) -> Iterator[tuple[int, int]]:
    """Yield spans of ``wanted`` to read at once: gaps up to ``gap`` rows, ``most`` rows in all."""
    breaks = [0, *(np.flatnonzero(np.diff(wanted) - 1 > gap) + 1).tolist(), len(wanted)]
    for first, last in pairwise(breaks):
        while first < last:
            end = first + int(np.searchsorted(wanted[first:last], wanted[first] + most))
            yield first, end
            first = end


def _fill(
    source: Rows, parts: list[_Part], lead: tuple[int, ...], span: tuple[int, int], into: Array
) -> None:
    """Fill in the result at ``lead``: the rows ``span`` of the next dimension."""
    dim, (low, high) = len(lead), span
    for part in parts:
        box = part.box
        base, end = box.out[dim]
        start, stop = max(low, base), min(high, end)
        if start >= stop:
            continue
        kept = box.kept[dim]
        wanted = np.arange(start, stop) if kept is None else kept[start - base : stop - base]
        at = tuple(
            number if indices is None else int(indices[number - first])
            for number, indices, (first, _) in zip(lead, box.kept, box.out, strict=False)
        )
        where = (slice(start - low, None), *(slice(*ends) for ends in box.out[dim + 1 :]))
        source.gather(at, wanted, part.takes, into[where])
