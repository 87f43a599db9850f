"""Statistics as files: safetensors, with one record in the metadata.

The record is JSON under one key: ``kind``, ``version``, ``batches``, ``quantities`` and ``digest``,
the SHA-256 of the other fields and of every tensor's name, dtype, shape and bytes. Early files have
no digest. Files are read, never mapped, and must not be larger than stated by their header and
size.
"""

from __future__ import annotations

import os
from hashlib import sha256

import msgspec
import torch

from planc.criteria.statistics import (
    CHANGES,
    INPUTS,
    KRONECKER,
    KRONECKER_OUT,
    MEMBER_CHANGES,
    QUANTITIES,
    Statistics,
)
from planc.errors import CorruptFile, MalformedFile, NotAPlancFile, UnsupportedVersion
from planc.files.checkpoint.elements import dtype_name, torch_dtype
from planc.files.disk.atomic import replacing
from planc.files.disk.limits import DEFAULT, Limits, limits_given
from planc.files.tensors.header import Entry, aligned, place, write_header
from planc.files.tensors.reader import TensorFile, open_tensors
from planc.files.tensors.writer import TensorWriter
from planc.modules.memory import bytes_of, memory_of
from planc.plan.arguments import a_path, instance, takes
from planc.plan.fingerprint import canonical

_VERSION = 1
_KEY = "planc"
_STORED = (*QUANTITIES, KRONECKER_OUT, MEMBER_CHANGES)
_ROWS = {INPUTS: 5, CHANGES: 2, MEMBER_CHANGES: 2}  # rows of quantities with several sums
_PIECE = 16 << 20  # bytes read and hashed at once


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The metadata beside the tensors."""

    kind: str
    version: int
    batches: int
    quantities: tuple[str, ...]
    digest: str = ""  # early files have none

    def sealed(self, tensors: list[tuple[Entry, bytes]]) -> _Record:
        """The record with the digest of itself and of tensors, given with their own digests."""
        rows = [(entry.name, entry.dtype, entry.shape, digest) for entry, digest in tensors]
        about = (self.kind, self.version, self.batches, self.quantities, sorted(rows))
        return msgspec.structs.replace(self, digest=sha256(canonical(about)).hexdigest())

    @property
    def metadata(self) -> dict[str, str]:
        return {_KEY: msgspec.json.encode(self).decode()}


@takes(
    statistics=instance("Statistics", Statistics, advice="give what planc.calibrate returns"),
    path=a_path,
)
def save_statistics(statistics: Statistics, path: str | os.PathLike[str]) -> None:
    """Write statistics to a file, atomically. Equal statistics give equal bytes.

    Args:
        statistics: the result of :func:`planc.calibrate`.
        path: the file to write.

    Raises:
        UnsafePath: ``path`` is not a place for a regular file.
        OSError: the directory does not exist, the disk is full, ...
    """
    record = _Record("statistics", _VERSION, statistics.batches, statistics.quantities)
    tensors = statistics.tensors
    entries = place(
        aligned((n, dtype_name(tensors[n], n), tuple(tensors[n].shape)) for n in sorted(tensors))
    )
    with (
        replacing(path) as descriptor,
        TensorWriter(descriptor, entries, record.sealed([]).metadata) as writer,
    ):
        for entry in entries:
            writer.add(entry, [bytes_of(tensors[entry.name])])
        sealed = record.sealed(list(zip(entries, writer.digests(), strict=True)))
        writer.finish(sealed.metadata)


@takes(path=a_path, limits=limits_given)
def load_statistics(path: str | os.PathLike[str], *, limits: Limits = DEFAULT) -> Statistics:
    """Read statistics written by :func:`save_statistics`.

    Args:
        path: the file to read.
        limits: bounds on the file's sizes.

    Raises:
        NotAPlancFile, UnsupportedVersion, MalformedFile: the file holds something else.
        CorruptFile, TruncatedFile: it is damaged, or cut short while being read.
        UnsafePath: it is not a regular file.
        OSError: reading fails.
    """
    with open_tensors(path, limits, once=True) as file:
        record = _record(file)
        for entry in file.header.entries:
            _check_sum(file, entry)
        found = [(entry, *_read(file, entry)) for entry in file.header.entries]
        _check_digest(file, record, [(entry, digest) for entry, _, digest in found])
    tensors = {entry.name: tensor for entry, tensor, _ in found}
    return Statistics(record.batches, record.quantities, dict(sorted(tensors.items())))


def _record(file: TensorFile) -> _Record:
    text = file.header.metadata.get(_KEY)
    if text is None:
        raise NotAPlancFile(f"{file.path}: no statistics of planc; name what it saved")
    try:
        record = msgspec.json.decode(text, type=_Record)
    except msgspec.DecodeError as error:
        raise MalformedFile(f"{file.path}: its record is not one of statistics: {error}") from error
    if record.kind != "statistics" or record.version != _VERSION:
        raise UnsupportedVersion(
            f"{file.path}: {record.kind} of version {record.version}, expected statistics of "
            f"version {_VERSION}; calibrate again with this planc"
        )
    for name in record.quantities:
        DEFAULT.check_name(name, f"{file.path}: quantities")
    if record.batches < 1:
        raise MalformedFile(f"{file.path}: {record.batches} batches; calibrate again")
    return record


def _check_sum(file: TensorFile, entry: Entry) -> None:
    quantity, _, name = entry.name.partition("/")
    square = quantity in (KRONECKER, KRONECKER_OUT)
    shape = entry.shape
    fits = not (square or quantity in _ROWS) or (
        len(shape) == 2 and shape[0] == (shape[1] if square else _ROWS[quantity])
    )
    if quantity not in _STORED or not name or not fits:
        raise MalformedFile(
            f"{file.path}: {entry.name} of shape {shape} is no sum of a known quantity; "
            "calibrate again"
        )


def _read(file: TensorFile, entry: Entry) -> tuple[torch.Tensor, bytes]:
    """A tensor, and the digest of its bytes."""
    tensor = torch.empty(entry.shape, dtype=torch_dtype(entry.dtype, entry.name))
    memory, digest = memory_of(tensor), sha256()
    for start in range(0, 0 if memory is None else len(memory), _PIECE):
        assert memory is not None
        piece = memory[start : start + _PIECE]
        file.read_into(entry, start, piece)
        digest.update(piece.data)
    return tensor, digest.digest()


def _check_digest(file: TensorFile, record: _Record, tensors: list[tuple[Entry, bytes]]) -> None:
    if not record.digest:
        return
    expected = record.sealed(tensors)
    header = write_header(file.header.entries, expected.metadata)
    if record != expected or file.header.raw != header:
        raise CorruptFile(
            f"{file.path}: the digest is {record.digest[:16]}..., the content has "
            f"{expected.digest[:16]}...; the file is damaged: copy it again, or calibrate again"
        )
