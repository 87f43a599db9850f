"""Values removed from files by a plan, kept for :mod:`planc.files.cut.restore`.

Each shard of the source has a safetensors file of the same name. It holds the removed values of
every cut tensor, one-dimensional, in C order of their coordinates. Its metadata has the raw header
of the source, the SHA-256 of the whole source file, and a digest of this file's own content. The
plan lies in the same directory. With the result of the plan, they restore the source byte for byte.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Protocol

import numpy as np

from planc.errors import CorruptFile, MalformedFile
from planc.files.cut.besides import copy_index
from planc.files.cut.cutting import File, Memory, by_every_name
from planc.files.cut.uncutting import CutRemoval, Pieces
from planc.files.disk.atomic import read_file, replacing, write_file
from planc.files.disk.directories import new_directory
from planc.files.disk.limits import Limits
from planc.files.disk.stream import BLOCK, Space, fill
from planc.files.formats import save_plan
from planc.files.tensors.header import Entry, Header, place
from planc.files.tensors.pieces import Shape
from planc.files.tensors.shards import Shard, ShardSet, open_shard
from planc.files.tensors.writer import TensorWriter
from planc.plan.fingerprint import canonical
from planc.plan.plan import Plan

PLAN = "removed.planc"
HEADER, DIGEST, OWN = "planc.header", "planc.sha256", "planc.removed"


class Removal(Protocol):
    """The removal of values from one tensor: by a cut, or by a mask.

    Both iterators go through the whole tensor in pieces, in the order of its bytes. They yield the
    values of each piece and the mask of the removed ones.
    """

    def split(self, shape: Shape) -> tuple[Shape, int]:
        """Return the shape kept of a tensor of ``shape``, and the number of removed values."""

    def whole(self, file: File, entry: Entry, memory: Memory) -> Pieces:
        """Yield the pieces of the whole tensor ``entry``, each valid until the next."""

    def kept(self, file: File, entry: Entry, shape: Shape, space: Space, memory: Memory) -> Pieces:
        """Yield the pieces of the tensor of ``shape`` with its kept values, in memory of ``space``.

        Args:
            entry: the kept part of the tensor in the file.
        """


def keep_removed(
    plan: Plan,
    found: ShardSet,
    target: Path,
    besides: list[str],
    overwrite: bool,
    limits: Limits,
) -> None:
    """Write the values removed by ``plan`` to a new directory.

    Args:
        plan: the plan.
        found: the shards of the source.
        target: the new directory.
        besides: names of files beside the shards, to be copied unmodified.
        overwrite: replace an existing directory.
        limits: bounds on headers and files.

    Raises:
        PlancError: the directory exists and must not be replaced.
        OSError: a file cannot be written, for example because the disk is full.
    """
    removals = cut_removals(plan)
    with new_directory(target, overwrite) as directory:
        save_plan(plan, directory / PLAN, limits=limits)
        for shard in found.shards:
            raw = base64.b64encode(shard.header.raw).decode()
            limits.check("header", 2 * len(raw), f"{shard.path}: its header, kept in a header")
            with replacing(directory / shard.name) as descriptor:
                keep_shard(shard, removals, {HEADER: raw}, descriptor, limits)
        copy_index(found, directory, limits)
        for name in besides:
            write_file(directory / name, read_file(found.directory / name, limits.index))


def cut_removals(plan: Plan) -> dict[str, CutRemoval]:
    """Return the removals of a plan, by every name of their tensors."""
    cuts = by_every_name(plan.tensors, plan.cuts)
    return {name: CutRemoval(cut) for name, cut in cuts.items()}


def keep_shard(
    shard: Shard,
    removals: Mapping[str, Removal],
    metadata: Mapping[str, str],
    descriptor: int,
    limits: Limits,
) -> None:
    """Write the values removed from one shard through a descriptor of an empty file.

    Args:
        metadata: metadata of the file, to be completed by the digests of source and values.
    """
    entries = place(
        (entry.name, entry.dtype, (removals[entry.name].split(entry.shape)[1],))
        for entry in shard.header.entries
        if entry.name in removals
    )
    by_name, memory = {entry.name: entry for entry in entries}, Memory()
    digest = sha256(shard.header.raw)

    def completed(digests: Iterable[bytes]) -> dict[str, str]:
        return sealed({**metadata, DIGEST: digest.hexdigest()}, digests)

    with (
        open_shard(shard, limits) as file,
        TensorWriter(descriptor, entries, completed(())) as writer,
    ):
        for old in file.header.entries:
            if old.name in by_name:
                with writer.adding(by_name[old.name]) as space:
                    for values, gone in removals[old.name].whole(file, old, memory):
                        digest.update(values.ravel().view(np.uint8).data)
                        fill(space, values[gone])
            else:
                for chunk in file.chunks(old, BLOCK):
                    digest.update(chunk.data)
        writer.finish(completed(writer.digests()))


def source_header(header: Header) -> tuple[bytes, bytes]:
    """Return the raw header and the digest of the source file of removed values.

    Raises:
        MalformedFile: the file does not hold removed values.
    """
    try:
        raw = base64.b64decode(header.metadata[HEADER], validate=True)
        return raw, bytes.fromhex(header.metadata[DIGEST])
    except (KeyError, ValueError):
        raise MalformedFile(
            f"no metadata {HEADER!r} and {DIGEST!r}: not what planc apply --keep-removed wrote"
        ) from None


def sealed(metadata: Mapping[str, str], digests: Iterable[bytes]) -> dict[str, str]:
    """Return the metadata with a digest of itself and of the removed values' ``digests``."""
    own = sha256(canonical([sorted(metadata.items()), list(digests)]))
    return {**metadata, OWN: own.hexdigest()}


def check_sealed(path: Path, header: Header, digests: Mapping[str, bytes]) -> None:
    """Compare a file of removed values, by the digests of its values, with its own digest.

    Raises:
        CorruptFile: it is damaged.
    """
    metadata = dict(header.metadata)
    found = metadata.pop(OWN, None)  # absent from files of early versions
    expected = sealed(metadata, (digests.get(entry.name, b"") for entry in header.entries))[OWN]
    if found not in (None, expected):
        raise CorruptFile(
            f"{path}: the removed values have digest {expected[:16]}..., the file lists "
            f"{str(found)[:16]}...; it is damaged: copy it again"
        )
