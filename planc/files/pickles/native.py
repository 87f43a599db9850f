"""Checkpoints in torch.distributed.checkpoint's own format, as a set of safetensors files.

``.metadata`` is a pickle, and each piece of a tensor is wrapped in another one. The first is read
with a list of its few allowed classes, the others with ``weights_only``. Even so, both are read
only if the caller trusts the directory.
"""

from __future__ import annotations

import importlib
import io
import os
import pickle
import pickletools
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from operator import index
from pathlib import Path
from typing import Any

import torch

from planc.errors import MalformedFile, ShardMismatch
from planc.files.checkpoint.elements import name_of
from planc.files.disk.atomic import open_regular, read_file
from planc.files.disk.limits import Limits
from planc.files.pickles.archives import DAMAGED, read_archive
from planc.files.pickles.chosen import state_dict_in
from planc.files.tensors.links import inside
from planc.files.tensors.pieces import Piece, Shape, Whole, join
from planc.files.tensors.shards import NATIVE, ShardSet, check_names, joined_set
from planc.plan.plan import TensorSpec

_DCP = "torch.distributed.checkpoint"
_SHARDED = "torch.distributed._shard.sharded_tensor.metadata"  # in older versions
_PATHS = ("PosixPath", "WindowsPath")
_CLASSES = {
    *((f"{_DCP}.metadata", name) for name in ("Metadata", "MetadataIndex", "StorageMeta")),
    *((f"{_DCP}.metadata", f"{name}StorageMetadata") for name in ("Bytes", "Chunk", "Tensor")),
    *((f"{_DCP}.metadata", name) for name in ("TensorProperties", "_MEM_FORMAT_ENCODING")),
    *((_SHARDED, name) for name in ("TensorProperties", "MEM_FORMAT_ENCODING")),
    (f"{_DCP}.filesystem", "_StorageInfo"),
    ("torch.serialization", "_get_layout"),
    ("torch", "Size"),
    ("collections", "OrderedDict"),
}
_PUTS = ("PUT", "LONG_BINPUT")


@dataclass(frozen=True, slots=True)
class _Entry:
    """An entry of the checkpoint: the keys leading to it and, for a tensor, its chunks."""

    path: tuple[str, ...]
    dtype: torch.dtype | None = None  # None unless it is a tensor
    shape: Shape = ()
    chunks: tuple[tuple[Shape, Shape], ...] = ()  # offsets and sizes


@dataclass(frozen=True, slots=True)
class _Place:
    """The position of a chunk: an archive within a file."""

    file: str
    start: int
    length: int
    transforms: tuple[str, ...]


_Places = Mapping[tuple[str, Shape], _Place]


def find_native(directory: Path, tensors: Sequence[TensorSpec], limits: Limits) -> ShardSet:
    """Return the files for a directory: ``model.safetensors``, or several and their index.

    Raises:
        MalformedFile: the metadata was not written by torch, or an entry is not a tensor.
        ShardMismatch: a piece is missing, doubled or different from the metadata.
        PlancError: the directory holds several state dicts fitting the tensors.
    """
    where = inside(directory / NATIVE)
    entries, places = _read(where, limits)
    kinds = [(e.path, "pickled value" if e.dtype is None else "tensor") for e in entries.values()]
    outer, outside = state_dict_in(kinds, tensors, str(where))
    check_names({place.file for place in places.values()}, str(where), (".distcp",))
    wholes = {}
    with ExitStack() as opened:
        descriptors: dict[str, int] = {}
        for place in places.values():
            if place.file not in descriptors:
                descriptors[place.file] = _opened(inside(directory / place.file))
                opened.callback(os.close, descriptors[place.file])
        for name in sorted(entries):
            if entries[name].path[:-1] == outer:
                whole = _whole(name, entries[name], places, directory, descriptors)
                wholes[entries[name].path[-1]] = whole
    return joined_set(directory, join(wholes, limits), outside)


def _opened(path: Path) -> int:
    try:
        return open_regular(path)
    except FileNotFoundError:
        raise ShardMismatch(f"{path}: this file of the checkpoint is missing; get it") from None


def _whole(
    name: str,
    entry: _Entry,
    places: _Places,
    directory: Path,
    descriptors: Mapping[str, int],
) -> Whole:
    assert entry.dtype is not None
    dtype, pieces = name_of(entry.dtype, name), list[Piece]()
    for offsets, sizes in entry.chunks:
        place = places.get((name, offsets))
        if place is None:
            raise ShardMismatch(f"{directory}: {name}: its piece at {offsets} is not there")
        path = directory / place.file
        if place.transforms:
            raise MalformedFile(
                f"{path}: {name} went through {', '.join(place.transforms)}; save it without"
            )
        found = read_archive(path, descriptors[place.file], place.start, place.length)
        part = found.pop().whole if len(found) == 1 else None
        if part is None or (part.dtype, part.shape) != (dtype, sizes):
            held = "no tensor" if part is None else f"{part.dtype}{part.shape}"
            raise ShardMismatch(
                f"{path}: byte {place.start}: has {held} where the metadata lists {dtype}{sizes} "
                f"of {name}; they are of different checkpoints"
            )
        pieces += [replace(piece, offsets=offsets) for piece in part.pieces]
    return Whole(dtype, entry.shape, tuple(pieces))


def _read(path: Path, limits: Limits) -> tuple[dict[str, _Entry], _Places]:
    """Return the entries and positions in the metadata, as plain data."""
    content = read_file(path, limits.index)
    try:
        _check_sizes(content)
        metadata = _Metadata(io.BytesIO(content)).load()
        paths = dict(metadata.planner_data or {})
        entries = {
            _text(name): _entry(tuple(map(str, paths.get(name, (name,)))), found)
            for name, found in metadata.state_dict_metadata.items()
        }
        places = {
            (_text(key.fqn), _shape(key.offset or ())): _place(info)
            for key, info in metadata.storage_data.items()
        }
    except DAMAGED as error:
        raise MalformedFile(
            f"{path}: not what torch.distributed.checkpoint writes: {error}; save it again"
        ) from None
    return entries, places


def _entry(path: tuple[str, ...], found: Any) -> _Entry:
    if not hasattr(found, "chunks"):
        return _Entry(path)
    dtype = found.properties.dtype
    if not path or not isinstance(dtype, torch.dtype):
        raise ValueError(f"a tensor of {dtype} without a name")
    shape = _shape(found.size)
    chunks = tuple((_shape(chunk.offsets), _shape(chunk.sizes)) for chunk in found.chunks)
    for offsets, sizes in chunks:
        if {len(offsets), len(sizes)} != {len(shape)}:
            raise ValueError(f"a piece of shape {sizes} at {offsets} of a tensor of shape {shape}")
    return _Entry(path, dtype, shape, chunks)


def _place(info: Any) -> _Place:
    transforms = getattr(info, "transform_descriptors", None) or ()
    [start, length] = _shape((info.offset, info.length))
    return _Place(_text(info.relative_path), start, length, tuple(map(str, transforms)))


def _shape(sizes: Any) -> Shape:
    shape = tuple(map(index, sizes))
    if any(size < 0 for size in shape):
        raise ValueError(f"{shape} has a negative size")
    return shape


def _text(name: Any) -> str:
    if type(name) is not str:
        raise TypeError(f"{name!r} is no name")
    return name


def _check_sizes(content: bytes) -> None:
    """Raise ValueError if a pickle asks for more memory than its own length accounts for.

    The unpickler makes room for as many entries as the largest memo number, up to 64 GiB.
    """
    puts: list[Any] = [
        number for opcode, number, _ in pickletools.genops(content) if opcode.name in _PUTS
    ]
    if any(number > len(content) for number in puts):
        raise ValueError(f"it numbers {max(puts)} values in {len(content)} bytes")


class _Metadata(pickle.Unpickler):
    """An unpickler of the metadata's own classes only."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if module.split(".")[0] == "pathlib" and name in _PATHS:
            return _no_path  # the path it was saved to, perhaps of another system
        if (module, name) not in _CLASSES:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return getattr(importlib.import_module(module), name)


def _no_path(*_: str) -> None:
    """Take the place of a path."""
