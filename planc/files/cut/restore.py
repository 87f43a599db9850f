"""Undoing a plan on files: the smaller checkpoint and the removed values in, its source out.

Whether they are the very bytes that the plan was applied to is known from their digests: where the
smaller model has been trained since, they are not.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from planc.errors import ShardMismatch, StalePlan
from planc.files.cut.besides import copy_besides
from planc.files.cut.cutting import Array, Memory, copy_into
from planc.files.cut.removed import PLAN, check_sealed, source_header
from planc.files.cut.uncutting import restored_into
from planc.files.disk.atomic import read_file, replacing
from planc.files.disk.directories import new_directory
from planc.files.disk.limits import DEFAULT, Limits, limits_given
from planc.files.disk.stream import Stream, fill
from planc.files.formats import load_plan
from planc.files.tensors.header import Entry, parse_text
from planc.files.tensors.links import inside
from planc.files.tensors.reader import TensorFile, open_tensors
from planc.files.tensors.shards import SUFFIX, find_shards
from planc.plan.arguments import a_flag, a_path, takes
from planc.plan.fingerprint import shape_difference, tensors_after
from planc.plan.plan import Cut, Plan


@takes(smaller=a_path, removed=a_path, target=a_path, limits=limits_given, overwrite=a_flag)
def restore_files(
    smaller: str | os.PathLike[str],
    removed: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    limits: Limits = DEFAULT,
) -> bool:
    """Writes the checkpoint of which ``apply_files(..., keep_removed=removed)`` made ``smaller``.

    Args:
        smaller: the file, index or directory of the result, trained since or not.
        removed: the directory of removed values.
        target: a new directory; for a single file also a name that ends in ``.safetensors``.

    Returns:
        Whether every file is the source's, byte for byte.

    Raises:
        StalePlan: ``smaller`` is not what the plan produces.
        ShardMismatch: the removed values are of another checkpoint.
        CorruptFile: the removed values are damaged.
        PlancError: the target exists. FileError, OSError: a file cannot be read or written.
    """
    removed, target = Path(removed), Path(os.path.realpath(target))
    plan = load_plan(inside(removed / PLAN), limits=limits)
    found = find_shards(Path(smaller), limits)
    shapes = {name: entry.shape for name, (_, entry) in found.entries().items()}
    difference = shape_difference(tensors_after(plan.tensors, plan.cuts), shapes)
    if difference is not None:
        raise StalePlan(f"{smaller}: is not what the plan in {removed} produces: {difference}")
    if len(found.shards) == 1 and target.name.endswith(SUFFIX):
        names = [path.name for path in removed.iterdir() if path.name.endswith(SUFFIX)]
        if len(names) != 1:
            raise ShardMismatch(f"{removed}: holds {len(names)} shards, {smaller} is one file")
        [shard] = found.shards
        with replacing(target) as descriptor:
            values = inside(removed.joinpath(*names))
            return _restore_shard(plan, shard.path, values, descriptor, limits)
    exact = True
    with new_directory(target, overwrite) as directory:
        for shard in found.shards:
            values = inside(removed / shard.name)
            with replacing(directory / shard.name) as descriptor:
                exact &= _restore_shard(plan, shard.path, values, descriptor, limits)
        besides = {
            path.name: read_file(inside(path), limits.index)
            for path in removed.iterdir()
            if path.suffix == ".json"
        }
        copy_besides(found.directory, directory, besides)
    return exact


def _restore_shard(
    plan: Plan, smaller: Path, removed: Path, descriptor: int, limits: Limits
) -> bool:
    """Writes one shard of the source; returns whether it is the very file."""
    specs = {name: spec for spec in plan.tensors for name in spec.names}
    with (
        open_tensors(smaller, limits, once=True) as small,
        open_tensors(removed, limits, once=True) as gone,
    ):
        raw, expected = source_header(gone.header)
        original = parse_text(raw, limits)
        kept = {entry.name: entry for entry in small.header.entries}
        values = {entry.name: entry for entry in gone.header.entries}
        memory, digests = Memory(), dict[str, bytes]()
        with Stream(descriptor, original.size) as stream:
            stream.begin()
            fill(stream.space, raw)
            for entry in original.entries:
                spec = specs.get(entry.name)
                cut = None if spec is None else plan.cuts.get(spec.name)
                _check(entry, kept.get(entry.name), values.get(entry.name), cut, removed)
                if cut is None:
                    copy_into(small, kept[entry.name], stream.space)
                else:
                    seen = sha256()
                    take = _reading(gone, values[entry.name], seen.update)
                    args = (cut, entry.shape, stream.space, memory)
                    restored_into(small, kept[entry.name], take, *args)
                    digests[entry.name] = seen.digest()
            digest = stream.end()
            stream.finish()
        check_sealed(removed, gone.header, digests)
    return bool(digest.digest() == expected)


def _check(
    entry: Entry, kept: Entry | None, gone: Entry | None, cut: Cut | None, removed: Path
) -> None:
    shape = entry.shape if cut is None else cut.shape
    fits = kept is not None and (kept.dtype, kept.shape) == (entry.dtype, shape)
    if cut is not None:
        count = math.prod(entry.shape) - math.prod(shape)
        fits = fits and gone is not None and (gone.dtype, gone.shape) == (entry.dtype, (count,))
    if not fits:
        raise ShardMismatch(
            f"{removed}: its values of {entry.name} do not belong to this checkpoint; name the "
            "directory that planc apply --keep-removed wrote for it"
        )


def _reading(
    file: TensorFile, entry: Entry, seen: Callable[[Any], object]
) -> Callable[[Array], None]:
    """Reads a tensor from its begin on, as many values at a time as there is room for.

    Args:
        seen: is given all bytes that are read.
    """
    at = 0

    def take(values: Array) -> None:
        nonlocal at
        octets = values.view(np.uint8)
        file.read_into(entry, at, octets)
        seen(octets.data)
        at += values.nbytes

    return take
