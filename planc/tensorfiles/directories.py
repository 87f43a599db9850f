"""Directories that appear whole: a path in, a directory to fill out, which takes its place at the
end in one rename.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from planc.codec.files import hold, sweep, sync_directory, temporary_name
from planc.errors import PlancError

_OLD = ".planc-old"


@contextmanager
def new_directory(target: Path, overwrite: bool = False) -> Iterator[Path]:
    """Gives a new directory beside ``target``, which takes its place when the body ends.

    On any error, also in the body, it is removed again and ``target`` is as it was.

    Raises:
        PlancError: ``target`` exists, and is not an empty directory, and is not to be replaced.
    """
    target = Path(os.path.realpath(target))
    recover(target)
    check_free(target, overwrite)
    sweep(target)
    temporary = temporary_name(target)
    temporary.mkdir()
    try:
        with _held(temporary):
            yield temporary
            settle(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


@contextmanager
def _held(directory: Path) -> Iterator[None]:
    if os.name == "nt":
        yield
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        hold(descriptor)
        yield
    finally:
        os.close(descriptor)


def check_free(target: Path, overwrite: bool) -> None:
    """Returns if ``target`` may become a new directory.

    Raises:
        PlancError: it exists, and is not an empty directory, and is not to be replaced.
    """
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not target.is_dir():
        raise PlancError(f"{target} exists and is no directory: name another, or a new one")
    if not overwrite:
        raise PlancError(f"{target} exists: name a new directory, or allow to overwrite it")


def settle(temporary: Path, target: Path) -> None:
    """Renames a finished directory to its place; one that is there makes room first.

    Two renames are needed for that. Between them ``target`` is not there, under another name: see
    :func:`recover`.
    """
    sync_directory(temporary)
    old = target.with_name(f".{target.name[:50]}{_OLD}")
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
    temporary.rename(target)
    sync_directory(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def recover(target: Path) -> None:
    """Puts an old directory back that an interrupted run had moved away, or removes it."""
    old = target.with_name(f".{target.name[:50]}{_OLD}")
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
    elif old.exists():
        old.rename(target)
