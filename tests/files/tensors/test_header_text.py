"""The header of a safetensors file to the last byte: what is written, and each bound of reading."""

from __future__ import annotations

import json
from collections.abc import Iterable
from hashlib import sha256
from typing import Any

import pytest

from planc.errors import (
    FileError,
    LimitExceeded,
    MalformedFile,
    TrailingData,
    TruncatedFile,
)
from planc.files.disk.limits import DEFAULT, Limits
from planc.files.tensors.header import (
    BITS,
    Entry,
    Header,
    aligned,
    nbytes,
    parse_header,
    parse_object,
    parse_text,
    place,
    text_length,
    write_header,
)


def raw_of(table: Any) -> bytes:
    text = table if isinstance(table, bytes) else json.dumps(table).encode()
    return len(text).to_bytes(8, "little") + text


def tensor(dtype: str = "U8", shape: Iterable[Any] = (2,), offsets: Any = (0, 2)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def refusal(table: Any, limits: Limits = DEFAULT) -> str:
    with pytest.raises(FileError) as caught:
        parse_text(raw_of(table), limits)
    return f"{type(caught.value).__name__}: {caught.value}"


# -- writing --------------------------------------------------------------------------------------


def test_a_header_is_written_byte_for_byte() -> None:
    entries = place([("ä", "F32", (2,)), ("b", "U8", ())])
    raw = write_header(entries, {"format": "pt"})
    text = (
        '{"__metadata__":{"format":"pt"},"ä":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
        '"b":{"dtype":"U8","shape":[],"data_offsets":[8,9]}}'
    ).encode()
    assert raw[:8] == (len(raw) - 8).to_bytes(8, "little")
    assert raw[8 : 8 + len(text)] == text
    assert raw[8 + len(text) :] == b" " * 47
    assert len(raw) == 192
    assert parse_text(raw, DEFAULT) == Header(entries, {"format": "pt"}, raw)
    assert write_header((), {}) == (56).to_bytes(8, "little") + b"{}" + b" " * 54


@pytest.mark.parametrize("extra", range(70))
def test_data_begins_at_a_multiple_of_64(extra: int) -> None:
    raw = write_header((), {"k": "x" * extra})
    text = raw[8:].rstrip()
    assert len(raw) % 64 == 0
    assert 0 <= len(raw) - 8 - len(text) < 64


def test_what_a_header_knows_of_its_file() -> None:
    entries = place([("a", "F32", (2,)), ("b", "BF16", (3,))])
    raw = write_header(entries, {"format": "pt", "k": "v"})
    header = parse_text(raw, DEFAULT)
    assert (header.data, header.size) == (len(raw), len(raw) + 14)
    assert header.digest == sha256(raw).digest()
    assert header.digest_without("k") == sha256(write_header(entries, {"format": "pt"})).digest()
    assert header.digest_without("other") == header.digest
    empty = write_header((), {})
    assert parse_text(empty, DEFAULT).size == len(empty)


def test_tensors_are_placed_one_after_another_the_widest_first() -> None:
    specs = (
        ("a", "U8", (3,)),
        ("z", "F64", (1,)),
        ("c", "F16", (2,)),
        ("b", "BF16", (1,)),
        ("x", "F32", (0,)),
    )
    assert place(aligned(specs)) == (
        Entry("z", "F64", (1,), 0, 8),
        Entry("x", "F32", (0,), 8, 8),
        Entry("c", "F16", (2,), 8, 12),
        Entry("b", "BF16", (1,), 12, 14),
        Entry("a", "U8", (3,), 14, 17),
    )


def test_bits_are_those_of_the_format() -> None:
    widths = {4: 1, 6: 2, 8: 8, 16: 4, 32: 3, 64: 4}
    assert {bits: list(BITS.values()).count(bits) for bits in widths} == widths
    assert " ".join(BITS) == (
        "F4 F6_E2M3 F6_E3M2 BOOL F8_E4M3 F8_E4M3FNUZ F8_E5M2 F8_E5M2FNUZ F8_E8M0 I8 U8 BF16 F16 "
        "I16 U16 F32 I32 U32 C64 F64 I64 U64"
    )
    for dtype, bits in BITS.items():
        assert nbytes(dtype, (8, 3)) == 3 * bits
    assert nbytes("U8", ()) == 1
    assert nbytes("F4", (2,)) == 1
    assert nbytes("F64", (0, 5)) == 0
    with pytest.raises(MalformedFile, match=r"\(3,\) elements of F4 do not fill whole bytes"):
        nbytes("F4", [3])
    with pytest.raises(
        MalformedFile, match=rf"dtype '{'X' * 40}' is none of safetensors' \(F4, F6"
    ):
        nbytes("X" * 50, ())


# -- lengths --------------------------------------------------------------------------------------


def test_a_length_is_believed_up_to_the_files_size_and_the_limit() -> None:
    start = (50).to_bytes(8, "little") + b"{"
    assert text_length(start, 58, DEFAULT) == 50
    assert text_length(start + b"more", 58, Limits(header=50)) == 50
    with pytest.raises(
        TruncatedFile, match="byte 57: the file ends here, its header goes on to byte 58"
    ):
        text_length(start, 57, DEFAULT)
    with pytest.raises(LimitExceeded, match="the header: 50 exceeds the limit of 49 header"):
        text_length(start, 58, Limits(header=49))
    for length in range(9):
        with pytest.raises(
            TruncatedFile, match=f"byte {length}: the file ends here, a safetensors"
        ):
            text_length(start[:length], 58, DEFAULT)
    with pytest.raises(MalformedFile, match="byte 8: 5b where a safetensors header begins with 7b"):
        text_length(start[:8] + b"[xyz", 58, DEFAULT)


def test_a_file_has_the_size_that_its_header_says() -> None:
    raw = raw_of({"a": tensor()})
    header = parse_header(raw, len(raw) + 2, DEFAULT)
    assert header.entries == (Entry("a", "U8", (2,), 0, 2),)
    assert header.raw == raw
    for size, kind, words in (
        (1, TruncatedFile, f"ends here, its tensors go on to byte {len(raw) + 2}"),
        (3, TrailingData, f"byte {len(raw) + 2}: the tensors end here, the file goes on to byte "),
    ):
        with pytest.raises(kind, match=words):
            parse_header(raw, len(raw) + size, DEFAULT)


def test_a_header_by_itself_ends_where_it_says() -> None:
    raw = raw_of({"a": tensor()})
    assert parse_text(raw, DEFAULT).entries
    with pytest.raises(TrailingData, match=f"byte {len(raw)}: the header ends here; copy the file"):
        parse_text(raw + b" ", DEFAULT)
    with pytest.raises(TruncatedFile):
        parse_text(raw[:-1], DEFAULT)


# -- fields ---------------------------------------------------------------------------------------

ALL = "['data_offsets', 'dtype', 'shape']"


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (b"{]", "MalformedFile: the header: not JSON as it should be: "),
        ({"__metadata__": 1}, "__metadata__: not a map of strings to strings"),
        ({"__metadata__": {"a": 1}}, "__metadata__: not a map of strings to strings"),
        ({"a": [1]}, f"'a': has list, a tensor has {ALL}; write the file again"),
        ({"a": ["dtype", "shape", "data_offsets"]}, "'a': has list, a tensor has"),
        ({"a": 1}, "'a': has int, a tensor has"),
        ({"a": tensor(shape=(-1,))}, "-1 is no size"),
        ({"a": {"dtype": "U8"}}, f"'a': has ['dtype'], a tensor has {ALL}"),
        (
            {"a": tensor() | {"x": "y"}},
            "'a': has ['data_offsets', 'dtype', 'shape', 'x'], a tensor",
        ),
        ({"a" * 90: [1]}, f" '{'a' * 80}': has list"),
        ({"a" * 90: tensor() | {"dtype": 1}}, f" '{'a' * 80}': a field of the wrong type"),
        ({"a" * 90: tensor(shape=(3,))}, f" '{'a' * 80}': 3 bytes for U8[3]"),
        ({"a": tensor() | {"y" * 90: "z"}}, f"'{'y' * 44}, a tensor has"),
        ({"a": tensor() | {"dtype": None}}, "'a': a field of the wrong type; write the file again"),
        ({"a": tensor() | {"shape": {}}}, "'a': a field of the wrong type"),
        ({"a": tensor() | {"data_offsets": "02"}}, "'a': a field of the wrong type"),
        ({"a": tensor(shape=("2",))}, "'a': a field of the wrong type"),
        ({"a": tensor(offsets=(None, 2))}, "'a': a field of the wrong type"),
        ({"a": tensor(offsets=(False, 2))}, "'a': a field of the wrong type"),
        ({"a": tensor(shape=(2, 3))}, "'a': 6 bytes for U8[2, 3], data_offsets are [0, 2]; write"),
        ({"a": tensor(offsets=(0, 2, 4, 6))}, "data_offsets are [0, 2, 4]; write"),
        ({"a": tensor(offsets=(2,))}, "data_offsets are [2]; write"),
        (
            {"a": tensor(offsets=(1, 3))},
            "a: begins at byte 1 of the data, with a hole before it: b",
        ),
        (
            {"a": tensor(), "b": tensor(offsets=(1, 3))},
            "b: begins at byte 1 of the data, with another tensor before it: byte 2 follows",
        ),
        (
            {"a": tensor(), "b": tensor(offsets=(3, 5))},
            "b: begins at byte 3 of the data, with a hole before it: byte 2 follows",
        ),
        ({"é" * 513: tensor()}, "a tensor's name: 1026 exceeds the limit of 1024 string"),
        ({"a": tensor(shape=[1] * 33, offsets=(0, 1))}, "'a': 33 exceeds the limit of 32 rank"),
        ({"a": tensor(shape=[1 << 48])}, f"'a': {1 << 48} exceeds the limit of"),
        ({"a": tensor(shape=[1 << 31, 1 << 31])}, f"'a': {1 << 62} exceeds the limit of"),
    ],
)
def test_a_field_that_is_wrong_is_named(table: Any, words: str) -> None:
    assert words in refusal(table)


def test_what_is_as_large_as_a_limit_is_read() -> None:
    table = {
        "é" * 512: tensor(shape=[1] * 31 + [2]),
        "b": tensor(shape=[1 << 47, 0], offsets=(2, 2)),
    }
    entries = parse_text(raw_of(table), DEFAULT).entries
    assert [len(entry.shape) for entry in entries] == [32, 2]
    tight = Limits(tensors=2, rank=32, dimension=1 << 47, elements=2, string=1024)
    assert parse_text(raw_of(table), tight).entries == entries
    assert "the header: 2 exceeds the limit of 1 tensors" in refusal(table, Limits(tensors=1))
    assert f"'b': {1 << 47} exceeds" in refusal(table, Limits(dimension=(1 << 47) - 1))
    assert "2 exceeds the limit of 1 elements" in refusal(table, Limits(elements=1))


def test_empty_tensors_share_a_place_with_others_in_any_order() -> None:
    table = {
        "c": tensor(offsets=(0, 2)),
        "b": tensor(shape=[0], offsets=(0, 0)),
        "a": tensor(shape=[0], offsets=(2, 2)),
    }
    names = [entry.name for entry in parse_text(raw_of(table), DEFAULT).entries]
    assert names == ["b", "c", "a"]


# -- JSON -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"[]", "here: not a JSON object"),
        (b'"a"', "here: not a JSON object"),
        (b"{", "here: not JSON as it should be: "),
        (b"\xff", "here: not JSON as it should be: "),
        ("{}".encode("utf-16"), "here: not JSON as it should be: "),
        (b"[" * 100_000, "here: not JSON as it should be: "),
        (b'{"a": 1, "b": 2, "b": 3}', "the key 'b' is there twice"),
        (b'{"x": {"a": 1, "a": 1}}', "the key 'a' is there twice"),
        (b'{"' + b"k" * 90 + b'": 1, "' + b"k" * 90 + b'": 1}', f"the key '{'k' * 80}' is there"),
        (b'{"\\ud800": 1}', "surrogates not allowed"),
        (b'{"a": "\\ud800"}', "surrogates not allowed"),
        (b'{"a": -1}', "-1 is no size"),
        (b'{"a": -0}', "-0 is no size"),
        (b'{"a": 123456789012345678901}', "123456789012345678901 is no size"),
        (b'{"a": ' + b"9" * 30 + b"}", f" {'9' * 24} is no size"),
        (b'{"a": 1.5}', "1.5 is no size"),
        (b'{"a": 1e3}', "1e3 is no size"),
        (b'{"a": 1.' + b"5" * 30 + b"}", f" 1.{'5' * 22} is no size"),
        (b'{"a": NaN}', "NaN is no size"),
        (b'{"a": -Infinity}', "-Infinity is no size"),
    ],
)
def test_a_text_that_readers_could_read_differently_is_refused(text: bytes, words: str) -> None:
    with pytest.raises(MalformedFile) as caught:
        parse_object(text, "here")
    assert words in str(caught.value)


def test_sizes_have_up_to_twenty_digits() -> None:
    assert parse_object(b'{"a": 12345678901234567890, "b": [0, 7]}', "here") == {
        "a": 12345678901234567890,
        "b": [0, 7],
    }


def test_numbers_of_other_texts_may_be_of_any_kind() -> None:
    text = b'{"a": -1, "b": 1.5, "c": ' + b"9" * 30 + b"}"
    assert parse_object(text, "here", sizes_only=False) == {"a": -1, "b": 1.5, "c": 10**30 - 1}
    for bad in (b'{"a": NaN}', b'{"a": Infinity}'):
        with pytest.raises(MalformedFile, match="is no size"):
            parse_object(bad, "here", sizes_only=False)
