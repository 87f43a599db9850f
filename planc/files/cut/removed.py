"""What a plan removes from files, kept beside them: the source's shards in, files of removed values
out, from which :mod:`planc.streaming.restore` makes the source again, byte for byte.

Each shard of the source has a safetensors file of the same name with the removed values of every
tensor that is cut, one-dimensional, in C order of their coordinates. Its metadata has the source's
header as it stood, the SHA-256 of the whole source file, and one of all that this file holds; the
plan stands beside them.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path

from planc.errors import CorruptFile, MalformedFile
from planc.files.cut.besides import copy_index
from planc.files.cut.cutting import Memory
from planc.files.cut.uncutting import removed_into
from planc.files.disk.atomic import read_file, replacing, write_file
from planc.files.disk.directories import new_directory
from planc.files.disk.limits import Limits
from planc.files.disk.stream import BLOCK
from planc.files.formats import save_plan
from planc.files.tensors.header import Header, place
from planc.files.tensors.shards import Shard, ShardSet, open_shard
from planc.files.tensors.writer import TensorWriter
from planc.plan.fingerprint import canonical
from planc.plan.plan import Cut, Plan

PLAN = "removed.planc"
HEADER, DIGEST, OWN = "planc.header", "planc.sha256", "planc.removed"


def keep_removed(
    plan: Plan,
    found: ShardSet,
    target: Path,
    besides: list[str],
    overwrite: bool,
    limits: Limits,
) -> None:
    """Writes what ``plan`` removes to a new directory, with the files ``besides`` as they are.

    Raises:
        PlancError: the directory exists and is not to be replaced.
        OSError: the disk is full, ...
    """
    cuts = {name: cut for s in plan.tensors for name in s.names if (cut := plan.cuts.get(s.name))}
    with new_directory(target, overwrite) as directory:
        save_plan(plan, directory / PLAN, limits=limits)
        for shard in found.shards:
            with replacing(directory / shard.name) as descriptor:
                _keep_shard(shard, cuts, descriptor, limits)
        copy_index(found, directory, limits)
        for name in besides:
            write_file(directory / name, read_file(found.directory / name, limits.index))


def source_header(header: Header) -> tuple[bytes, bytes]:
    """The raw header and the digest of the file that removed values came from.

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
    """The metadata with a digest of itself and of the removed values, whose digests are given."""
    own = sha256(canonical([sorted(metadata.items()), list(digests)]))
    return {**metadata, OWN: own.hexdigest()}


def check_sealed(path: Path, header: Header, digests: Mapping[str, bytes]) -> None:
    """Returns if a file of removed values is as it was written, by the digests of its values.

    Raises:
        CorruptFile: it is damaged.
    """
    metadata = dict(header.metadata)
    found = metadata.pop(OWN, None)  # early files have none
    expected = sealed(metadata, (digests.get(entry.name, b"") for entry in header.entries))[OWN]
    if found not in (None, expected):
        raise CorruptFile(
            f"{path}: the removed values have digest {expected[:16]}..., the file lists "
            f"{str(found)[:16]}...; it is damaged: copy it again"
        )


def _keep_shard(shard: Shard, cuts: dict[str, Cut], descriptor: int, limits: Limits) -> None:
    cut = [e for e in shard.header.entries if e.name in cuts]
    entries = place(
        (e.name, e.dtype, (math.prod(e.shape) - math.prod(cuts[e.name].shape),)) for e in cut
    )
    raw = base64.b64encode(shard.header.raw).decode()
    limits.check("header", 2 * len(raw), f"{shard.path}: its header, kept in a header")
    digest = sha256(shard.header.raw)
    by_name, memory = {entry.name: entry for entry in entries}, Memory()
    with (
        open_shard(shard, limits) as file,
        TensorWriter(
            descriptor, entries, sealed({HEADER: raw, DIGEST: digest.hexdigest()}, ())
        ) as writer,
    ):
        for old in file.header.entries:
            if old.name in by_name:
                with writer.adding(by_name[old.name]) as space:
                    removed_into(file, old, cuts[old.name], space, memory, digest.update)
            else:
                for chunk in file.chunks(old, BLOCK):
                    digest.update(chunk.data)
        writer.finish(sealed({HEADER: raw, DIGEST: digest.hexdigest()}, writer.digests()))
