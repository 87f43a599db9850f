"""Writing safetensors files in one pass: the layout, then the tensors' bytes, then final metadata.

Metadata may hold digests of the data after it: a header of the same length is written before the
data, and overwritten at the end.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from planc.errors import PlancError
from planc.files.disk.stream import Bytes, Space, Stream, fill
from planc.files.tensors.header import Entry, Header, write_header

Buffer = Any  # bytes, memoryview, an array of bytes


class TensorWriter:
    """Writes one safetensors file through a descriptor of an empty file.

    Tensors are added in the order of ``entries``, made by :func:`planc.files.tensors.header.place`.
    ``metadata`` is the header's metadata, or a placeholder of the same length. The writer is a
    context manager: after its body, nothing more is written.
    """

    def __init__(
        self, descriptor: int, entries: Sequence[Entry], metadata: Mapping[str, str]
    ) -> None:
        self._descriptor = descriptor
        self._entries = tuple(entries)
        self._metadata = dict(metadata)
        self._raw = write_header(self._entries, self._metadata)
        self._digests: list[Any] = []  # of the tensors added so far
        length = len(self._raw) + (self._entries[-1].stop if self._entries else 0)
        self._stream = Stream(descriptor, length)
        fill(self._stream.space, self._raw)

    def __enter__(self) -> TensorWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self._stream.close()

    @contextmanager
    def adding(self, entry: Entry) -> Iterator[Space]:
        """Yield the function giving memory for the next tensor's bytes; the body fills it.

        See :meth:`planc.files.disk.stream.Stream.space`.

        Raises:
            PlancError: the tensor is out of order, or more or fewer bytes were asked for.
        """
        turn = len(self._digests)
        if turn >= len(self._entries) or self._entries[turn] is not entry:
            raise PlancError(f"{entry.name}: not the tensor that follows in the file")
        length = 0

        def space(size: int) -> Bytes:
            nonlocal length
            length += size
            _check(entry, length, at_most=True)
            return self._stream.space(size)

        self._stream.begin()
        yield space
        _check(entry, length)
        self._digests.append(self._stream.end())

    def add(self, entry: Entry, chunks: Iterable[Buffer]) -> None:
        """Write the bytes of the next tensor. Raises like :meth:`adding`."""
        with self.adding(entry) as space:
            for chunk in chunks:
                fill(space, chunk)

    def digests(self) -> tuple[bytes, ...]:
        """The SHA-256 of every tensor, in file order; waits until all are written.

        Raises:
            PlancError: tensors are missing.
            OSError: the disk is full, ...
        """
        if len(self._digests) < len(self._entries):
            missing = self._entries[len(self._digests)]
            raise PlancError(f"{missing.name}: this tensor was never written")
        self._stream.finish()
        return tuple(digest.digest() for digest in self._digests)

    def finish(self, metadata: Mapping[str, str] | None = None) -> Header:
        """Write the header with its final metadata, if changed, and return it.

        Raises:
            PlancError: tensors are missing, or the header would have another length.
        """
        self.digests()
        if metadata is not None and dict(metadata) != self._metadata:
            raw = write_header(self._entries, metadata)
            if len(raw) != len(self._raw):
                raise PlancError(f"a header of {len(raw)} bytes does not fit in {len(self._raw)}")
            self._metadata, self._raw = dict(metadata), raw
            rewrite(self._descriptor, raw)
        return Header(self._entries, self._metadata, self._raw)


def _check(entry: Entry, length: int, at_most: bool = False) -> None:
    size = entry.stop - entry.start
    if length > size or (length < size and not at_most):
        raise PlancError(
            f"{entry.name}: {length} bytes came, {entry.dtype}{list(entry.shape)} has {size}"
        )


def rewrite(descriptor: int, start: bytes) -> None:
    """Overwrite the first bytes of a file, across partial system calls."""
    rest, at = memoryview(start), 0
    while rest:
        count = os.pwrite(descriptor, rest, at)
        rest, at = rest[count:], at + count
