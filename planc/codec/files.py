"""Reading and replacing files: paths in, bytes out; bytes in, a file that is whole or unchanged.

Only regular files are read, never a pipe or device that could hang. A file is replaced in one
step: its new content is written beside it, flushed to the disk, and renamed over it.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from planc.errors import LimitExceeded, UnsafePath

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# a pipe is opened without waiting for its other end, to be refused; no child inherits a descriptor,
# which Python sees to
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL
_SUFFIX = ".tmp"
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
        # the file may grow or shrink meanwhile, so its size only says how much to ask for
        expected = min(size, limit) + 1
        while chunk := os.read(descriptor, max(expected - read, 4096)):
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


def open_regular(path: str | os.PathLike[str]) -> int:
    """A descriptor to read a regular file with; symbolic links are followed.

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
    """Makes ``content`` the content of the file, in one step that is on the disk on return.

    Raises:
        UnsafePath, OSError: as for :func:`replacing`.
    """
    with replacing(path) as descriptor:
        write_all(descriptor, content)


def write_all(descriptor: int, content: Any) -> None:
    """Writes all bytes of a buffer, however little each system call takes."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[int]:
    """Gives a descriptor of a new file, which takes the place of ``path`` when the body ends.

    A symbolic link stays one: the file it leads to is replaced. The mode of a replaced file is
    kept. On any error, also in the body, the old file stays as it was and the new one is dropped;
    a failed flush is never tried again, for the pages would pass as written.

    Raises:
        UnsafePath: ``path`` is a pipe, device or socket.
        OSError: the directory does not exist, the disk is full, ...
    """
    target = Path(os.path.realpath(path))
    mode = _mode_of(target)
    sweep(target)
    temporary = temporary_name(target)
    descriptor = os.open(temporary, _CREATE | _BINARY, 0o666 if mode is None else mode)
    try:
        try:
            hold(descriptor)
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


def temporary_name(target: Path) -> Path:
    """A name beside ``target`` for what will take its place."""
    return target.with_name(f"{_prefix(target)}{secrets.token_hex(8)}{_SUFFIX}")


def sweep(target: Path) -> None:
    """Removes what a process that died has left beside ``target``; what another one holds stays."""
    prefix = _prefix(target)
    with suppress(FileNotFoundError):
        for path in list(target.parent.iterdir()):
            if path.name.startswith(prefix) and path.name.endswith(_SUFFIX):
                _remove_if_left(path)


def hold(descriptor: int) -> None:
    """Marks an open temporary file or directory as being in use, as long as it is open."""
    if fcntl is not None:
        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _remove_if_left(path: Path) -> None:
    if fcntl is None:  # whether another process holds it is not known
        return
    with suppress(OSError):
        descriptor = os.open(path, _READ)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails where it is held
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                shutil.rmtree(path)
            else:
                path.unlink()
        finally:
            os.close(descriptor)


def _prefix(target: Path) -> str:
    return f".{target.name[:50]}."


def sync_directory(directory: Path) -> None:
    """Flushes the names in a directory to the disk, where the system can."""
    if os.name == "nt":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # some network file systems cannot flush directories, and lose nothing by it
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _mode_of(target: Path) -> int | None:
    """Permissions of the file to be replaced, None where there is none."""
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
