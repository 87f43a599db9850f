"""Reading regular files and replacing files atomically.

Only regular files are read, never a pipe or device that could hang. A file is replaced in one
step: its new content is written beside it, flushed to the disk, and renamed over it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from planc.errors import LimitExceeded, UnsafePath
from planc.files.disk.beside import created, has_locks, sweep, temporary_name

# a pipe is opened without waiting for its other end, then refused; Python keeps descriptors from
# being inherited by child processes
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)
_BINARY = getattr(os, "O_BINARY", 0)  # Windows would translate line ends


def read_file(path: str | os.PathLike[str], limit: int) -> bytes:
    """The content of a regular file of at most ``limit`` bytes; symbolic links are followed.

    Raises:
        UnsafePath: a pipe, device, socket or directory.
        LimitExceeded: the file is larger.
        OSError: the file cannot be opened or read.
    """
    descriptor = open_regular(path)
    try:
        size = os.fstat(descriptor).st_size
        parts, read = [], 0
        # the file may grow or shrink meanwhile, so its size is only a hint for the first read
        expected = min(size, limit) + 1
        while chunk := _read(path, descriptor, max(expected - read, 4096)):
            parts.append(chunk)
            read += len(chunk)
            if read > limit:
                size = max(read, size)
                raise LimitExceeded(
                    f"{path}: a file of {size} bytes exceeds the limit of {limit}; if you trust "
                    f"it, pass limits=Limits(file={size})"
                )
    finally:
        os.close(descriptor)
    return b"".join(parts)


def _read(path: str | os.PathLike[str], descriptor: int, length: int) -> bytes:
    with naming(path):
        return os.read(descriptor, length)


def open_regular(path: str | os.PathLike[str]) -> int:
    """A descriptor for reading a regular file; symbolic links are followed.

    Raises:
        UnsafePath: a pipe, device, socket or directory.
        OSError: the file cannot be opened.
    """
    descriptor = os.open(path, _READ | _BINARY)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise UnsafePath(f"{path}: {_kind(mode)}, not a regular file; name a file")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def write_file(path: str | os.PathLike[str], content: bytes) -> None:
    """Replace the content of a file in one step, on the disk on return.

    Raises:
        UnsafePath, OSError: as for :func:`replacing`.
    """
    with replacing(path) as descriptor:
        write_all(descriptor, content)


def write_all(descriptor: int, content: Any) -> None:
    """Write all bytes of a buffer, across partial system calls."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[int]:
    """Yield a descriptor of a new file; it replaces ``path`` when the body ends.

    A symbolic link stays, and its target is replaced. The mode of a replaced file is kept. On any
    error, also in the body, the old file stays as it was and the new one is dropped. A failed flush
    is never retried, because the pages would then count as written. Several processes and threads
    may replace one file at the same time; the last to finish wins.

    Raises:
        UnsafePath: ``path`` is a pipe, device or socket.
        OSError: the directory does not exist, the disk is full, ...; names ``path``.
    """
    target = Path(os.path.realpath(path))
    mode = _mode_of(target)
    sweep(target)
    temporary, descriptor = _new_file(target, 0o666 if mode is None else mode)
    try:
        with naming(target), _still_held(descriptor):
            try:
                yield descriptor
                if mode is not None and hasattr(os, "fchmod"):
                    os.fchmod(descriptor, mode)  # the umask may have taken bits away
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(target.parent)


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Add a path to an OSError of the body without one, raised by calls on descriptors."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = os.fspath(path)
        raise


@contextmanager
def _still_held(descriptor: int) -> Iterator[None]:
    """Keep a file locked after it is closed, until it is renamed.

    Without the lock, a sweep would take it for a leftover.
    """
    if not has_locks():  # Windows renames only closed files
        yield
        return
    holder = os.dup(descriptor)
    try:
        yield
    finally:
        os.close(holder)


def _new_file(target: Path, mode: int) -> tuple[Path, int]:
    while True:
        temporary = temporary_name(target)
        try:
            descriptor = created(temporary, os.O_WRONLY | _BINARY, mode)
        except OSError as error:
            error.filename = os.fspath(target)  # the temporary name means nothing to the user
            raise
        if descriptor is not None:
            return temporary, descriptor


def sync_directory(directory: Path) -> None:
    """Flush the names in a directory to the disk, if the system supports it."""
    if os.name == "nt":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        with naming(directory):
            os.fsync(descriptor)
    except OSError as error:
        # some network file systems cannot flush directories, and need no flush
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _mode_of(target: Path) -> int | None:
    """Permissions of the file to be replaced, or None if there is none."""
    try:
        status = target.stat()
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    if not stat.S_ISREG(status.st_mode):
        raise UnsafePath(
            f"{target}: {_kind(status.st_mode)}, which a file would replace; name a file"
        )
    return stat.S_IMODE(status.st_mode) & 0o777


def _kind(mode: int) -> str:
    for is_kind, kind in (
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISSOCK, "a socket"),
    ):
        if is_kind(mode):
            return kind
    return "a device"
