"""Cutting one shard into a new file with digests.

A :class:`Cutting` is plain data, so another process can carry it out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from planc.errors import FileError, ShardMismatch
from planc.files.cut.cutting import Memory, copy_into, cut_into, digest_of
from planc.files.disk.limits import Limits
from planc.files.formats.checkpoint import KEY, Part, decode_part, encode_part
from planc.files.tensors.header import Entry
from planc.files.tensors.reader import read_header
from planc.files.tensors.shards import Shard, open_shard
from planc.files.tensors.writer import TensorWriter
from planc.plan.plan import Cut


@dataclass(frozen=True, slots=True)
class Cutting:
    """The work for one shard: its tensors in order, and the cuts of some of them.

    ``metadata`` is as long as in the finished file; ``part`` goes into it unless the shard has the
    record.
    """

    name: str
    source: Shard
    entries: tuple[Entry, ...]
    metadata: Mapping[str, str]
    part: Part | None
    cuts: Mapping[str, Cut]
    limits: Limits
    hashed: bool  # the digests of the source's values are wanted
    names: Mapping[str, str]  # names in the source of tensors with another name


@dataclass(frozen=True, slots=True)
class Done:
    """A finished shard: the digests of its header and its tensors.

    ``sources`` are those of the values before (:mod:`planc.plan.weights`); empty if not wanted, or
    unknown.
    """

    header: bytes
    digests: tuple[tuple[str, bytes], ...]
    sources: tuple[tuple[str, bytes], ...] = ()


def cut_shard(cutting: Cutting, descriptor: int) -> Done:
    """Write the shard through a descriptor of an empty file.

    Raises:
        ShardMismatch, TruncatedFile: the source has changed since its headers were read.
        OSError: it cannot be read, or the disk is full.
    """
    with open_shard(cutting.source, cutting.limits) as file:
        if file.header != cutting.source.header:
            raise ShardMismatch(f"{cutting.source.path}: was changed while it was read; run again")
        places = {entry.name: entry for entry in file.header.entries}
        memory, names = Memory(), [entry.name for entry in cutting.entries]
        sources: list[tuple[str, bytes]] = []
        with TensorWriter(descriptor, cutting.entries, cutting.metadata) as writer:
            for entry in cutting.entries:
                name = cutting.names.get(entry.name, entry.name)
                if cutting.hashed:
                    sources.append((name, digest_of(file, places[name], memory)))
                cut = cutting.cuts.get(name)
                with writer.adding(entry) as space:
                    if cut is None:
                        copy_into(file, places[name], space)
                    else:
                        cut_into(file, places[name], cut, space, memory)
            digests = list(zip(names, writer.digests(), strict=True))
            header = writer.finish(_final(cutting, digests))
    return Done(header.digest, tuple(digests), tuple(sources))


def finished(path: Path, cutting: Cutting) -> Done | None:
    """Return the shard finished at ``path`` by an interrupted run, or None."""
    try:
        header = read_header(path, cutting.limits)
        part = decode_part(header.metadata, limits=cutting.limits)
    except (FileError, FileNotFoundError):
        return None
    digests = list(part.tensors)
    same = header.entries == cutting.entries and header.metadata == _final(cutting, digests)
    return Done(header.digest, tuple(digests)) if same else None


def _final(cutting: Cutting, digests: list[tuple[str, bytes]]) -> Mapping[str, str] | None:
    """Return the metadata with the digests; None for the shard with the record, completed last."""
    if cutting.part is None:
        return None
    part = replace(cutting.part, tensors=tuple(digests))
    return {**cutting.metadata, KEY: encode_part(part)}
