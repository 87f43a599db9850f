"""Sets of safetensors files: a file, an index or a directory in, every tensor's place out.

An index is a JSON file that maps each tensor to the shard that holds it. Nothing in it is believed:
names of shards are plain names in the directory, and the headers must say the same as the index, so
that no tensor is missing, doubled or from elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from planc.codec.files import read_file
from planc.codec.limits import DEFAULT, Limits
from planc.errors import MalformedFile, PlancError, ShardMismatch, UnsafePath
from planc.tensorfiles.distributed import (
    JoinedFile,
    find_pieces,
    is_distributed,
    joined_header,
    open_joined,
)
from planc.tensorfiles.header import Entry, Header, parse_object
from planc.tensorfiles.reader import TensorFile, is_directory, open_tensors, read_header

SUFFIX = ".safetensors"
EXTRA_SUFFIX = ".planc-extra"  # also a safetensors file, which other tools leave alone
INDEX_SUFFIX = ".safetensors.index.json"
_PLAIN = re.compile(r"[^\x00-\x1f\x7f/\\:*?\"<>|]+")
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of a set, or what pieces of a distributed checkpoint are when put together."""

    name: str
    path: Path
    header: Header
    pieces: tuple[Path, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that are read."""
        return self.pieces or (self.path,)


@dataclass(frozen=True, slots=True)
class Index:
    """An index file: its name, the shard of each tensor in the order of the file, the rest."""

    name: str
    shards: Mapping[str, str]
    rest: Mapping[str, Any] = field(default_factory=dict)  # such as metadata.total_size


@dataclass(frozen=True, slots=True)
class ShardSet:
    """Files that hold the tensors of one state dict between them."""

    directory: Path
    shards: tuple[Shard, ...]
    index: Index | None

    def entries(self) -> dict[str, tuple[Shard, Entry]]:
        """The shard and place of each tensor."""
        return {e.name: (shard, e) for shard in self.shards for e in shard.header.entries}


def find_shards(path: Path, limits: Limits = DEFAULT) -> ShardSet:
    """The set of files at a path: a safetensors file, an index, or the directory of either.

    Raises:
        ShardMismatch: the index and the headers contradict each other; the tensor is named.
        UnsafePath: a shard's name is not a plain file name.
        PlancError: the directory holds no checkpoint, or several.
        FileError, OSError: a file is malformed, damaged, or cannot be read.
    """
    if is_directory(path):
        pieces = _pieces_in(path, limits)
        if pieces:
            joined = joined_header(find_pieces(pieces, limits))
            shard = Shard(f"model{SUFFIX}", path, joined, tuple(pieces))
            return ShardSet(path, (shard,), None)
        path = checkpoint_in(path)
    if path.name.endswith(".json"):
        return _indexed(path, limits)
    return ShardSet(path.parent, (Shard(path.name, path, read_header(path, limits)),), None)


def check_names(names: Iterable[str], where: str, suffixes: tuple[str, ...] = (SUFFIX,)) -> None:
    """Returns if all are plain names of safetensors files that any file system keeps apart.

    Raises:
        UnsafePath: one is not, or two differ in case only.
    """
    seen: dict[str, str] = {}
    for name in names:
        plain = _PLAIN.fullmatch(name) and not name.startswith(".") and len(name.encode()) < 256
        if not plain or not name.endswith(suffixes) or _RESERVED.fullmatch(name):
            raise UnsafePath(
                f"{where}: {name[:80]!r} is not the plain name of a {suffixes[0]} file beside it"
            )
        twin = seen.setdefault(name.casefold(), name)
        if twin != name:
            raise UnsafePath(f"{where}: {name!r} and {twin!r} are one file where case is ignored")


@contextmanager
def open_shard(shard: Shard, limits: Limits = DEFAULT) -> Iterator[TensorFile | JoinedFile]:
    """Opens a shard to read its tensors once. Raises as :func:`find_shards` does."""
    opened = open_joined(list(shard.pieces), limits) if shard.pieces else None
    with opened or open_tensors(shard.path, limits, once=True) as file:
        yield file


def _pieces_in(directory: Path, limits: Limits) -> list[Path]:
    """The files of a distributed checkpoint, none if the directory holds another one."""
    files = [path for path in sorted(directory.iterdir()) if path.name[:1] != "."]
    if any(path.name.endswith(INDEX_SUFFIX) for path in files):
        return []
    paths = [path for path in files if path.name.endswith(SUFFIX)]
    return paths if is_distributed(paths, limits) else []


def checkpoint_in(directory: Path) -> Path:
    """The index of a directory, else its one safetensors file."""
    names = sorted(path.name for path in directory.iterdir() if path.name[:1] != ".")
    for suffix in (INDEX_SUFFIX, SUFFIX):
        found = [name for name in names if name.endswith(suffix)]
        if len(found) == 1:
            return directory / found[0]
        if found:
            raise PlancError(
                f"{directory} holds {len(found)} files of kind *{suffix}, {found[0]} and "
                f"{found[1]} among them: name the one to read"
            )
    raise PlancError(f"{directory} holds neither *{INDEX_SUFFIX} nor *{SUFFIX}")


def _indexed(path: Path, limits: Limits) -> ShardSet:
    index = read_index(path, limits)
    names = sorted(set(index.shards.values()))
    limits.check("shards", len(names), str(path))
    check_names(names, str(path))
    shards = [_shard(path, name, limits) for name in names]
    _check_cover(index, shards, path)
    return ShardSet(path.parent, tuple(shards), index)


def _shard(index: Path, name: str, limits: Limits) -> Shard:
    path = index.parent / name
    try:
        return Shard(name, path, read_header(path, limits))
    except FileNotFoundError:
        raise ShardMismatch(
            f"{index}: lists {name}, which is not there; get the missing shard"
        ) from None


def read_index(path: Path, limits: Limits = DEFAULT) -> Index:
    """The content of an index file.

    Raises:
        MalformedFile: it maps no tensors to shards.
        FileError, OSError: it is too large, or cannot be read.
    """
    table = parse_object(read_file(path, limits.index), str(path), sizes_only=False)
    shards = table.pop("weight_map", None)
    if not isinstance(shards, dict) or not all(type(name) is str for name in shards.values()):
        raise MalformedFile(f"{path}: weight_map does not map tensors to files; get it again")
    limits.check("tensors", len(shards), str(path))
    return Index(path.name, shards, table)


def _check_cover(index: Index, shards: Iterable[Shard], path: Path) -> None:
    holder: dict[str, str] = {}
    for shard in shards:
        for entry in shard.header.entries:
            if entry.name in holder:
                raise ShardMismatch(
                    f"{path}: {entry.name} is in {holder[entry.name]} and in {shard.name}; "
                    "one of them is of another checkpoint"
                )
            holder[entry.name] = shard.name
            listed = index.shards.get(entry.name)
            if listed != shard.name:
                where = "nowhere" if listed is None else f"in {listed}"
                raise ShardMismatch(
                    f"{path}: lists {entry.name} {where}, it is in {shard.name}; "
                    "one of them is of another checkpoint"
                )
    for name, listed in index.shards.items():
        if name not in holder:
            raise ShardMismatch(
                f"{path}: lists {name} in {listed}, which does not hold it; "
                "one of them is of another checkpoint"
            )
