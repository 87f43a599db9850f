"""Checkpoints saved by torch.distributed.checkpoint as safetensors, in pieces of several ranks.

The metadata of each file gives the offsets of its pieces within the whole tensors, but not the
sizes of the whole tensors. A tensor without its last piece is therefore smaller than the plan says.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from planc.errors import MalformedFile, ShardMismatch
from planc.files.disk.limits import DEFAULT, Limits
from planc.files.tensors.header import Entry, Header, parse_object
from planc.files.tensors.pieces import Joined, Piece, Whole, join
from planc.files.tensors.reader import read_header

KEY = "DCP_SHARDING_INFO"
_OFFSETS = "saved_offsets"


def is_distributed(paths: list[Path], limits: Limits = DEFAULT) -> bool:
    """True if files are pieces of one distributed checkpoint."""
    return bool(paths) and all(KEY in read_header(path, limits).metadata for path in paths)


def find_pieces(paths: Iterable[Path], limits: Limits = DEFAULT) -> Joined:
    """The joined file of all pieces, with tensors in the order of their names.

    Raises:
        ShardMismatch: pieces overlap, leave a hole, or differ in dtype; the tensor is named.
        FileError, OSError: a file is malformed, or cannot be read.
    """
    found: dict[str, list[Piece]] = {}
    dtypes: dict[str, tuple[str, int]] = {}
    for path in paths:
        header = read_header(path, limits)
        offsets = parse_object(header.metadata.get(KEY, "{}").encode(), f"{path}: {KEY}")
        for entry in header.entries:
            piece = _piece(path, header, entry, offsets.get(entry.name))
            kind = entry.dtype, len(entry.shape)
            if dtypes.setdefault(entry.name, kind) != kind:
                raise ShardMismatch(
                    f"{entry.name}: is of {kind[0]} and {kind[1]} dimensions in {path}, of "
                    f"{dtypes[entry.name][0]} and {dtypes[entry.name][1]} elsewhere; they are of "
                    "different checkpoints"
                )
            found.setdefault(entry.name, []).append(piece)
    tensors = {
        name: Whole(dtypes[name][0], _shape(found[name]), tuple(found[name]))
        for name in sorted(found)
    }
    return join(tensors, limits)


def _piece(path: Path, header: Header, entry: Entry, listed: object) -> Piece:
    offsets = listed.get(_OFFSETS) if isinstance(listed, dict) else None
    if (
        not isinstance(offsets, list)
        or len(offsets) != len(entry.shape)
        or not all(type(i) is int for i in offsets)
    ):
        raise MalformedFile(
            f"{path}: {KEY} has {str(listed)[:60]} for {entry.name} of shape {entry.shape}; "
            "save the checkpoint again"
        )
    return Piece(path, header.data + entry.start, entry.shape, tuple(offsets))


def _shape(pieces: list[Piece]) -> tuple[int, ...]:
    ends = [[first + n for first, n in zip(p.offsets, p.shape, strict=True)] for p in pieces]
    return tuple(max(sizes) for sizes in zip(*ends, strict=True))
