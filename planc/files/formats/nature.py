"""Kinds of files, told by their first bytes: messages name the file that was given by mistake."""

from __future__ import annotations

import os
from codecs import getincrementaldecoder
from pathlib import Path

from planc.errors import NotAPlancFile
from planc.files.disk.atomic import open_regular
from planc.files.formats.envelope import KINDS, kind_of

START = 512  # bytes that are looked at
_AS_WEIGHTS = "planc plan, apply and verify take it as --weights"
SAFETENSORS = "a safetensors file"
_CONVERT = "convert it to safetensors"
_TORCH = "a PyTorch file (.pt)", f"{_AS_WEIGHTS}, with --trust-pickle"
_BEGINNINGS = (
    (b"version https://git-lfs", "a pointer of Git LFS", "run git lfs pull"),
    (b"{", "JSON", "planc plan --from-json takes the output of planc show --json"),
    (b"<", "an HTML page", "name the plan it was made from"),
    (b"\x89HDF", "an HDF5 file", _CONVERT),
    (b"GGUF", "a GGUF file", "name the safetensors it was made from"),
    (b"\x1f\x8b", "a gzip file", "unpack it first"),
)


def nature(start: bytes) -> tuple[str, str]:
    """The kind of a file and its use, in words; empty words for a kind that is not known.

    >>> nature(b"\\x94\\xaaplanc/time")
    ('a latency table', 'planc plan takes it as --latency-table')
    """
    kind = kind_of(start)
    if kind is not None:
        return KINDS[kind].name, KINDS[kind].use
    if start[8:9] == b"{" and start[5:8] == bytes(3):  # a header below a terabyte, of any length
        return SAFETENSORS, f"planc inspect prints it, {_AS_WEIGHTS}"
    if start[:4] == b"PK\x03\x04":
        return _TORCH if b"data.pkl" in start else ("a zip archive", "unpack it first")
    if start[:1] == b"\x80" and start[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        return _TORCH
    for begin, name, use in _BEGINNINGS:
        if start.lstrip().startswith(begin):
            return name, use
    if not start:
        return "an empty file", "copy it again"
    return ("text", "name another file") if _is_text(start) else ("", "")


def _is_text(start: bytes) -> bool:
    """True for printable UTF-8, perhaps cut within a character."""
    try:
        text = getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character in "\t\r\n" for character in text)


def start_of(path: str | os.PathLike[str]) -> bytes:
    """The first bytes of a regular file, enough for :func:`nature`.

    Raises:
        UnsafePath, OSError: as for :func:`planc.files.disk.atomic.open_regular`.
    """
    descriptor = open_regular(path)
    try:
        return os.pread(descriptor, START, 0)
    finally:
        os.close(descriptor)


def check_nature(path: str | os.PathLike[str], kind: bytes) -> None:
    """Check that a file is not known to be of another kind.

    Raises:
        NotAPlancFile: it is; the message names its kind and its use.
        UnsafePath, OSError: as for :func:`start_of`.
    """
    start = start_of(path)
    name, use = nature(start)
    if name and kind_of(start) != kind:
        raise NotAPlancFile(f"{path}: is {name}, not {KINDS[kind].name}; {use}")


def is_pickle(path: Path) -> bool:
    """True for a file of ``torch.save``, whatever its name is."""
    return path.is_file() and nature(start_of(path)) == _TORCH
