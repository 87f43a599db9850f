"""Mask plans on files: zeros at the removed elements, and the way back.

Shapes, dtypes and headers stay the same. Removed values can be kept in a directory with the mask
plan and, for each shard, a file of the same name. It holds the removed values of every masked
tensor, one-dimensional, in C order, and in its metadata the SHA-256 of the source. Tensors pass
through a buffer and are never loaded whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from planc.errors import PlancError, ShardMismatch
from planc.files.cut.besides import copy_besides, copy_index
from planc.files.cut.cutting import File, Memory, by_every_name
from planc.files.cut.removed import DIGEST, keep_shard
from planc.files.cut.restore import restore_shard
from planc.files.cut.uncutting import Pieces
from planc.files.disk.atomic import replacing, write_all
from planc.files.disk.directories import new_directory
from planc.files.disk.limits import DEFAULT, Limits
from planc.files.disk.stream import BLOCK, Bytes, Space
from planc.files.formats.checkpoint import KEY
from planc.files.formats.masks import load_masks, save_masks
from planc.files.tensors.header import BITS, Entry
from planc.files.tensors.links import inside
from planc.files.tensors.pieces import Shape
from planc.files.tensors.reader import is_directory, open_tensors
from planc.files.tensors.shards import (
    SUFFIX,
    Shard,
    ShardSet,
    check_apart,
    find_shards,
    open_shard,
)
from planc.plan.fingerprint import shape_difference
from planc.plan.masks import MaskPlan, TensorMask, stale_masks

MASKS = "removed.masks"
_Path = str | os.PathLike[str]


def mask_files(
    masks: MaskPlan,
    source: _Path,
    target: _Path,
    *,
    keep_removed: _Path | None = None,
    overwrite: bool = False,
    limits: Limits = DEFAULT,
) -> int:
    """Write the checkpoint at ``source``, with zeros at the removed elements, to ``target``.

    Args:
        masks: the mask plan, made for the model of the state dict in ``source``.
        source: a safetensors file, an index, or a directory of either.
        target: a new directory; for a single file also a name ending in ``.safetensors``.
        keep_removed: a new directory for the removed values, for :func:`unmask_files`.
        overwrite: replace existing directories.
        limits: bounds on headers, index and mask plan.

    Returns:
        Number of removed elements; a tied tensor stored twice counts twice.

    Raises:
        StalePlan: the mask plan was made for other tensors.
        PlancError: the target exists; or the source is a checkpoint of a plan, its record holding
            digests of the tensors.
        FileError, OSError: a file is malformed or damaged, cannot be read or written.
    """
    found = find_shards(Path(source), limits)
    target = Path(os.path.realpath(target))
    _check(masks, found, target)
    removals = _removals(masks)
    if keep_removed is not None:
        with new_directory(Path(os.path.realpath(keep_removed)), overwrite) as directory:
            save_masks(masks, directory / MASKS, limits=limits)
            for shard in found.shards:
                with replacing(directory / shard.name) as descriptor:
                    keep_shard(shard, removals, {}, descriptor, limits)
    with _destinations(found, Path(source), target, overwrite, limits) as destinations:
        for shard, path in destinations:
            with open_shard(shard, limits) as file, replacing(path) as descriptor:
                write_all(descriptor, shard.header.raw)
                for entry in shard.header.entries:
                    for chunk in _masked(file, entry, removals.get(entry.name)):
                        write_all(descriptor, chunk)
    return sum(removals[name].mask.count for name in found.entries() if name in removals)


def unmask_files(
    masked: _Path,
    removed: _Path,
    target: _Path,
    *,
    overwrite: bool = False,
    limits: Limits = DEFAULT,
) -> bool:
    """Write the checkpoint masked by ``mask_files(..., keep_removed=removed)`` to ``target``.

    Args:
        masked: the result of :func:`mask_files`, trained since or not.
        removed: the directory of removed values.
        target: a new directory; for a single file also a name ending in ``.safetensors``.
        overwrite: replace an existing directory.
        limits: bounds on headers, index and mask plan.

    Returns:
        True if every file equals the source byte for byte; kept values may have been trained since.

    Raises:
        StalePlan: ``masked`` does not hold the tensors of the mask plan.
        ShardMismatch: the removed values are of another checkpoint.
        CorruptFile: they are damaged.
        PlancError: the target exists.
        FileError, OSError: a file cannot be read or written.
    """
    found, kept = find_shards(Path(masked), limits), Path(removed)
    target = Path(os.path.realpath(target))
    masks = load_masks(inside(kept / MASKS), limits=limits)
    _check(masks, found, target)
    removals = _removals(masks)
    names = [path.name for path in kept.iterdir() if path.name.endswith(SUFFIX)]
    single = len(found.shards) == len(names) == 1  # the file may have another name by now
    exact = True
    with _destinations(found, Path(masked), target, overwrite, limits) as destinations:
        for shard, path in destinations:
            values = inside(kept.joinpath(*(names if single else [shard.name])))
            if not values.exists():
                raise ShardMismatch(f"{kept}: has no values for {shard.name}: {_AGAIN}")
            with open_tensors(values, limits) as gone, replacing(path) as descriptor:
                digest = restore_shard(
                    shard, gone, shard.header, removals, descriptor, limits, advice=_AGAIN
                )
                exact &= digest.hex() == gone.header.metadata.get(DIGEST)
    return exact


def holds_masks(removed: _Path) -> bool:
    """Return True if a directory of removed values was written by :func:`mask_files`."""
    return (Path(removed) / MASKS).is_file()


_AGAIN = "name the directory that was written with --keep-removed (keep_removed=) for it"


@dataclass(frozen=True, slots=True)
class MaskRemoval:
    """The removal of a mask from one tensor: see :class:`planc.files.cut.removed.Removal`."""

    mask: TensorMask

    def split(self, shape: Shape) -> tuple[Shape, int]:
        return shape, self.mask.count

    def whole(self, file: File, entry: Entry, memory: Memory) -> Pieces:
        if BITS[entry.dtype] % 8:
            raise PlancError(f"{entry.name}: elements of {entry.dtype} share bytes: leave it whole")
        width = BITS[entry.dtype] // 8
        bitmap = np.frombuffer(self.mask.removed, dtype=np.uint8)
        # all chunks but the last have a multiple of eight elements
        for chunk in file.chunks(entry, BLOCK):
            count = len(chunk) // width
            bits = np.unpackbits(bitmap, count=count, bitorder="little")
            yield chunk.reshape(count, width), bits.view(np.bool_)
            bitmap = bitmap[count // 8 :]

    def kept(self, file: File, entry: Entry, shape: Shape, space: Space, memory: Memory) -> Pieces:
        for values, gone in self.whole(file, entry, memory):
            piece = space(values.size).reshape(values.shape)
            piece[:] = values
            yield piece, gone


def _removals(masks: MaskPlan) -> dict[str, MaskRemoval]:
    by_name = by_every_name(masks.tensors, masks.by_name)
    return {name: MaskRemoval(mask) for name, mask in by_name.items()}


def _check(masks: MaskPlan, found: ShardSet, target: Path) -> None:
    """Check tensors, records and target before anything is written."""
    entries = found.entries()
    difference = shape_difference(masks.tensors, {n: e.shape for n, (_, e) in entries.items()})
    if difference is not None:
        raise stale_masks(f"{found.where}: {difference}")
    for shard in found.shards:
        if KEY in shard.header.metadata:
            raise PlancError(
                f"{shard.path}: is a checkpoint of a plan, with digests of its tensors: mask the "
                "weights before the plan is applied, which cuts zeros along"
            )
    check_apart(found, target)


@contextmanager
def _destinations(
    found: ShardSet, source: Path, target: Path, overwrite: bool, limits: Limits
) -> Iterator[list[tuple[Shard, Path]]]:
    """Yield each shard and its new path; copy the files beside the shards at the end."""
    alone = found.index is None and not is_directory(source)
    if alone and target.name.endswith(SUFFIX):
        yield [(shard, target) for shard in found.shards]
        return
    with new_directory(target, overwrite) as directory:
        yield [(shard, directory / shard.name) for shard in found.shards]
        copy_index(found, directory, limits)
        if not alone:
            copy_besides(found.directory, directory, {})


def _masked(file: File, entry: Entry, removal: MaskRemoval | None) -> Iterator[Bytes]:
    """Yield a tensor in pieces, with zeros at its removed elements."""
    if removal is None:
        yield from file.chunks(entry, BLOCK)
        return
    for values, gone in removal.whole(file, entry, Memory()):
        values[gone] = 0
        yield values
