"""Archives written by ``torch.save``: their tensors, and the position of each tensor's values.

An archive is a file or a range of one. ``torch.load`` reads its pickle with ``weights_only=True``
on the meta device, without reading values. Values are stored uncompressed, so they are read in
pieces like those of other files, and never all at once.
"""

from __future__ import annotations

import io
import os
import pickle
import re
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

# raised for damaged archives and pickles
DAMAGED = (
    pickle.UnpicklingError,
    struct.error,
    zipfile.BadZipFile,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
)
_GLOBAL = re.compile(r"Unsupported global: GLOBAL (\S+)")  # in torch's messages
# of a record in a zip file; last come the lengths of the name and of the extra field
_LOCAL_HEADER = struct.Struct("<26x2H")


@dataclass(frozen=True, slots=True)
class Stored:
    """An entry of an archive: its path in nested dicts and, for a tensor, the values' place."""

    path: tuple[str, ...]
    whole: Whole | None
    kind: str  # "tensor", or the name of another entry's type


class _Range(io.RawIOBase):
    """Read-only file object over a range of a file."""

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
    """Return the entries of an archive in order; an entry outside any dict has an empty path.

    Args:
        path: the file, for messages and pieces.
        descriptor: an open descriptor of the file.
        start: byte of the file at which the archive begins.
        length: bytes of the archive.

    Raises:
        MalformedFile: the range is not an archive, or ``weights_only`` refuses its types.
        PlancError: a tensor is not a plain dense one, such as a sparse or quantized tensor.
    """
    try:
        with io.BufferedReader(_Range(descriptor, start, length)) as file:
            records = _records(file)
        with io.BufferedReader(_Range(descriptor, start, length)) as file:
            value = torch.load(file, map_location="meta", weights_only=True)
    except DAMAGED as error:
        raise MalformedFile(
            f"{path}: not tensors in an archive of torch.save that weights_only reads: "
            f"{_cause(error)}; load it with the torch that wrote it, and save its state_dict()"
        ) from None
    return [
        Stored(at, _whole(path, start, records, ".".join(at), found), "tensor")
        if isinstance(found, torch.Tensor)
        else Stored(at, None, type(found).__name__)
        for at, found in _entries(value, ())
    ]


def _cause(error: Exception) -> str:
    """One line of torch's message: the class of an object that is none of weights_only's."""
    found = _GLOBAL.search(str(error))
    if found:
        return f"it names {found[1]}, as models that were pickled whole do"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _entries(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _entries(inner, (*path, str(key)))
    else:
        yield path, value


def _records(file: Any) -> dict[int, int]:
    """Map the start of each zip record's content to its length in bytes.

    Raises:
        ValueError: a record is compressed, or the values are big-endian.
    """
    found = {}
    with zipfile.ZipFile(file) as archive:
        for record in archive.infolist():
            if "/code/__torch__" in record.filename:
                raise ValueError("it is a program of TorchScript")
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
