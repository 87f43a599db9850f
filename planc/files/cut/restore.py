"""Undoing a plan on files: the source again, from the smaller checkpoint and the removed values.

Digests tell if the bytes equal those of the source; they differ if the smaller model was trained.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import numpy as np

from planc.errors import ShardMismatch, StalePlan
from planc.files.cut.besides import copy_besides
from planc.files.cut.cutting import Memory, copy_into
from planc.files.cut.removed import PLAN, Removal, check_sealed, cut_removals, source_header
from planc.files.cut.uncutting import Pieces
from planc.files.disk.atomic import read_file, replacing
from planc.files.disk.directories import new_directory
from planc.files.disk.limits import DEFAULT, Limits, limits_given
from planc.files.disk.stream import Stream, fill
from planc.files.formats import load_plan
from planc.files.tensors.header import Entry, Header, parse_text
from planc.files.tensors.links import inside
from planc.files.tensors.pieces import Shape
from planc.files.tensors.reader import TensorFile, open_tensors
from planc.files.tensors.shards import SUFFIX, Shard, find_shards, open_shard
from planc.plan.arguments import a_flag, a_path, takes
from planc.plan.fingerprint import shape_difference, tensors_after

_AGAIN = "name the directory that planc apply --keep-removed wrote for it"


@takes(smaller=a_path, removed=a_path, target=a_path, limits=limits_given, overwrite=a_flag)
def restore_files(
    smaller: str | os.PathLike[str],
    removed: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    limits: Limits = DEFAULT,
) -> bool:
    """Write the source of ``apply_files(..., keep_removed=removed)`` to ``target``.

    Args:
        smaller: the file, index or directory of the result, trained since or not.
        removed: the directory of removed values.
        target: a new directory; for a single file also a name ending in ``.safetensors``.
        overwrite: replace an existing directory.
        limits: bounds on headers, index and plan.

    Returns:
        True if every file equals the source byte for byte.

    Raises:
        StalePlan: ``smaller`` is not the result of the plan.
        ShardMismatch: the removed values are of another checkpoint.
        CorruptFile: the removed values are damaged.
        PlancError: the target exists.
        FileError, OSError: a file cannot be read or written.
    """
    removed, target = Path(removed), Path(os.path.realpath(target))
    plan = load_plan(inside(removed / PLAN), limits=limits)
    found = find_shards(Path(smaller), limits)
    shapes = {name: entry.shape for name, (_, entry) in found.entries().items()}
    difference = shape_difference(tensors_after(plan.tensors, plan.cuts), shapes)
    if difference is not None:
        raise StalePlan(f"{smaller}: is not what the plan in {removed} produces: {difference}")
    removals = cut_removals(plan)
    if len(found.shards) == 1 and target.name.endswith(SUFFIX):
        names = [path.name for path in removed.iterdir() if path.name.endswith(SUFFIX)]
        if len(names) != 1:
            raise ShardMismatch(f"{removed}: holds {len(names)} shards, {smaller} is one file")
        [shard] = found.shards
        return _restore_shard(shard, inside(removed.joinpath(*names)), removals, target, limits)
    exact = True
    with new_directory(target, overwrite) as directory:
        for shard in found.shards:
            values, place = inside(removed / shard.name), directory / shard.name
            exact &= _restore_shard(shard, values, removals, place, limits)
        besides = {
            path.name: read_file(inside(path), limits.index)
            for path in removed.iterdir()
            if path.suffix == ".json"
        }
        copy_besides(found.directory, directory, besides)
    return exact


def _restore_shard(
    shard: Shard, removed: Path, removals: Mapping[str, Removal], target: Path, limits: Limits
) -> bool:
    """Write one shard of the source; return True if it equals the original file."""
    with open_tensors(removed, limits, once=True) as values, replacing(target) as descriptor:
        raw, expected = source_header(values.header)
        original = parse_text(raw, limits)
        return expected == restore_shard(
            shard, values, original, removals, descriptor, limits, advice=_AGAIN
        )


def restore_shard(
    shard: Shard,
    values: TensorFile,
    original: Header,
    removals: Mapping[str, Removal],
    descriptor: int,
    limits: Limits,
    *,
    advice: str,
) -> bytes:
    """Write one shard of the source through a descriptor of an empty file; return its SHA-256.

    Args:
        shard: the shard without the removed values.
        values: the file of removed values.
        original: the header of the source.
        removals: the removals by the names of their tensors.
        advice: ends the message if shard and values do not belong together.

    Raises:
        ShardMismatch: the removed values are of another checkpoint.
        CorruptFile: they are damaged.
    """
    gone = {entry.name: entry for entry in values.header.entries}
    memory, digests = Memory(), dict[str, bytes]()
    with open_shard(shard, limits) as small, Stream(descriptor, original.size) as stream:
        kept = {entry.name: entry for entry in small.header.entries}
        stream.begin()
        fill(stream.space, original.raw)
        for entry in original.entries:
            removal = removals.get(entry.name)
            if not _fits(entry, kept.get(entry.name), gone.get(entry.name), removal):
                raise ShardMismatch(
                    f"{values.path}: its values of {entry.name} do not belong to this checkpoint; "
                    f"{advice}"
                )
            if removal is None:
                copy_into(small, kept[entry.name], stream.space)
                continue
            pieces = removal.kept(small, kept[entry.name], entry.shape, stream.space, memory)
            digests[entry.name] = _fill_in(pieces, values, gone[entry.name], memory)
        digest = stream.end()
        stream.finish()
    check_sealed(values.path, values.header, digests)
    return bytes(digest.digest())


def _fits(entry: Entry, kept: Entry | None, gone: Entry | None, removal: Removal | None) -> bool:
    """Return True if kept and removed values make up the tensor ``entry``."""
    shape, count = (entry.shape, 0) if removal is None else removal.split(entry.shape)
    return _has(kept, entry.dtype, shape) and (removal is None or _has(gone, entry.dtype, (count,)))


def _has(entry: Entry | None, dtype: str, shape: Shape) -> bool:
    return entry is not None and (entry.dtype, entry.shape) == (dtype, shape)


def _fill_in(pieces: Pieces, file: TensorFile, entry: Entry, memory: Memory) -> bytes:
    """Fill the removed values of a tensor into its pieces; return the SHA-256 of those values."""
    at, digest = 0, sha256()
    for piece, gone in pieces:
        shape = (int(np.count_nonzero(gone)), *piece.shape[gone.ndim :])
        values = memory.array(1, shape, piece.dtype)
        octets = values.view(np.uint8).ravel()
        file.read_into(entry, at, octets)
        digest.update(octets.data)
        piece[gone], at = values, at + values.nbytes
    return digest.digest()
