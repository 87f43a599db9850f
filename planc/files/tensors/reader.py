"""Reading safetensors files: the checked header, and any range of the data.

Files are read, never mapped: a file truncated meanwhile gives an error, not a fatal signal. A long
file read only once is dropped from the page cache, to keep the pages of other programs there,
unless it was cached before.
"""

from __future__ import annotations

import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from random import random

import numpy as np

from planc.errors import MalformedFile, TruncatedFile
from planc.files.disk.atomic import naming, open_regular
from planc.files.disk.limits import DEFAULT, Limits
from planc.files.disk.stream import Bytes
from planc.files.formats.formats import named
from planc.files.formats.nature import SAFETENSORS, START, nature
from planc.files.tensors.header import LENGTH, Entry, Header, parse_header, text_length

_LONG = 64 << 20  # bytes; shorter files may stay in the page cache
_PROBES = 16


class OpenFile:
    """An open file with random access, for one thread.

    Args:
        once: the file is read once, and need not stay in the page cache.
    """

    def __init__(self, path: Path, descriptor: int, once: bool) -> None:
        self._path, self._descriptor = path, descriptor
        self._raw = FileIO(descriptor, closefd=False)
        size = os.fstat(descriptor).st_size
        self._once = once and size >= _LONG and not _is_cached(descriptor, size)

    def read(self, at: int, into: Bytes) -> None:
        """Fill ``into`` with the bytes from byte ``at`` on.

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
        if self._once:  # with the end of the range before, perhaps part of a page
            first, last = max(0, at - len(into)), at + len(into)
            os.posix_fadvise(self._descriptor, first, last - first, os.POSIX_FADV_DONTNEED)


class Readable(ABC):
    """An open file of tensors: a single file, or joined pieces."""

    @abstractmethod
    def read_into(self, entry: Entry, start: int, into: Bytes) -> None:
        """Fill ``into`` with the bytes of a tensor from its byte ``start`` on.

        Raises:
            TruncatedFile: the file has become shorter.
        """

    def chunks(self, entry: Entry, size: int) -> Iterator[Bytes]:
        """The bytes of a tensor in chunks of at most ``size``, each valid until the next."""
        length = entry.stop - entry.start
        buffer: Bytes = np.empty(min(size, length), dtype=np.uint8)
        for start in range(0, length, size):
            piece = buffer[: min(size, length - start)]
            self.read_into(entry, start, piece)
            yield piece


class TensorFile(Readable):
    """An open safetensors file; made by :func:`open_tensors`."""

    def __init__(
        self, path: str | os.PathLike[str], descriptor: int, limits: Limits, once: bool
    ) -> None:
        self.path = Path(path)
        size = os.fstat(descriptor).st_size
        self._file = OpenFile(self.path, descriptor, once)
        with named(str(path)), os.fdopen(descriptor, "rb", closefd=False) as file:
            start = file.read(START)
            name, use = nature(start)
            if name and name != SAFETENSORS:
                raise MalformedFile(f"is {name}, not {SAFETENSORS}; {use}")
            length = text_length(start[: LENGTH + 1], size, limits)
            file.seek(0)
            self.header: Header = parse_header(file.read(LENGTH + length), size, limits)

    def read_into(self, entry: Entry, start: int, into: Bytes) -> None:
        self._file.read(self.header.data + entry.start + start, into)


@contextmanager
def open_tensors(
    path: str | os.PathLike[str], limits: Limits = DEFAULT, once: bool = False
) -> Iterator[TensorFile]:
    """Open a safetensors file and check its header.

    Args:
        once: the file is read once, and need not stay in the page cache.

    Raises:
        FileError: it is not a regular file, or not a safetensors file; its class tells the cause.
        OSError: it cannot be opened or read.
    """
    descriptor = open_regular(path)
    try:
        yield TensorFile(path, descriptor, limits, once)
    finally:
        os.close(descriptor)


def read_header(path: str | os.PathLike[str], limits: Limits = DEFAULT) -> Header:
    """The header of a safetensors file. Raises like :func:`open_tensors`."""
    with open_tensors(path, limits) as file:
        return file.header


def is_same_file(first: Path, second: Path) -> bool:
    """True if two paths lead to one existing file."""
    try:
        return os.path.samestat(first.stat(), second.stat())
    except OSError:
        return False


def _is_cached(descriptor: int, size: int) -> bool:
    """True if part of a file is in the page cache, or if this cannot be determined."""
    if not hasattr(os, "RWF_NOWAIT"):
        return True
    # a probe brings its page into the cache: one page only, at a new place each time
    places = [int((number + random()) / _PROBES * size) for number in range(_PROBES)]
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
    found = any(_is_here(descriptor, at) for at in places)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_NORMAL)
    return found


def _is_here(descriptor: int, at: int) -> bool:
    """True if a byte of a file can be read without waiting for the disk."""
    try:
        os.preadv(descriptor, [bytearray(1)], at, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    except OSError:  # the file system cannot tell
        return True
    return True


def is_directory(path: Path) -> bool:
    """True if a path leads to a directory; raises OSError if it leads nowhere."""
    return stat.S_ISDIR(path.stat().st_mode)
