"""Names beside a target: temporary files, locks, and leftovers of dead processes.

A target is replaced by a rename, so its new content is written beside it, in the same directory.
Every such name starts with a dot and the target's name, or a digest of a long name, so that no two
targets share one. A temporary file has 16 random digits and stays locked while a process writes it.
Only unlocked regular files with exactly such names are removed.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

try:
    import fcntl
except ImportError:  # pragma: no cover  # Windows
    fcntl = None  # type: ignore[assignment]

_LOCK = ".planc-lock"
_TEMPORARY = ".planc-tmp"
_STEM = 50  # characters of a target's name in the names beside it, 200 bytes at most
_DIGITS = 16
_OPEN = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)


def has_locks() -> bool:
    """True if the system supports file locks."""
    return fcntl is not None


def shortened(name: str, length: int = _STEM) -> str:
    """A name of at most ``length`` characters; a longer one ends in a digest of the whole."""
    if len(name) < length:
        return name
    digest = sha256(os.fsencode(name)).hexdigest()[:_DIGITS]
    return f"{name[: length - _DIGITS - 1]}-{digest}"


def beside(target: Path, suffix: str) -> Path:
    """The hidden name with ``suffix`` beside ``target``, unique to each target."""
    return target.with_name(f".{shortened(target.name)}{suffix}")


def temporary_name(target: Path, suffix: str = _TEMPORARY) -> Path:
    """A fresh name beside ``target`` for its replacement."""
    return beside(target, f".{secrets.token_hex(_DIGITS // 2)}{suffix}")


def temporary_names(target: Path, suffix: str = _TEMPORARY) -> Iterator[Path]:
    """The regular files beside ``target`` with temporary names."""
    stem = re.escape(shortened(target.name))
    pattern = re.compile(rf"\.{stem}\.[0-9a-f]{{{_DIGITS}}}{re.escape(suffix)}")
    with suppress(FileNotFoundError):
        for path in list(target.parent.iterdir()):
            if pattern.fullmatch(path.name) and _is_regular(path):
                yield path


def sweep(target: Path) -> None:
    """Remove the target's temporary files left by dead processes."""
    for path in temporary_names(target):
        with left(path) as is_left:
            if is_left:
                path.unlink(missing_ok=True)


def created(path: Path, flags: int, mode: int) -> int | None:
    """A locked descriptor of a new file, or None if another process removed it as a leftover.

    The lock lasts until the descriptor is closed.
    """
    descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, mode)
    if hold(descriptor) and os.fstat(descriptor).st_nlink:
        return descriptor
    os.close(descriptor)
    path.unlink(missing_ok=True)
    return None


def hold(descriptor: int) -> bool:
    """Lock an open file or directory until it is closed; False if another process holds it."""
    if has_locks():
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True  # some network file systems have no locks
    return True


@contextmanager
def left(path: Path) -> Iterator[bool]:
    """Yield True if no process holds the file, and hold it while the body runs."""
    try:
        descriptor = os.open(path, _OPEN) if has_locks() else None
    except OSError:
        descriptor = None
    if descriptor is None:
        yield False
        return
    try:
        yield _locks(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Hold ``target`` while the body runs; other processes and threads wait for it here.

    The lock is a file that exists only while held. Systems without locks take none.
    """
    if not has_locks():
        yield
        return
    path = beside(target, _LOCK)
    descriptor = _acquired(path)
    try:
        yield
    finally:
        try:
            with suppress(OSError):  # an unlocked file blocks nobody
                path.unlink()
        finally:
            os.close(descriptor)


def wait_for(target: Path) -> None:
    """Wait until no other process holds ``target``."""
    with suppress(OSError):
        descriptor = os.open(beside(target, _LOCK), _OPEN)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        finally:
            os.close(descriptor)


def _acquired(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except FileNotFoundError:  # its last holder removed it
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _locks(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_regular(path: Path) -> bool:
    with suppress(OSError):
        return stat.S_ISREG(path.lstat().st_mode)
    return False
