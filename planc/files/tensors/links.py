"""Links beside a checkpoint: a directory and the name of a file in it in, the path to read out.

The file, index or directory that the caller names is read wherever a link leads. For every other
file the caller has named a directory only: the file or index found in it, shards and extra files
that an index or a record lists, files of removed values, and files that are copied along. Such a
file may be a symbolic link

* to a file in the same directory or below it, or
* where the directory is ``snapshots/REVISION`` of a cache, or lies below that, to a file in the
  directory ``blobs`` beside ``snapshots``: so the cache of Hugging Face's libraries is laid out.

Each is judged by where the links end, however many there are. Any other link is an UnsafePath.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from planc.errors import UnsafePath


def inside(path: Path) -> Path:
    """``path`` itself, if it is no link, or one that may be followed.

    Raises:
        UnsafePath: it leads out of its directory, and not into the cache that this is part of.
    """
    real, home = Path(os.path.realpath(path)), Path(os.path.realpath(path.parent))
    if not any(real.is_relative_to(place) for place in (home, *_blobs(home))):
        raise UnsafePath(
            f"{path}: a link to {real}, which is neither in this directory nor in the blobs of its "
            "cache; put the file itself here, or name the directory where it is"
        )
    return path


def _blobs(home: Path) -> Iterator[Path]:
    """The directory of blobs of the caches that a directory is a snapshot of."""
    for place in (home, *home.parents):
        if place.parent.name == "snapshots":
            yield Path(os.path.realpath(place.parent.parent / "blobs"))
