"""Checkpoints that torch.distributed.checkpoint left as safetensors, in the pieces of its ranks:
a directory in, a file as if they had been put together out.

The metadata of each file says at which offsets in the whole tensors its tensors lie. That the
pieces cover every tensor exactly is proven from the headers; a tensor that lacks its end is smaller
than the plan says.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from planc.codec.limits import DEFAULT, Limits
from planc.errors import MalformedFile, ShardMismatch
from planc.tensorfiles.header import BITS, Entry, Header, aligned, parse_object, place, write_header
from planc.tensorfiles.reader import Bytes, TensorFile, open_tensors, read_header

KEY = "DCP_SHARDING_INFO"
_OFFSETS = "saved_offsets"


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a tensor: it begins at ``offsets`` of the whole, and is ``entry`` of a file."""

    path: Path
    entry: Entry
    offsets: tuple[int, ...]

    def holds(self, at: tuple[int, ...]) -> bool:
        """Whether an element of the whole is in it."""
        return all(
            first <= i < first + size
            for i, first, size in zip(at, self.offsets, self.entry.shape, strict=True)
        )


def is_distributed(paths: list[Path], limits: Limits = DEFAULT) -> bool:
    """Whether files are pieces of one distributed checkpoint."""
    return bool(paths) and all(KEY in read_header(path, limits).metadata for path in paths)


def find_pieces(paths: list[Path], limits: Limits = DEFAULT) -> dict[str, tuple[Piece, ...]]:
    """The pieces of each tensor, in the order of their names.

    Raises:
        ShardMismatch: pieces overlap, leave a hole, or differ in dtype; the tensor is named.
        FileError, OSError: a file is malformed, or cannot be read.
    """
    found: dict[str, list[Piece]] = {}
    for path in paths:
        header = read_header(path, limits)
        offsets = parse_object(header.metadata.get(KEY, "").encode(), f"{path}: {KEY}")
        for entry in header.entries:
            found.setdefault(entry.name, []).append(_piece(path, entry, offsets.get(entry.name)))
    for name, pieces in found.items():
        _check_cover(name, pieces)
    return {name: tuple(found[name]) for name in sorted(found)}


class JoinedFile:
    """Reads pieces as the file that they would be if they were put together."""

    def __init__(self, pieces: dict[str, tuple[Piece, ...]], files: dict[Path, TensorFile]) -> None:
        self.header = joined_header(pieces)
        self._pieces, self._files = pieces, files

    def read_into(self, entry: Entry, start: int, into: Bytes) -> None:
        """Fills ``into`` with the bytes of a whole tensor from its byte ``start`` on."""
        done = 0
        while done < len(into):
            piece, at, length = self._stretch(entry, start + done)
            length = min(length, len(into) - done)
            self._files[piece.path].read_into(piece.entry, at, into[done : done + length])
            done += length

    def chunks(self, entry: Entry, size: int) -> Iterator[Bytes]:
        """The bytes of a tensor in pieces of at most ``size``, each valid until the next."""
        yield from TensorFile.chunks(self, entry, size)  # type: ignore[arg-type]

    def _stretch(self, entry: Entry, start: int) -> tuple[Piece, int, int]:
        """The piece with a byte of a tensor, where in it that is, and for how many bytes the two
        go on together.
        """
        width = BITS[entry.dtype] // 8
        element, inside = divmod(start, width)
        at = _coordinates(element, entry.shape)
        piece = next(piece for piece in self._pieces[entry.name] if piece.holds(at))
        own, local, run = piece.entry.shape, 0, 1
        for i, first, size in zip(at, piece.offsets, own, strict=True):
            local = local * size + i - first
        for dim in reversed(range(len(own))):  # the last dimensions that the piece has whole
            run = math.prod(own[dim:]) - local % math.prod(own[dim:])
            if own[dim] != entry.shape[dim]:
                break
        return piece, local * width + inside, run * width - inside


@contextmanager
def open_joined(paths: list[Path], limits: Limits = DEFAULT) -> Iterator[JoinedFile]:
    """Opens the pieces of a distributed checkpoint. Raises as :func:`find_pieces` does."""
    pieces = find_pieces(paths, limits)
    with ExitStack() as opened:
        files = {path: opened.enter_context(open_tensors(path, limits)) for path in paths}
        yield JoinedFile(pieces, files)


def joined_header(pieces: dict[str, tuple[Piece, ...]]) -> Header:
    """The header of the file that pieces would be."""
    specs = [(name, own[0].entry.dtype, _whole(own)) for name, own in pieces.items()]
    entries = place(aligned(specs))
    metadata = {"format": "pt"}
    return Header(entries, metadata, write_header(entries, metadata))


def _piece(path: Path, entry: Entry, listed: object) -> Piece:
    offsets = listed.get(_OFFSETS) if isinstance(listed, dict) else None
    fits = isinstance(offsets, list) and len(offsets) == len(entry.shape)
    if not fits or not isinstance(offsets, list) or not all(type(i) is int for i in offsets):
        raise MalformedFile(
            f"{path}: {KEY} has {str(listed)[:60]} for {entry.name} of shape {entry.shape}; "
            "save the checkpoint again"
        )
    if BITS[entry.dtype] % 8:
        raise MalformedFile(f"{path}: {entry.name}: pieces of {entry.dtype} cannot be joined")
    return Piece(path, entry, tuple(offsets))


def _whole(pieces: tuple[Piece, ...] | list[Piece]) -> tuple[int, ...]:
    ends = [
        [first + size for first, size in zip(p.offsets, p.entry.shape, strict=True)] for p in pieces
    ]
    return tuple(max(sizes) for sizes in zip(*ends, strict=True))


def _check_cover(name: str, pieces: list[Piece]) -> None:
    """Pieces that do not overlap and are as large as the whole between them cover it."""
    kinds = {(piece.entry.dtype, len(piece.offsets)) for piece in pieces}
    if len(kinds) > 1:
        raise ShardMismatch(f"{name}: its pieces are of {sorted(kinds)}; they do not go together")
    for one, other in combinations(pieces, 2):
        if _overlap(one, other):
            raise ShardMismatch(
                f"{name}: {os.fspath(one.path)} and {os.fspath(other.path)} both have part of it; "
                "one of them is of another checkpoint"
            )
    whole = _whole(pieces)
    held = sum(math.prod(piece.entry.shape) for piece in pieces)
    if held != math.prod(whole):
        raise ShardMismatch(
            f"{name}: its pieces hold {held} of the {math.prod(whole)} values of {whole}; "
            "a file is missing: get it"
        )


def _overlap(one: Piece, other: Piece) -> bool:
    return all(
        max(a, b) < min(a + m, b + n)
        for a, m, b, n in zip(
            one.offsets, one.entry.shape, other.offsets, other.entry.shape, strict=True
        )
    )


def _coordinates(element: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    at = []
    for size in reversed(shape):
        element, inside = divmod(element, size)
        at.append(inside)
    return tuple(reversed(at))
