"""Checkpoints of planc on the disk: opening one and checking its files against its record.

No tensor is read here. The headers alone show whether every file is present, complete, written
together with the others, and holds the tensors listed in the record.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from planc.errors import FileError, ShardMismatch
from planc.files.disk.beside import wait_for
from planc.files.disk.limits import DEFAULT, Limits, limits_given
from planc.files.formats.checkpoint import (
    KEY,
    Checkpoint,
    StoredTensor,
    decode_checkpoint,
    decode_part,
)
from planc.files.formats.formats import named
from planc.files.tensors.header import Entry, Header, write_header
from planc.files.tensors.links import inside
from planc.files.tensors.reader import is_directory, read_header
from planc.files.tensors.shards import (
    EXTRA_SUFFIX,
    SUFFIX,
    check_names,
    checkpoint_in,
    read_index,
)
from planc.plan.arguments import a_path, takes

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Opened:
    """A checkpoint with matching files."""

    checkpoint: Checkpoint
    paths: tuple[Path, ...]  # of its shards
    places: dict[str, Entry]  # of its tensors, by their first names


@takes(path=a_path, limits=limits_given)
def inspect(path: str | os.PathLike[str], *, limits: Limits = DEFAULT) -> Checkpoint:
    """Read the record of a checkpoint from the header of its first file.

    Args:
        path: the file, or the directory or index of a sharded checkpoint.
        limits: bounds on the header and the record.

    Returns:
        The plan, and the stored modules, tensors, shards and user metadata, without tensor values.

    Raises:
        FileError: it is not a checkpoint of planc, is damaged or too large; the subclass tells the
            cause.
        OSError: it cannot be read.
    """
    return steady(path, lambda: read_record(Path(path), limits))


def read_record(path: Path, limits: Limits) -> Checkpoint:
    """Like :func:`inspect`, without retrying: for callers holding the checkpoint."""
    first = _first_file(path, limits)
    return _record(first, read_header(first, limits), limits)


def steady(path: str | os.PathLike[str], read: Callable[[], _T]) -> _T:
    """The result of ``read``, called again if the checkpoint was replaced meanwhile.

    Otherwise a reader could see some old and some new files.
    """
    where = Path(os.path.realpath(path))
    before = _state(where)
    try:
        return read()
    except (FileError, ShardMismatch, FileNotFoundError):
        for target in (where, where.parent):
            wait_for(target)
        if _state(where) == before:
            raise
    return steady(path, read)


def _state(path: Path) -> tuple[int, int, int] | None:
    """Identifies the file or directory at a path; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def open_checkpoint(path: str | os.PathLike[str], *, limits: Limits = DEFAULT) -> Opened:
    """The record and the files of a checkpoint, checked as far as headers allow.

    Raises:
        ShardMismatch: a file is missing, belongs elsewhere, or holds other tensors.
        FileError, OSError: as for :func:`inspect`, for each file.
    """
    return steady(path, lambda: _opened(Path(path), limits))


def _opened(path: Path, limits: Limits) -> Opened:
    first = _first_file(path, limits)
    header = read_header(first, limits)
    checkpoint = _record(first, header, limits)
    paths, places = [], {}
    for number, shard in enumerate(checkpoint.shards):
        path = first
        if number:
            path = inside(first.parent / shard.name)
            header = _header(path, limits)
        _check_header(path, header, shard.header, is_first=number == 0)
        if header.size != shard.size:
            raise ShardMismatch(
                f"{path}: has {header.size} bytes, {first.name} lists {shard.size}; they are "
                "of different checkpoints"
            )
        expected = [t for t in checkpoint.tensors if t.shard == number]
        _check_tensors(path, header, expected, limits, has_record=number == 0)
        paths.append(path)
        places.update({entry.name: entry for entry in header.entries})
    return Opened(checkpoint, tuple(paths), places)


def _first_file(path: Path, limits: Limits) -> Path:
    if is_directory(path):
        path = checkpoint_in(path)
    if not path.name.endswith(".json"):
        return path
    names = sorted(set(read_index(path, limits).shards.values()))
    if not names:
        raise ShardMismatch(f"{path}: lists no files; get the index again")
    check_names(names, str(path))
    return inside(path.parent / names[0])


def _record(path: Path, header: Header, limits: Limits) -> Checkpoint:
    with named(str(path)):
        checkpoint = decode_checkpoint(header.metadata, limits=limits)
        check_names((shard.name for shard in checkpoint.shards), "shards", (SUFFIX, EXTRA_SUFFIX))
    return checkpoint


def _header(path: Path, limits: Limits) -> Header:
    try:
        return read_header(path, limits)
    except FileNotFoundError:
        raise ShardMismatch(f"{path}: this file of the checkpoint is missing; get it") from None


def _check_header(path: Path, header: Header, digest: bytes, is_first: bool) -> None:
    if header.raw != write_header(header.entries, header.metadata):
        raise ShardMismatch(f"{path}: its header was changed since planc wrote it; get it again")
    found = header.digest_without(KEY) if is_first else header.digest
    if found != digest:
        raise ShardMismatch(
            f"{path}: its header's digest is {found.hex()[:16]}..., the checkpoint lists "
            f"{digest.hex()[:16]}...; it is of another checkpoint, or damaged: get the right one"
        )


def _check_tensors(
    path: Path,
    header: Header,
    expected: list[StoredTensor],
    limits: Limits,
    has_record: bool,
) -> None:
    listed = {tensor.names[0]: (tensor.dtype, tensor.shape) for tensor in expected}
    found = {entry.name: (entry.dtype, entry.shape) for entry in header.entries}
    for name in {**listed, **found}:
        if listed.get(name) != found.get(name):
            raise ShardMismatch(
                f"{path}: {name} is {found.get(name)}, the record lists {listed.get(name)}; "
                "the header was changed: get the file again"
            )
    if not has_record:
        with named(str(path)):
            digests = dict(decode_part(header.metadata, limits=limits).tensors)
        for tensor in expected:
            if digests.get(tensor.names[0]) != tensor.digest:
                raise ShardMismatch(
                    f"{path}: the digest of {tensor.names[0]} is another one than in the record; "
                    "they are of different checkpoints"
                )
