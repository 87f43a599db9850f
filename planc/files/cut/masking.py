"""Mask plans on files: a mask plan and a checkpoint in, the checkpoint with zeros at the removed
elements out, and back.

Shapes and dtypes stay, and so does every header as it stands. What is removed can be kept beside,
in a directory with the mask plan and, for each shard, a file of the same name with the removed
values of every masked tensor, one-dimensional, in C order; its metadata has the SHA-256 of the
source. Nothing is loaded whole: tensors pass through a buffer.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from planc.errors import PlancError, ShardMismatch
from planc.files.cut.besides import copy_besides, copy_index
from planc.files.cut.removed import DIGEST, check_sealed, sealed
from planc.files.disk.atomic import replacing, write_all
from planc.files.disk.directories import new_directory
from planc.files.disk.limits import DEFAULT, Limits
from planc.files.disk.stream import BLOCK
from planc.files.formats.checkpoint import KEY
from planc.files.formats.masks import load_masks, save_masks
from planc.files.tensors.header import BITS, Entry, place
from planc.files.tensors.links import inside
from planc.files.tensors.pieces import JoinedFile
from planc.files.tensors.reader import Bytes, TensorFile, is_directory, open_tensors
from planc.files.tensors.shards import (
    SUFFIX,
    Shard,
    ShardSet,
    check_apart,
    find_shards,
    open_shard,
)
from planc.files.tensors.writer import TensorWriter
from planc.plan.fingerprint import shape_difference
from planc.plan.masks import MaskPlan, TensorMask, stale_masks

MASKS = "removed.masks"
_Masks = Mapping[str, TensorMask]
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
    """Writes the checkpoint at ``source`` with zeros where the plan removes elements to ``target``.

    Args:
        masks: the mask plan, made for the model whose state dict ``source`` holds.
        source: a safetensors file, an index, or a directory of either.
        target: a new directory; for a single file also a name that ends in ``.safetensors``.
        keep_removed: a new directory for what is removed, for :func:`unmask_files`.
        overwrite: replace directories that are there.

    Returns:
        How many elements were removed; of a tied tensor that stands in the files twice, twice.

    Raises:
        StalePlan: the mask plan was made for other tensors.
        PlancError: the target exists; or the source is a checkpoint of a plan, whose record has
            digests of its tensors.
        FileError, OSError: a file is malformed or damaged, cannot be read or written.
    """
    found = find_shards(Path(source), limits)
    target = Path(os.path.realpath(target))
    _check(masks, found, target)
    changed = _by_every_name(masks)
    if keep_removed is not None:
        _keep(masks, changed, found, Path(os.path.realpath(keep_removed)), overwrite, limits)
    with _destinations(found, Path(source), target, overwrite, limits) as destinations:
        for shard, path in destinations:
            with open_shard(shard, limits) as file, replacing(path) as descriptor:
                write_all(descriptor, shard.header.raw)
                for entry in shard.header.entries:
                    for chunk, gone in _pieces(file, entry, changed.get(entry.name)):
                        if gone is not None:
                            chunk[gone] = 0
                        write_all(descriptor, chunk)
    return sum(changed[name].count for name in found.entries() if name in changed)


def unmask_files(
    masked: _Path,
    removed: _Path,
    target: _Path,
    *,
    overwrite: bool = False,
    limits: Limits = DEFAULT,
) -> bool:
    """Writes the checkpoint of which ``mask_files(..., keep_removed=removed)`` made ``masked``.

    Returns:
        Whether every file is the source's, byte for byte; kept values may have been trained since.

    Raises:
        StalePlan: ``masked`` does not hold the tensors of the mask plan.
        ShardMismatch: the removed values are of another checkpoint.
        CorruptFile: they are damaged.
        PlancError: the target exists. FileError, OSError: a file cannot be read or written.
    """
    found, kept = find_shards(Path(masked), limits), Path(removed)
    target = Path(os.path.realpath(target))
    masks = load_masks(inside(kept / MASKS), limits=limits)
    _check(masks, found, target)
    changed = _by_every_name(masks)
    names = [path.name for path in kept.iterdir() if path.name.endswith(SUFFIX)]
    single = len(found.shards) == len(names) == 1  # the file may have another name by now
    exact = True
    with _destinations(found, Path(masked), target, overwrite, limits) as destinations:
        for shard, path in destinations:
            values = inside(kept.joinpath(*(names if single else [shard.name])))
            if not values.exists():
                raise ShardMismatch(f"{kept}: has no values for {shard.name}: {_AGAIN}")
            exact &= _restore_shard(shard, values, changed, path, limits)
    return exact


def holds_masks(removed: _Path) -> bool:
    """Whether a directory of removed values was written by :func:`mask_files`."""
    return (Path(removed) / MASKS).is_file()


_AGAIN = "name the directory that was written with --keep-removed (keep_removed=) for it"


def _by_every_name(masks: MaskPlan) -> dict[str, TensorMask]:
    pairs = ((name, masks.by_name.get(s.name)) for s in masks.tensors for name in s.names)
    return {name: mask for name, mask in pairs if mask is not None}


def _check(masks: MaskPlan, found: ShardSet, target: Path) -> None:
    """What can be known before anything is written."""
    entries = found.entries()
    difference = shape_difference(masks.tensors, {n: e.shape for n, (_, e) in entries.items()})
    if difference is not None:
        raise stale_masks(f"{found.directory}: {difference}")
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
    """Where each shard goes; what stands beside them is copied in the end."""
    alone = found.index is None and not is_directory(source)
    if alone and target.name.endswith(SUFFIX):
        yield [(shard, target) for shard in found.shards]
        return
    with new_directory(target, overwrite) as directory:
        yield [(shard, directory / shard.name) for shard in found.shards]
        copy_index(found, directory, limits)
        if not alone:
            copy_besides(found.directory, directory, {})


def _pieces(
    file: TensorFile | JoinedFile, entry: Entry, mask: TensorMask | None
) -> Iterator[tuple[Bytes, np.ndarray | None]]:
    """A tensor in pieces, each an array ``[elements, bytes of one]`` with the elements that are
    removed of it; None where the tensor stays whole.
    """
    if mask is None:
        for chunk in file.chunks(entry, BLOCK):
            yield chunk, None
        return
    if BITS[entry.dtype] % 8:
        raise PlancError(f"{entry.name}: elements of {entry.dtype} share bytes: leave it whole")
    width = BITS[entry.dtype] // 8
    bitmap = np.frombuffer(mask.removed, dtype=np.uint8)
    for chunk in file.chunks(entry, BLOCK):  # a multiple of eight elements, but for the last
        count = len(chunk) // width
        bits = np.unpackbits(bitmap, count=count, bitorder="little")
        yield chunk.reshape(count, width), bits.view(np.bool_)
        bitmap = bitmap[count // 8 :]


def _keep(
    masks: MaskPlan,
    changed: _Masks,
    found: ShardSet,
    target: Path,
    overwrite: bool,
    limits: Limits,
) -> None:
    with new_directory(target, overwrite) as directory:
        save_masks(masks, directory / MASKS, limits=limits)
        for shard in found.shards:
            with open_shard(shard, limits) as file, replacing(directory / shard.name) as descriptor:
                _keep_shard(shard, file, changed, descriptor)


def _keep_shard(
    shard: Shard, file: TensorFile | JoinedFile, changed: _Masks, descriptor: int
) -> None:
    entries = [entry for entry in shard.header.entries if entry.name in changed]
    places = place((e.name, e.dtype, (changed[e.name].count,)) for e in entries)
    by_name = {there.name: there for there in places}
    digest = sha256(shard.header.raw)
    metadata = sealed({DIGEST: digest.hexdigest()}, ())
    with TensorWriter(descriptor, places, metadata) as writer:
        for entry in shard.header.entries:
            pieces = _hashed(_pieces(file, entry, changed.get(entry.name)), digest.update)
            if entry.name not in changed:
                for _ in pieces:
                    pass
                continue
            writer.add(by_name[entry.name], (chunk[gone].tobytes() for chunk, gone in pieces))
        writer.finish(sealed({DIGEST: digest.hexdigest()}, writer.digests()))


def _hashed(
    pieces: Iterator[tuple[Bytes, np.ndarray | None]], update: Callable[[Any], None]
) -> Iterator[tuple[Bytes, np.ndarray | None]]:
    for chunk, gone in pieces:
        update(chunk)
        yield chunk, gone


def _restore_shard(
    shard: Shard, removed: Path, changed: _Masks, target: Path, limits: Limits
) -> bool:
    digest, digests = sha256(shard.header.raw), dict[str, bytes]()
    with (
        open_shard(shard, limits) as file,
        open_tensors(removed, limits) as values,
        replacing(target) as descriptor,
    ):
        places = {entry.name: entry for entry in values.header.entries}
        write_all(descriptor, shard.header.raw)
        for entry in shard.header.entries:
            mask, at = changed.get(entry.name), 0
            there = places.get(entry.name)
            if mask is not None and (
                there is None or (there.dtype, there.shape) != (entry.dtype, (mask.count,))
            ):
                raise ShardMismatch(
                    f"{removed}: its values of {entry.name} do not belong to this checkpoint; "
                    f"{_AGAIN}"
                )
            seen = sha256()
            for chunk, gone in _pieces(file, entry, mask):
                if gone is not None:
                    rows: Bytes = np.empty((int(gone.sum()), chunk.shape[1]), dtype=np.uint8)
                    values.read_into(places[entry.name], at, rows.ravel())
                    seen.update(rows.data)
                    chunk[gone], at = rows, at + rows.size
                digest.update(chunk.data)
                write_all(descriptor, chunk)
            digests[entry.name] = seen.digest()
        check_sealed(removed, values.header, digests)
    return digest.hexdigest() == values.header.metadata.get(DIGEST)
