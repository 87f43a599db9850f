"""Headers of safetensors files: parsing and writing names, dtypes, shapes and offsets.

    0     8 bytes    length n of the JSON header, little-endian
    8     n bytes    {"__metadata__": {...}, name: {"dtype", "shape", "data_offsets"}, ...}
    8+n   the rest   tensors in C order, little-endian, at the offsets given in the header

The parser is stricter than the format where readers disagree: names are unique, an unknown field or
dtype is refused, and the tensors cover the data exactly.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from planc.errors import MalformedFile, TrailingData, TruncatedFile
from planc.files.disk.limits import Limits

Spec = tuple[str, str, tuple[int, ...]]  # name, dtype and shape of a tensor
LENGTH = 8  # bytes before the header
_ALIGNMENT = 64  # of the data in files written by planc
_METADATA = "__metadata__"
_FIELDS = {"data_offsets", "dtype", "shape"}

BITS = {
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "BOOL": 8,
    "F8_E4M3": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2": 8,
    "F8_E5M2FNUZ": 8,
    "F8_E8M0": 8,
    "I8": 8,
    "U8": 8,
    "BF16": 16,
    "F16": 16,
    "I16": 16,
    "U16": 16,
    "F32": 32,
    "I32": 32,
    "U32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}

TORCH_NAMES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2": "float8_e5m2",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
    "BF16": "bfloat16",
    "F16": "float16",
    "I16": "int16",
    "U16": "uint16",
    "F32": "float32",
    "I32": "int32",
    "U32": "uint32",
    "C64": "complex64",
    "F64": "float64",
    "I64": "int64",
    "U64": "uint64",
}
"""Dtypes that torch has, by their names in files."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor of a file: its bytes are ``start <= i < stop`` of the data."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a file, with ``entries`` in the order of their bytes."""

    entries: tuple[Entry, ...]
    metadata: Mapping[str, str]
    raw: bytes  # the length and the JSON text, verbatim from the file

    @property
    def data(self) -> int:
        """The offset of the data in the file, in bytes."""
        return len(self.raw)

    @property
    def size(self) -> int:
        """The size of the whole file in bytes."""
        return self.data + (self.entries[-1].stop if self.entries else 0)

    @property
    def digest(self) -> bytes:
        """SHA-256 of the length and the text."""
        return sha256(self.raw).digest()

    def digest_without(self, key: str) -> bytes:
        """The digest of the header without one key of the metadata."""
        rest = {name: text for name, text in self.metadata.items() if name != key}
        return sha256(write_header(self.entries, rest)).digest()


def nbytes(dtype: str, shape: Iterable[int]) -> int:
    """The size of a tensor in bytes.

    Raises:
        MalformedFile: the dtype is unknown, or does not fill whole bytes.
    """
    if dtype not in BITS:
        raise MalformedFile(
            f"dtype {dtype[:40]!r} is none of safetensors' ({', '.join(BITS)}); "
            "write the file with a known one"
        )
    count, rest = divmod(math.prod(shape) * BITS[dtype], 8)
    if rest:
        raise MalformedFile(f"{tuple(shape)} elements of {dtype} do not fill whole bytes")
    return count


def text_length(start: bytes, size: int, limits: Limits) -> int:
    """The length of the JSON text, from the first bytes of a file of ``size`` bytes.

    Raises:
        TruncatedFile: the file ends within its header.
        LimitExceeded: the header is longer than the limit.
        MalformedFile: the text does not begin like a header.
    """
    if len(start) < LENGTH + 1:
        raise TruncatedFile(
            f"byte {len(start)}: the file ends here, a safetensors file has at least 10 bytes; "
            "copy it again"
        )
    length = int.from_bytes(start[:LENGTH], "little")
    if start[LENGTH : LENGTH + 1] != b"{":
        raise MalformedFile(
            f"byte 8: {start[LENGTH : LENGTH + 1].hex()} where a safetensors header begins with "
            "7b; name a safetensors file"
        )
    limits.check("header", length, "the header")
    if LENGTH + length > size:
        raise TruncatedFile(
            f"byte {size}: the file ends here, its header goes on to byte {LENGTH + length}; "
            "copy it again"
        )
    return length


def parse_header(raw: bytes, size: int, limits: Limits) -> Header:
    """The header with the given length and text, of a file of ``size`` bytes.

    Raises:
        FileError: it is not a header, or does not match the size.
    """
    header = parse_text(raw, limits)
    if size < header.size:
        raise TruncatedFile(
            f"byte {size}: the file ends here, its tensors go on to byte {header.size}; "
            "copy it again"
        )
    if size > header.size:
        raise TrailingData(
            f"byte {header.size}: the tensors end here, the file goes on to byte {size}; "
            "copy it again"
        )
    return header


def parse_text(raw: bytes, limits: Limits) -> Header:
    """Like :func:`parse_header`, for a file of unknown size.

    Raises:
        FileError: it is not a header.
    """
    length = text_length(raw[: LENGTH + 1], len(raw), limits)
    if len(raw) != LENGTH + length:
        raise TrailingData(f"byte {LENGTH + length}: the header ends here; copy the file again")
    table = parse_object(raw[LENGTH:], "the header")
    metadata = table.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(type(v) is str for v in metadata.values()):
        raise MalformedFile(f"{_METADATA}: not a map of strings to strings; write the file again")
    limits.check("tensors", len(table), "the header")
    entries = sorted(
        (_entry(name, fields, limits) for name, fields in table.items()),
        key=lambda entry: (entry.start, entry.stop),
    )
    end = 0
    for entry in entries:
        if entry.start != end:
            kind = "a hole" if entry.start > end else "another tensor"
            raise MalformedFile(
                f"{entry.name}: begins at byte {entry.start} of the data, with {kind} before it: "
                f"byte {end} follows; write the file again"
            )
        end = entry.stop
    return Header(tuple(entries), metadata, raw)


def parse_object(text: bytes, where: str, sizes_only: bool = True) -> dict[str, Any]:
    """The object in a JSON text, without duplicate keys at any level.

    Args:
        sizes_only: accept only sizes as numbers.

    Raises:
        MalformedFile: it is not such an object.
    """
    try:
        table = json.loads(
            text.decode(),  # json would also take UTF-16
            object_pairs_hook=_distinct,
            parse_int=_integer if sizes_only else None,
            parse_float=_refuse if sizes_only else None,
            parse_constant=_refuse,
        )
    except (ValueError, RecursionError) as error:
        raise MalformedFile(f"{where}: not JSON as it should be: {error}") from None
    if not isinstance(table, dict):
        raise MalformedFile(f"{where}: not a JSON object")
    return table


def place(specs: Iterable[Spec]) -> tuple[Entry, ...]:
    """Entries for tensors (name, dtype, shape), packed in the order given."""
    entries, end = [], 0
    for name, dtype, shape in specs:
        stop = end + nbytes(dtype, shape)
        entries.append(Entry(name, dtype, shape, end, stop))
        end = stop
    return tuple(entries)


def aligned(specs: Iterable[Spec]) -> tuple[Spec, ...]:
    """The tensors ordered by element width, widest first, so that each is aligned."""
    return tuple(sorted(specs, key=lambda spec: -BITS[spec[1]]))


def write_header(entries: Sequence[Entry], metadata: Mapping[str, str]) -> bytes:
    """The length and text of a header: metadata first, padded to align the data."""
    table: dict[str, Any] = {_METADATA: dict(metadata)} if metadata else {}
    for entry in entries:
        table[entry.name] = {
            "dtype": entry.dtype,
            "shape": entry.shape,
            "data_offsets": (entry.start, entry.stop),
        }
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-(LENGTH + len(text)) % _ALIGNMENT)
    return len(text).to_bytes(LENGTH, "little") + text


def _entry(name: str, fields: Any, limits: Limits) -> Entry:
    if not isinstance(fields, dict) or set(fields) != _FIELDS:
        found = sorted(fields) if isinstance(fields, dict) else type(fields).__name__
        raise MalformedFile(
            f"{name[:80]!r}: has {str(found)[:80]}, a tensor has {sorted(_FIELDS)}; "
            "write the file again"
        )
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if type(dtype) is not str or not _naturals(shape) or not _naturals(offsets):
        raise MalformedFile(f"{name[:80]!r}: a field of the wrong type; write the file again")
    limits.check_name(name, "a tensor's name")
    where = f"{name[:80]!r}"
    limits.check_shape(shape, where)
    if len(offsets) != 2 or offsets[1] - offsets[0] != nbytes(dtype, shape):
        raise MalformedFile(
            f"{where}: {nbytes(dtype, shape)} bytes for {dtype}{shape}, data_offsets are "
            f"{offsets[:3]}; write the file again"
        )
    return Entry(name, dtype, tuple(shape), offsets[0], offsets[1])


def _naturals(value: Any) -> bool:
    # negative numbers are refused by _integer
    return isinstance(value, list) and all(type(item) is int for item in value)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:80]!r} is there twice")
    for key, value in pairs:
        key.encode()  # half of a surrogate pair is no text
        if type(value) is str:
            value.encode()
    return table


def _integer(text: str) -> int:
    if len(text) > 20 or text[0] == "-":
        raise ValueError(f"{text[:24]} is no size")
    return int(text)


def _refuse(text: str) -> Any:
    raise ValueError(f"{text[:24]} is no size")
