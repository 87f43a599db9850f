"""Extra files of single-file checkpoints: their names, and the removal of those of older saves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from planc.errors import FileError
from planc.files.disk.beside import locked, shortened
from planc.files.disk.limits import Limits
from planc.files.formats.checkpoint import decode_part
from planc.files.tensors.opened import read_record
from planc.files.tensors.reader import read_header
from planc.files.tensors.shards import EXTRA_SUFFIX, SUFFIX

_STEM = 56  # characters of the checkpoint's name in the extra file's name, 224 bytes at most


def extra_name(stem: str, digest: bytes) -> str:
    """Return the name of an extra file, from its checkpoint's name and a digest of its content."""
    return f"{shortened(stem, _STEM)}-{digest[:8].hex()}{EXTRA_SUFFIX}"


def drop_old_extras(target: Path, limits: Limits) -> None:
    """Remove the extra files of a checkpoint no longer listed in its record."""
    if not any(_extras_of(target, limits)):
        return
    with locked(target):
        try:
            listed = {shard.name for shard in read_record(target, limits).shards}
        except (FileError, FileNotFoundError):  # replaced or removed meanwhile
            return
        for path in list(_extras_of(target, limits)):
            if path.name not in listed:
                path.unlink(missing_ok=True)


def _extras_of(target: Path, limits: Limits) -> Iterator[Path]:
    """Yield the extra files written by planc beside a checkpoint."""
    stem = re.escape(shortened(target.name.removesuffix(SUFFIX), _STEM))
    pattern = re.compile(rf"{stem}-[0-9a-f]{{16}}{re.escape(EXTRA_SUFFIX)}")
    for path in target.parent.iterdir():
        if pattern.fullmatch(path.name) and not path.is_symlink() and _is_part(path, limits):
            yield path


def _is_part(path: Path, limits: Limits) -> bool:
    try:
        decode_part(read_header(path, limits).metadata, limits=limits)
    except (FileError, OSError):
        return False
    return True
