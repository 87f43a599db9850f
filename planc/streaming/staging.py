"""Directories that fill up over several runs: a target and what a run is about in, a directory to
fill out, which takes the target's place when all is there.

Its name follows from the target's, so that the next run finds it. What another run left there, with
another plan or other files, is thrown away.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from planc.codec.files import read_file, write_file
from planc.errors import FileError, PlancError
from planc.tensorfiles.directories import check_free, recover, settle

_ABOUT = ".about"
TEMPORARY = "tmp"  # the end of names of files that are being written


@contextmanager
def staging(target: Path, identity: str, overwrite: bool, shared: bool = False) -> Iterator[Path]:
    """Gives the directory beside ``target`` in which its content is made.

    When the body ends, it takes the place of ``target``. When it fails, finished files stay for
    the next run; if there is none, nothing stays.

    Args:
        shared: other processes, by :func:`joining`, fill it too.

    Raises:
        PlancError: ``target`` exists and is not to be replaced, or another process fills it.
        OSError: the directory cannot be made, or not renamed.
    """
    recover(target)
    check_free(target, overwrite)
    directory = _partial(target)
    directory.mkdir(exist_ok=True)
    with _locked(directory, target) as share:
        _begin(directory, identity)
        if shared:
            share()
        try:
            yield directory
            (directory / _ABOUT).unlink()
            settle(directory, target)
        except BaseException:
            if directory.exists() and not _files(directory):
                shutil.rmtree(directory, ignore_errors=True)
            raise


@contextmanager
def joining(target: Path) -> Iterator[Path]:
    """Gives the directory that another process of the same job has begun to fill.

    As long as one of them is at work, no other run begins.

    Raises:
        PlancError: it is not there, or another job fills it.
    """
    directory = _partial(target)
    if not directory.is_dir():
        raise PlancError(
            f"{directory}: is not there, where rank 0 has made it; ranks need one file system"
        )
    with _locked(directory, target, exclusive=False):
        yield directory


def _partial(target: Path) -> Path:
    return target.with_name(f".{target.name[:50]}.planc-partial")


def _begin(directory: Path, identity: str) -> None:
    """Keeps what a run about the same thing has finished, and nothing else."""
    about, wanted, known = directory / _ABOUT, identity.encode(), None
    with suppress(FileError, OSError):
        known = read_file(about, len(wanted))
    for path in directory.iterdir():
        temporary = path.name.startswith(".") and path.name.endswith(f".{TEMPORARY}")
        if known != wanted or temporary:
            path.unlink()
    write_file(about, wanted)


def _files(directory: Path) -> list[Path]:
    return [path for path in directory.iterdir() if path.name != _ABOUT]


@contextmanager
def _locked(directory: Path, target: Path, exclusive: bool = True) -> Iterator[Callable[[], None]]:
    """Holds the directory for this process, or with others; the system lets go when it ends.

    Gives what lets others in.
    """
    if os.name == "nt":
        yield lambda: None
        return
    import fcntl

    descriptor = os.open(directory, os.O_RDONLY)

    def lock(kind: int) -> None:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PlancError(f"{target}: another process is writing it; wait for its end") from None

    try:
        lock(fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        yield lambda: lock(fcntl.LOCK_SH)
    finally:
        os.close(descriptor)
