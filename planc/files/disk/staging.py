"""Directories filled over several runs, and moved to their target when complete.

The name follows from the target's, so the next run finds it. A file beside it identifies the run.
Files left by a run with another plan or other files are deleted, and a directory not made by any
run is refused.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from planc.errors import FileError, PlancError
from planc.files.disk.atomic import read_file, write_file
from planc.files.disk.beside import beside, locked
from planc.files.disk.directories import ABOUT, OLD, PARTIAL, check_free, recover, settle

TEMPORARY = "tmp"  # suffix of unfinished files


@contextmanager
def staging(target: Path, identity: str, overwrite: bool, shared: bool = False) -> Iterator[Path]:
    """Yield the directory beside ``target`` to be filled with its content.

    It takes the place of ``target`` when the body ends. When the body fails, finished files stay
    for the next run; without any, the directory is removed.

    Args:
        target: the path of the result.
        identity: identifies the plan and the files of the run.
        overwrite: replace an existing target.
        shared: other processes fill it too, through :func:`joining`.

    Raises:
        PlancError: ``target`` exists and must not be replaced, another process fills it, or
            another program made the directory.
        OSError: the directory cannot be made or renamed.
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
                directory.rmdir()  # fails if it holds a finished file
                about.unlink()
            raise


@contextmanager
def joining(target: Path) -> Iterator[Path]:
    """Yield the directory begun by another process of the same job.

    No other run begins while a process of the job is at work.

    Raises:
        PlancError: it does not exist, or another job fills it.
    """
    directory = beside(target, PARTIAL)
    if not directory.is_dir():
        raise PlancError(
            f"{directory}: is not there, where rank 0 has made it; ranks need one file system"
        )
    with _locked(directory, target, exclusive=False):
        yield directory


def _begin(directory: Path, about: Path, identity: str) -> None:
    """Keep the finished files of a run with the same identity, and delete all others."""
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
    """Lock the directory for this process, or shared with others, until the process ends.

    Yields a callback that downgrades the lock to shared.
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
