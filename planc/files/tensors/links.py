"""Symbolic links beside a checkpoint, and the rule for following them.

The file, index or directory named by the caller is read wherever a link leads. All other files are
found through a directory: its only file or index, shards and extra files listed in an index or a
record, files of removed values, and files copied along. Such a file may be a symbolic link

* to a file in the same directory or below it, or
* if the directory is ``snapshots/REVISION`` of a cache, or lies below it, to a file in the
  directory ``blobs`` beside ``snapshots``: the layout of the cache of Hugging Face's libraries.

A chain of links is judged by its end. Any other link raises UnsafePath.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from planc.errors import UnsafePath


def inside(path: Path) -> Path:
    """Return ``path`` if it is a regular file or a permitted link.

    Raises:
        UnsafePath: it leads out of its directory, and not into the blobs of its cache.
    """
    real, home = Path(os.path.realpath(path)), Path(os.path.realpath(path.parent))
    if not any(real.is_relative_to(place) for place in (home, *_blobs(home))):
        raise UnsafePath(
            f"{path}: a link to {real}, which is neither in this directory nor in the blobs of its "
            "cache; put the file itself here, or name the directory where it is"
        )
    return path


def _blobs(home: Path) -> Iterator[Path]:
    """The blob directories of the caches with a snapshot around ``home``."""
    for place in (home, *home.parents):
        if place.parent.name == "snapshots":
            yield Path(os.path.realpath(place.parent.parent / "blobs"))
