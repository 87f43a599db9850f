"""The envelope of every planc record: kind, version, digest and body.

One msgpack value whose first 47 bytes have a fixed layout, so that sizes and digest are checked
before anything is decoded::

    0    94               array of 4
    1    AA + 10 bytes    kind, such as "planc/plan"
    12   01 | 02          format version, 1 up to the current one of the kind
    13   C4 20 + 32       SHA-256 over bytes 0..12 and the body
    47   C4 | C5 | C6     bin header of the body, in its shortest form; the body ends the file
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from planc.errors import (
    CorruptFile,
    LimitExceeded,
    MalformedFile,
    NotAPlancFile,
    TrailingData,
    TruncatedFile,
    UnsupportedVersion,
)

_SHOWN = "planc show prints it, planc apply takes it as PLAN"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of file: name, version written (all from 1 up are read), writer and use."""

    name: str
    version: int
    writer: str = "planc"
    use: str = "name a file that planc wrote"


KINDS = {
    b"planc/plan": Kind("a plan", 2, "planc.save_plan", _SHOWN),
    b"planc/mask": Kind("a mask plan", 2, "planc.save_masks", _SHOWN),
    b"planc/ckpt": Kind("the record of a checkpoint", 1),
    b"planc/part": Kind("the record of one shard of a checkpoint", 1),
    b"planc/time": Kind(
        "a latency table", 1, "planc.save_latency", "planc plan takes it as --latency-table"
    ),
}
_KIND = slice(2, 12)
_HEADER = 13  # hashed bytes before the digest
_DIGEST = slice(15, 47)
_BODY = 47
_WIDTHS = {0xC4: 1, 0xC5: 2, 0xC6: 4}
_MOST = 1 << 32  # the first length beyond a bin header's range


def seal(kind: bytes, body: bytes) -> bytes:
    """The envelope of ``body``.

    Raises:
        LimitExceeded: the body has 4 GiB or more, beyond the range of the bin header.
    """
    if len(body) >= _MOST:
        raise LimitExceeded(
            f"a body of {len(body)} bytes, the format ends below {_MOST}; split the model"
        )
    header = b"\x94\xaa" + kind + bytes([KINDS[kind].version])
    digest = sha256(header + body).digest()
    return header + b"\xc4\x20" + digest + _bin_header(len(body)) + body


def unseal(kind: bytes, sealed: bytes) -> bytes:
    """The body of an envelope of the given kind, with length and digest checked.

    Raises:
        NotAPlancFile, UnsupportedVersion, TruncatedFile, TrailingData, CorruptFile, MalformedFile:
            in this order; messages begin with the byte offset.
    """
    _check_prefix(kind, sealed)
    body = _body(sealed)
    expected = sha256(sealed[:_HEADER] + body).digest()
    if sealed[_DIGEST] != expected:
        raise CorruptFile(
            f"byte 15: the digest is {sealed[_DIGEST].hex()}, the content has {expected.hex()}; "
            "the file is damaged: copy it again, or compile the plan again"
        )
    return body


def version_of(sealed: bytes) -> int:
    """The format version of an envelope."""
    return sealed[_HEADER - 1]


def kind_of(start: bytes) -> bytes | None:
    """The kind of a file from its first 12 bytes; None if planc has no such kind."""
    return start[_KIND] if start[:2] == b"\x94\xaa" and start[_KIND] in KINDS else None


def _check_prefix(kind: bytes, sealed: bytes) -> None:
    start, expected = sealed[:12], b"\x94\xaa" + kind
    if start != expected[: len(start)] or not start:
        found = KINDS.get(start[_KIND]) if start[:2] == b"\x94\xaa" else None
        what = f"is {found.name}" if found else f"begins with {start.hex(' ') or 'nothing'}"
        raise NotAPlancFile(
            f"byte 0: the file {what}, {KINDS[kind].name} begins with {expected.hex(' ')}; "
            f"name a file that {KINDS[kind].writer} wrote"
        )
    if len(sealed) < _HEADER:
        raise _truncated(len(sealed), _BODY)
    found_version, newest = version_of(sealed), KINDS[kind].version
    if not 1 <= found_version <= newest:
        known = "1 is known" if newest == 1 else f"1 to {newest} are known"
        raise UnsupportedVersion(
            f"byte 12: format version {found_version} found, {known}; "
            "read the file with the planc that wrote it, or compile the plan again"
        )
    if len(sealed) < _BODY:
        raise _truncated(len(sealed), _BODY)
    if sealed[_HEADER : _DIGEST.start] != b"\xc4\x20":
        found_mark = sealed[_HEADER : _DIGEST.start].hex(" ")
        raise MalformedFile(f"byte 13: {found_mark} where c4 20 begins the digest; copy it again")


def _body(sealed: bytes) -> bytes:
    width = _WIDTHS.get(sealed[_BODY]) if len(sealed) > _BODY else 0
    if width is None:
        raise MalformedFile(
            f"byte {_BODY}: {sealed[_BODY]:02x} where a bin header (c4, c5 or c6) begins the "
            "body; copy the file again"
        )
    start = _BODY + 1 + width
    if len(sealed) < start:
        raise _truncated(len(sealed), start)
    length = int.from_bytes(sealed[_BODY + 1 : start], "big")
    if len(sealed) < start + length:
        raise _truncated(len(sealed), start + length)
    if len(sealed) > start + length:
        raise TrailingData(
            f"byte {start + length}: the file should end here and goes on to byte {len(sealed)}; "
            "copy it again"
        )
    if sealed[_BODY:start] != _bin_header(length):
        raise MalformedFile(
            f"byte {_BODY}: the body's length {length} is written as {sealed[_BODY:start].hex(' ')}"
            f", the shortest form is {_bin_header(length).hex(' ')}; write the file with planc"
        )
    return sealed[start:]


def _bin_header(length: int) -> bytes:
    mark = 0xC4 if length < 1 << 8 else 0xC5 if length < 1 << 16 else 0xC6
    return bytes([mark]) + length.to_bytes(_WIDTHS[mark], "big")


def _truncated(found: int, expected: int) -> TruncatedFile:
    return TruncatedFile(
        f"byte {found}: the file ends here, it should go on to byte {expected} at least; "
        "copy it again"
    )
