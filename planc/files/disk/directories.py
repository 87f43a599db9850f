"""Directories replaced atomically: filled beside the target, then renamed into its place.

Each new directory has a mark beside it, a file locked while its process lives. A directory without
a mark is not a leftover, and stays.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from planc.errors import PlancError
from planc.files.disk.atomic import sync_directory
from planc.files.disk.beside import (
    beside,
    created,
    left,
    locked,
    temporary_name,
    temporary_names,
)

ABOUT = ".planc-about"  # the mark of a directory filled over several runs
PARTIAL = ".planc-partial"  # that directory
OLD = ".planc-old"  # a directory moved aside for a new one
_MARK = ".planc-mark"
_NEW = ".planc-new"


@contextmanager
def new_directory(target: Path, overwrite: bool = False) -> Iterator[Path]:
    """Yield a new directory beside ``target``; it takes the target's place when the body ends.

    On any error, also in the body, it is removed and ``target`` stays as it was. Several processes
    and threads may replace one directory at the same time; the last to finish wins.

    Raises:
        PlancError: ``target`` exists, is not an empty directory, and may not be replaced.
    """
    target = Path(os.path.realpath(target))
    prepare(target, overwrite)
    with _marked(target) as mark:
        directory = mark.with_suffix(_NEW)
        directory.mkdir()
        yield directory
        with locked(target):
            check_free(target, overwrite)
            settle(directory, target, mark.with_suffix(OLD))


@contextmanager
def _marked(target: Path) -> Iterator[Path]:
    """Yield a mark beside ``target``; on exit it is removed with everything made under it."""
    while (
        descriptor := created(mark := temporary_name(target, _MARK), os.O_WRONLY, 0o600)
    ) is None:
        pass
    try:
        yield mark
    finally:
        with suppress(OSError), locked(target):
            _clear(target, mark)
        os.close(descriptor)


def prepare(target: Path, overwrite: bool) -> None:
    """Clean up after dead processes beside ``target``. Raises like :func:`check_free`."""
    with locked(target):
        recover(target)
        check_free(target, overwrite)


def check_free(target: Path, overwrite: bool) -> None:
    """Check that ``target`` may become a new directory.

    Raises:
        PlancError: it exists, is not an empty directory, and may not be replaced.
    """
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not target.is_dir():
        raise PlancError(f"{target} exists and is no directory: name another, or a new one")
    if not overwrite:
        raise PlancError(
            f"{target} exists: name a new directory, or replace it with --overwrite, in Python "
            "overwrite=True"
        )


def settle(directory: Path, target: Path, old: Path) -> None:
    """Rename a finished directory into place; any existing directory is renamed to ``old`` first.

    Between the two renames ``target`` does not exist; :func:`recover` handles a crash there. The
    caller holds ``target``.
    """
    sync_directory(directory)
    if target.exists():
        target.rename(old)
    directory.rename(target)
    sync_directory(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def recover(target: Path) -> None:
    """Remove the leftovers of dead processes beside ``target``.

    A directory moved aside by one of them takes its place again, if the place is free. The caller
    holds ``target``.
    """
    for mark in temporary_names(target, _MARK):
        with left(mark) as is_left:
            if is_left:
                _clear(target, mark)
    about = beside(target, ABOUT)
    if about.is_file():
        _put_back(target, about.with_suffix(OLD))
        if not about.with_suffix(PARTIAL).exists():
            about.unlink()


def _clear(target: Path, mark: Path) -> None:
    _put_back(target, mark.with_suffix(OLD))
    directory = mark.with_suffix(_NEW)
    if directory.exists():
        shutil.rmtree(directory)
    mark.unlink(missing_ok=True)


def _put_back(target: Path, old: Path) -> None:
    if old.exists() and target.exists():
        shutil.rmtree(old)
    elif old.exists():
        old.rename(target)
