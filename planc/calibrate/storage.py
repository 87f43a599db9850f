"""Statistics as files: safetensors, with one record of what they are as its metadata."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from planc.arguments import a_path, instance, takes
from planc.codec.files import write_file
from planc.criteria.statistics import (
    CHANGES,
    INPUTS,
    KRONECKER,
    KRONECKER_OUT,
    MEMBER_CHANGES,
    QUANTITIES,
    Statistics,
)
from planc.errors import MalformedFile, NotAPlancFile, UnsafePath, UnsupportedVersion

_VERSION = 1
_KEY = "planc"  # one key, for safetensors writes several in any order
_STORED = (*QUANTITIES, KRONECKER_OUT, MEMBER_CHANGES)
_ROWS = {INPUTS: 5, CHANGES: 2, MEMBER_CHANGES: 2}  # of quantities that are several sums


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What stands in the metadata beside the tensors."""

    kind: str
    version: int
    batches: int
    quantities: tuple[str, ...]


@takes(
    statistics=instance("Statistics", Statistics, advice="give what planc.calibrate returns"),
    path=a_path,
)
def save_statistics(statistics: Statistics, path: str | os.PathLike[str]) -> None:
    """Writes statistics to a file, whole or not at all. Equal statistics give equal bytes.

    Raises:
        UnsafePath: ``path`` is no place for a regular file.
        OSError: the directory does not exist, the disk is full, ...
    """
    record = _Record("statistics", _VERSION, statistics.batches, statistics.quantities)
    tensors = {key: statistics.tensors[key].contiguous() for key in sorted(statistics.tensors)}
    write_file(path, save(tensors, {_KEY: msgspec.json.encode(record).decode()}))


@takes(path=a_path)
def load_statistics(path: str | os.PathLike[str]) -> Statistics:
    """Reads statistics that :func:`save_statistics` wrote.

    Raises:
        NotAPlancFile, UnsupportedVersion, MalformedFile: the file holds something else.
        UnsafePath: it is not a regular file.
        OSError: it cannot be read.
    """
    where = Path(path)
    if where.exists() and not where.is_file():
        raise UnsafePath(f"{path}: not a regular file; name a file")
    with where.open("rb"):
        pass  # an OSError as for any other file
    try:
        with safe_open(where, framework="pt") as file:
            metadata = file.metadata() or {}
            if _KEY not in metadata:
                raise NotAPlancFile(f"{path}: no statistics of planc; name what it saved")
            record = msgspec.json.decode(metadata[_KEY], type=_Record)
            tensors = {key: file.get_tensor(key) for key in sorted(file.keys())}
    except SafetensorError as error:
        raise MalformedFile(f"{path}: not a safetensors file: {error}") from error
    except msgspec.DecodeError as error:
        raise MalformedFile(f"{path}: its record is not one of statistics: {error}") from error
    if record.kind != "statistics" or record.version != _VERSION:
        raise UnsupportedVersion(
            f"{path}: {record.kind} of version {record.version}, expected statistics of version "
            f"{_VERSION}; calibrate again with this planc"
        )
    if record.batches < 1:
        raise MalformedFile(f"{path}: {record.batches} batches; calibrate again")
    for key, tensor in tensors.items():
        quantity, _, name = key.partition("/")
        square = quantity in (KRONECKER, KRONECKER_OUT)
        fits = not (square or quantity in _ROWS) or (
            tensor.dim() == 2
            and tensor.shape[0] == (tensor.shape[1] if square else _ROWS[quantity])
        )
        if quantity not in _STORED or not name or not fits:
            raise MalformedFile(
                f"{path}: {key} of shape {tuple(tensor.shape)} is no sum of a known quantity; "
                "calibrate again"
            )
    return Statistics(record.batches, record.quantities, tensors)
