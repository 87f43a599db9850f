"""Reading safetensors files: a path in, the checked header and any range of the data out.

Files are read, never mapped: one that is cut short meanwhile gives an error, not a
signal that kills the process. A long file that is read once need not stay in the system's cache,
where it would push out what others keep there, unless it was there before.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from random import random
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from planc.errors import FileError, TruncatedFile
from planc.files.disk.atomic import naming, open_regular
from planc.files.disk.limits import DEFAULT, Limits
from planc.files.tensors.header import LENGTH, Entry, Header, parse_header, text_length

Bytes = NDArray[np.uint8]

_LONG = 64 << 20  # bytes of a file from which on it matters what of it is in the cache
_PROBES = 16


class OpenFile:
    """An open file, of which any part is read at any time, by one thread.

    Args:
        once: it is read once, and need not stay in the system's cache for that.
    """

    def __init__(self, path: Path, descriptor: int, once: bool) -> None:
        self._path, self._descriptor = path, descriptor
        self._raw = FileIO(descriptor, closefd=False)
        size = os.fstat(descriptor).st_size
        self._once = once and size >= _LONG and not _is_cached(descriptor, size)

    def read(self, at: int, into: Bytes) -> None:
        """Fills ``into`` with the bytes from byte ``at`` on.

        Raises:
            TruncatedFile: the file has become shorter.
        """
        self._raw.seek(at)
        rest = memoryview(into)  # type: ignore[arg-type]  # an array is a buffer
        while rest:
            with naming(self._path):
                count = self._raw.readinto(rest)
            if count == 0:
                raise TruncatedFile(
                    f"{self._path}: byte {self._raw.tell()}: the file ended while it was read; "
                    "copy it again"
                )
            rest = rest[count:]
        if self._once:  # with the end of what was read before, which may have been part of a page
            first, last = max(0, at - len(into)), at + len(into)
            os.posix_fadvise(self._descriptor, first, last - first, os.POSIX_FADV_DONTNEED)


class TensorFile:
    """An open safetensors file; made by :func:`open_tensors`."""

    def __init__(
        self, path: str | os.PathLike[str], descriptor: int, limits: Limits, once: bool
    ) -> None:
        self.path = Path(path)
        size = os.fstat(descriptor).st_size
        self._file = OpenFile(self.path, descriptor, once)
        try:
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                start = file.read(LENGTH + 1)
                length = text_length(start, size, limits)
                file.seek(0)
                self.header: Header = parse_header(file.read(LENGTH + length), size, limits)
        except FileError as error:
            raise type(error)(f"{path}: {error}") from None

    def read_into(self, entry: Entry, start: int, into: Bytes) -> None:
        """Fills ``into`` with the bytes of a tensor from its byte ``start`` on.

        Raises:
            TruncatedFile: the file has become shorter.
        """
        self._file.read(self.header.data + entry.start + start, into)

    def chunks(self, entry: Entry, size: int) -> Iterator[Bytes]:
        """The bytes of a tensor in pieces of at most ``size``, each valid until the next."""
        return chunks_of(self, entry, size)


class Readable(Protocol):
    """A file of tensors that is open: one, or what pieces are when put together."""

    def read_into(self, entry: Entry, start: int, into: Bytes) -> None:
        """Fills ``into`` with the bytes of a tensor from its byte ``start`` on."""


def chunks_of(file: Readable, entry: Entry, size: int) -> Iterator[Bytes]:
    """The bytes of a tensor in pieces of at most ``size``, each valid until the next."""
    length = entry.stop - entry.start
    buffer: Bytes = np.empty(min(size, length), dtype=np.uint8)
    for start in range(0, length, size):
        piece = buffer[: min(size, length - start)]
        file.read_into(entry, start, piece)
        yield piece


@contextmanager
def open_tensors(
    path: str | os.PathLike[str], limits: Limits = DEFAULT, once: bool = False
) -> Iterator[TensorFile]:
    """Opens a safetensors file and checks its header.

    Args:
        once: it will be read once, and need not stay in the system's cache for that.

    Raises:
        FileError: it is no regular file, or no safetensors file; its class says which.
        OSError: it cannot be opened or read.
    """
    descriptor = open_regular(path)
    try:
        yield TensorFile(path, descriptor, limits, once)
    finally:
        os.close(descriptor)


def read_header(path: str | os.PathLike[str], limits: Limits = DEFAULT) -> Header:
    """The header of a safetensors file. Raises as :func:`open_tensors` does."""
    with open_tensors(path, limits) as file:
        return file.header


def is_same_file(first: Path, second: Path) -> bool:
    """Whether two paths lead to one file that exists."""
    try:
        return os.path.samestat(first.stat(), second.stat())
    except OSError:
        return False


def _is_cached(descriptor: int, size: int) -> bool:
    """Whether part of a file is in the system's cache, or that cannot be known."""
    if not hasattr(os, "RWF_NOWAIT"):
        return True
    # a look brings its page into the cache: one page only, and another one each time
    places = [int((number + random()) / _PROBES * size) for number in range(_PROBES)]
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
    found = any(_is_here(descriptor, at) for at in places)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_NORMAL)
    return found


def _is_here(descriptor: int, at: int) -> bool:
    """Whether a byte of a file can be read without waiting for the disk."""
    try:
        os.preadv(descriptor, [bytearray(1)], at, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    except OSError:  # the file system cannot tell
        return True
    return True


def is_directory(path: Path) -> bool:
    """Whether a path leads to a directory; raises OSError if it leads nowhere."""
    return stat.S_ISDIR(path.stat().st_mode)
