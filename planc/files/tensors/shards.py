"""Sets of safetensors files: a single file, an index or a directory, and the place of each tensor.

An index is a JSON file mapping each tensor to its shard. It is not trusted: names of shards are
plain names in the directory, and the headers must agree with the index, so that no tensor is
missing, duplicated or from another checkpoint.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planc.errors import MalformedFile, PlancError, ShardMismatch, UnsafePath
from planc.errors.text import hidden
from planc.files.disk.atomic import read_file
from planc.files.disk.limits import DEFAULT, Limits
from planc.files.tensors.distributed import find_pieces, is_distributed
from planc.files.tensors.header import Entry, Header, parse_object
from planc.files.tensors.links import inside
from planc.files.tensors.pieces import Joined, JoinedFile, open_joined, parts
from planc.files.tensors.reader import (
    TensorFile,
    is_directory,
    is_same_file,
    open_tensors,
    read_header,
)

SUFFIX = ".safetensors"
EXTRA_SUFFIX = ".planc-extra"  # also a safetensors file, but ignored by other tools
INDEX_SUFFIX = ".safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt")  # suffixes of files of torch.save
PICKLED_INDEX = ".bin.index.json"
NATIVE = ".metadata"  # of a checkpoint in the native format of torch.distributed.checkpoint
SHARD_SIZE = 5 << 30  # bytes, at most, of one file of several
_PLAIN = re.compile(r"[^\x00-\x1f\x7f/\\:*?\"<>|]+")
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of a set, or joined pieces of files."""

    name: str
    path: Path
    header: Header
    joined: Joined | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """The files to read."""
        return (self.path,) if self.joined is None else tuple(self.joined.files)


@dataclass(frozen=True, slots=True)
class Index:
    """An index file: its name, the shard of each tensor in file order, and other entries."""

    name: str
    shards: Mapping[str, str]
    rest: Mapping[str, Any]  # such as metadata.total_size


@dataclass(frozen=True, slots=True)
class ShardSet:
    """The files holding the tensors of one state dict."""

    directory: Path
    shards: tuple[Shard, ...]
    index: Index | None
    outside: tuple[str, ...] = ()  # contents of a training checkpoint beside the state dict

    @property
    def where(self) -> Path:
        """The single file, else the directory of the files."""
        return self.directory if self.index is not None else self.shards[0].path

    def entries(self) -> dict[str, tuple[Shard, Entry]]:
        """The shard and place of each tensor."""
        return {e.name: (shard, e) for shard in self.shards for e in shard.header.entries}


def find_shards(path: Path, limits: Limits = DEFAULT) -> ShardSet:
    """The set of files at a path: a safetensors file, an index, or the directory of either.

    Raises:
        ShardMismatch: the index and the headers contradict each other; the tensor is named.
        UnsafePath: a shard's name is not a plain file name, or a link leads elsewhere: see
            :mod:`planc.files.tensors.links`.
        PlancError: the directory holds no checkpoint, or several.
        FileError, OSError: a file is malformed, damaged, or cannot be read.
    """
    if is_directory(path):
        pieces = _pieces_in(path, limits)
        if pieces:
            return joined_set(path, find_pieces(pieces, limits))
        path = checkpoint_in(path)
    if path.name.endswith(".json"):
        index, shards = indexed(path, lambda file: _shard(file, limits), (SUFFIX,), limits)
        return ShardSet(path.parent, shards, index)
    return ShardSet(path.parent, (_shard(path, limits),), None)


def joined_set(directory: Path, joined: Joined, outside: tuple[str, ...] = ()) -> ShardSet:
    """The set of files made of the pieces in a directory: one, or several with an index."""
    files = parts(joined, SHARD_SIZE)
    if len(files) == 1:
        return ShardSet(directory, (_joined(f"model{SUFFIX}", directory, joined),), None, outside)
    names = [f"model-{i:05d}-of-{len(files):05d}{SUFFIX}" for i in range(1, len(files) + 1)]
    shards = tuple(_joined(name, directory, file) for name, file in zip(names, files, strict=True))
    holder = {
        name: shard.name for shard, file in zip(shards, files, strict=True) for name in file.tensors
    }
    size = sum(entry.stop - entry.start for shard in shards for entry in shard.header.entries)
    index = Index(f"model{INDEX_SUFFIX}", holder, {"metadata": {"total_size": size}})
    return ShardSet(directory, shards, index, outside)


def _joined(name: str, path: Path, joined: Joined) -> Shard:
    return Shard(name, path, joined.header, joined)


def check_names(names: Iterable[str], where: str, suffixes: tuple[str, ...] = (SUFFIX,)) -> None:
    """Check that all are plain names of safetensors files, distinct on any file system.

    Raises:
        UnsafePath: one is not, or two differ in case only.
    """
    seen: dict[str, str] = {}
    for name in names:
        plain = _PLAIN.fullmatch(name) and name[:1] != "." and not hidden(name)
        is_long = len(name.encode(errors="replace")) > 255
        if not plain or is_long or not name.endswith(suffixes) or _RESERVED.fullmatch(name):
            raise UnsafePath(
                f"{where}: {name[:80]!r} is not the plain name of a {suffixes[0]} file beside it"
            )
        twin = seen.setdefault(name.casefold(), name)
        if twin != name:
            raise UnsafePath(f"{where}: {name!r} and {twin!r} are one file where case is ignored")


def check_apart(found: ShardSet, target: Path) -> None:
    """Check that a result at ``target`` would not replace its source.

    Raises:
        PlancError: it is one of the files, or their directory.
    """
    for path in (found.directory, *(path for shard in found.shards for path in shard.files)):
        if is_same_file(path, target):
            raise PlancError(f"{target} is what is read: name another place for the result")


@contextmanager
def open_shard(shard: Shard, limits: Limits = DEFAULT) -> Iterator[TensorFile | JoinedFile]:
    """Open a shard to read its tensors once. Raises like :func:`find_shards`."""
    opened = None if shard.joined is None else open_joined(shard.joined)
    with opened or open_tensors(shard.path, limits, once=True) as file:
        yield file


def _pieces_in(directory: Path, limits: Limits) -> list[Path]:
    """The files of a distributed checkpoint; empty if the directory holds another one."""
    files = [path for path in sorted(directory.iterdir()) if path.name[:1] != "."]
    paths = [inside(path) for path in files if path.name.endswith(SUFFIX)]
    indexed = any(path.name.endswith(INDEX_SUFFIX) for path in files)
    return paths if not indexed and is_distributed(paths, limits) else []


def only(directory: Path, names: Sequence[str], what: str) -> Path | None:
    """The single file of a directory among ``names``; None if there is none.

    Raises:
        PlancError: there are several; ``what`` describes them.
    """
    match names:
        case [one, other, *_]:
            raise PlancError(
                f"{directory} holds {len(names)} files {what}, {one} and {other} among them: name "
                "the one to read"
            )
        case [name]:
            return inside(directory / name)
    return None


def checkpoint_in(directory: Path) -> Path:
    """The index of a directory, else its only safetensors file."""
    names = sorted(path.name for path in directory.iterdir() if path.name[:1] != ".")
    for suffix in (INDEX_SUFFIX, SUFFIX):
        found = only(directory, [n for n in names if n.endswith(suffix)], f"of kind *{suffix}")
        if found is not None:
            return found
    raise PlancError(f"{directory} holds neither *{INDEX_SUFFIX} nor *{SUFFIX}")


def indexed(
    path: Path, opened: Callable[[Path], Shard], suffixes: tuple[str, ...], limits: Limits
) -> tuple[Index, tuple[Shard, ...]]:
    """An index and its shards, checked against each other. Raises like :func:`find_shards`.

    Args:
        opened: opens a shard.
        suffixes: permitted suffixes of shard names.
    """
    index = read_index(path, limits)
    names = sorted(set(index.shards.values()))
    limits.check("shards", len(names), str(path))
    check_names(names, str(path), suffixes)
    shards = [_looked_at(path, name, opened) for name in names]
    _check_cover(index, shards, path)
    return index, tuple(shards)


def _looked_at(index: Path, name: str, opened: Callable[[Path], Shard]) -> Shard:
    try:
        return opened(inside(index.parent / name))
    except FileNotFoundError:
        raise ShardMismatch(
            f"{index}: lists {name}, which is not there; get the missing shard"
        ) from None


def _shard(path: Path, limits: Limits) -> Shard:
    return Shard(path.name, path, read_header(path, limits))


def read_index(path: Path, limits: Limits = DEFAULT) -> Index:
    """The content of an index file.

    Raises:
        MalformedFile: it does not map tensors to shards.
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
