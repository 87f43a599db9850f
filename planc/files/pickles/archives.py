"""Archives that ``torch.save`` wrote: a file, or a range of one, in; the tensors in it and where
their values lie out.

The pickle in an archive is read by ``torch.load`` with ``weights_only=True``, on the meta device:
no value is read. Values lie in the archive as they are, so that they are read like those of other
files, piece by piece, and never all of them.
"""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from planc.errors import MalformedFile, PlancError
from planc.files.checkpoint.elements import name_of
from planc.files.tensors.pieces import Piece, Whole

_UNREADABLE = (
    pickle.UnpicklingError,
    struct.error,
    zipfile.BadZipFile,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    IndexError,
    KeyError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
)
# of a record in a zip file; the lengths of what lies between it and the content come last
_LOCAL_HEADER = struct.Struct("<26x2H")


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor of an archive: where it is in the nested dicts, None in place of what is none."""

    path: tuple[str, ...]
    whole: Whole | None
    kind: str  # of what is no tensor, the name of its type


class _Range(io.RawIOBase):
    """A range of a file, read as a file."""

    def __init__(self, descriptor: int, start: int, length: int) -> None:
        self._descriptor, self._start, self._length, self._at = descriptor, start, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._length}[whence]
        self._at = max(base + offset, 0)
        return self._at

    def readinto(self, into: Any) -> int:
        count = max(min(len(into), self._length - self._at), 0)
        read = os.pread(self._descriptor, count, self._start + self._at)
        into[: len(read)] = read
        self._at += len(read)
        return len(read)


def read_archive(path: Path, descriptor: int, start: int, length: int) -> list[Stored]:
    """What an archive holds, in its order; a tensor that is no entry of a dict has an empty path.

    Args:
        path: where the file is, for messages and pieces.
        start: the byte of the file at which the archive begins, ``length`` its bytes.

    Raises:
        MalformedFile: it is no archive, or holds what ``weights_only`` does not read.
    """
    try:
        with io.BufferedReader(_Range(descriptor, start, length)) as file:
            records = _records(file)
        with io.BufferedReader(_Range(descriptor, start, length)) as file:
            value = torch.load(file, map_location="meta", weights_only=True)
    except _UNREADABLE as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MalformedFile(
            f"{path}: not tensors in an archive of torch.save that weights_only reads: {first}; "
            "load it with the torch that wrote it, and save its state_dict()"
        ) from None
    return [
        Stored(at, _whole(path, start, records, ".".join(at), found), "tensor")
        if isinstance(found, torch.Tensor)
        else Stored(at, None, type(found).__name__)
        for at, found in _entries(value, ())
    ]


def _entries(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _entries(inner, (*path, str(key)))
    else:
        yield path, value


def _records(file: Any) -> dict[int, int]:
    """Where the records of a zip file begin, and how many bytes they have.

    Raises:
        ValueError: they are not stored as they are.
    """
    found = {}
    with zipfile.ZipFile(file) as archive:
        for record in archive.infolist():
            if record.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{record.filename} is compressed")
            if record.filename.endswith("/byteorder") and archive.read(record) != b"little":
                raise ValueError("its values are big-endian")
            file.seek(record.header_offset)
            lengths = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
            begin = record.header_offset + _LOCAL_HEADER.size + sum(lengths)
            found[begin] = record.file_size
    return found


def _whole(
    path: Path, start: int, records: Mapping[int, int], name: str, tensor: torch.Tensor
) -> Whole:
    plain = type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.layout is torch.strided
    if not plain or tensor.is_quantized or tensor.is_conj() or tensor.is_neg():
        raise PlancError(
            f"{path}: {name}: a {type(tensor).__name__} ({tensor.layout}) that is no plain dense "
            "tensor cannot be cut; make it one"
        )
    storage = tensor.untyped_storage()
    begin = getattr(storage, "_checkpoint_offset", None)
    if begin is None:
        raise PlancError(
            f"torch {torch.__version__} does not say where in {path} values lie; use a newer one"
        )
    shape, strides = tuple(tensor.shape), tuple(tensor.stride())
    piece = Piece(
        path,
        start + begin + tensor.storage_offset() * tensor.element_size(),
        shape,
        (0,) * len(shape),
        None if tensor.is_contiguous() else strides,
    )
    end = piece.start - start - begin + piece.span * tensor.element_size()
    held = records.get(begin)
    if tensor.numel() and (held is None or held < end):
        raise MalformedFile(
            f"{path}: {name}: has {end} bytes at byte {begin}, where the archive has "
            f"{'no record' if held is None else held}; copy it again"
        )
    return Whole(name_of(tensor.dtype, name), shape, (piece,))
