"""Writing safetensors files in one pass: the layout first, then the bytes of each tensor as they
come, at the end the header with what is only known then.

Metadata may hold digests of the data that follows it: a header of the same length is written before
the data, and written again over it after.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any

from planc.codec.files import write_all
from planc.errors import PlancError
from planc.tensorfiles.header import Entry, Header, write_header

Buffer = Any  # bytes, memoryview, an array of bytes


class TensorWriter:
    """Writes one safetensors file through a descriptor of an empty file.

    Tensors are added in the order of ``entries``, which :func:`planc.tensorfiles.header.place`
    made; ``metadata`` is what the header says, or something of the same length.
    """

    def __init__(
        self, descriptor: int, entries: Sequence[Entry], metadata: Mapping[str, str]
    ) -> None:
        self._descriptor = descriptor
        self._entries = tuple(entries)
        self._metadata = dict(metadata)
        self._raw = write_header(self._entries, self._metadata)
        self._added = 0
        write_all(descriptor, self._raw)

    def add(self, entry: Entry, chunks: Iterable[Buffer]) -> bytes:
        """Writes the bytes of the next tensor; returns their SHA-256.

        Raises:
            PlancError: it is another tensor's turn, or the chunks have more or fewer bytes.
        """
        if self._added >= len(self._entries) or self._entries[self._added] is not entry:
            raise PlancError(f"{entry.name}: not the tensor that follows in the file")
        digest, length = sha256(), 0
        for chunk in chunks:
            digest.update(chunk)
            write_all(self._descriptor, chunk)
            length += memoryview(chunk).nbytes
        if length != entry.stop - entry.start:
            raise PlancError(
                f"{entry.name}: {length} bytes came, {entry.dtype}{list(entry.shape)} has "
                f"{entry.stop - entry.start}"
            )
        self._added += 1
        return digest.digest()

    def finish(self, metadata: Mapping[str, str] | None = None) -> Header:
        """Writes the header with its final metadata, if it is another, and returns it.

        Raises:
            PlancError: tensors are missing, or the header would have another length.
        """
        if self._added < len(self._entries):
            raise PlancError(f"{self._entries[self._added].name}: this tensor was never written")
        if metadata is not None and dict(metadata) != self._metadata:
            raw = write_header(self._entries, metadata)
            if len(raw) != len(self._raw):
                raise PlancError(f"a header of {len(raw)} bytes does not fit in {len(self._raw)}")
            self._metadata, self._raw = dict(metadata), raw
            rewrite(self._descriptor, raw)
        return Header(self._entries, self._metadata, self._raw)


def rewrite(descriptor: int, start: bytes) -> None:
    """Writes over the first bytes of a file, however little each system call takes."""
    rest, at = memoryview(start), 0
    while rest:
        count = os.pwrite(descriptor, rest, at)
        rest, at = rest[count:], at + count
