"""Directories that fill up over several runs: a target and what a run is about in, a directory to
fill out, which takes the target's place when all is there.

Its name follows from the target's, so that the next run finds it. A file beside it says what the
run is about: what another run left there, with another plan or other files, is thrown away, and
what no run made is refused.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from planc.errors import FileError, PlancError
from planc.files.disk.atomic import read_file, write_file
from planc.files.disk.directories import ABOUT, OLD, PARTIAL, check_free, recover, settle
from planc.files.formats.beside import beside, locked

TEMPORARY = "tmp"  # the end of names of files that are being written


@contextmanager
def staging(target: Path, identity: str, overwrite: bool, shared: bool = False) -> Iterator[Path]:
    """Gives the directory beside ``target`` in which its content is made.

    When the body ends, it takes the place of ``target``. When it fails, finished files stay for
    the next run; if there is none, nothing stays.

    Args:
        shared: other processes, by :func:`joining`, fill it too.

    Raises:
        PlancError: ``target`` exists and is not to be replaced, or another process fills it, or
            another program made what is there.
        OSError: the directory cannot be made, or not renamed.
    """
    directory, about = beside(target, PARTIAL), beside(target, ABOUT)
    with ExitStack() as held:
        with locked(target):
            recover(target)
            check_free(target, overwrite)
            directory.mkdir(exist_ok=True)
            share = held.enter_context(_locked(directory, target))
            _begin(directory, about, identity)
        if shared:
            share()
        try:
            yield directory
            with locked(target):
                check_free(target, overwrite)
                settle(directory, target, beside(target, OLD))
                about.unlink()
        except BaseException:
            with suppress(OSError):
                directory.rmdir()  # which fails where it holds a finished file
                about.unlink()
            raise


@contextmanager
def joining(target: Path) -> Iterator[Path]:
    """Gives the directory that another process of the same job has begun to fill.

    As long as one of them is at work, no other run begins.

    Raises:
        PlancError: it is not there, or another job fills it.
    """
    directory = beside(target, PARTIAL)
    if not directory.is_dir():
        raise PlancError(
            f"{directory}: is not there, where rank 0 has made it; ranks need one file system"
        )
    with _locked(directory, target, exclusive=False):
        yield directory


def _begin(directory: Path, about: Path, identity: str) -> None:
    """Keeps what a run about the same thing has finished, and nothing else."""
    wanted, known = identity.encode(), None
    with suppress(FileError, OSError):
        known = read_file(about, len(wanted))
    if known is None and not about.exists() and any(directory.iterdir()):
        raise PlancError(f"{directory}: was not made by planc; move it away")
    for path in directory.iterdir():
        temporary = path.name.startswith(".") and path.name.endswith(f"{TEMPORARY}")
        if known != wanted or temporary:
            path.unlink()
    write_file(about, wanted)


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
