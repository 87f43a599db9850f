"""Claims of safetensors headers: what we write others read, what others write we read, and what two
readers could read differently is refused.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import deserialize
from safetensors.torch import load_file, save_file

from planc.errors import (
    FileError,
    LimitExceeded,
    MalformedFile,
    TrailingData,
    TruncatedFile,
    UnsafePath,
)
from planc.errors.text import hidden
from planc.files.disk.atomic import replacing
from planc.files.disk.limits import DEFAULT, Limits
from planc.files.tensors.header import (
    BITS,
    Entry,
    aligned,
    parse_header,
    place,
    text_length,
    write_header,
)
from planc.files.tensors.reader import open_tensors, read_header
from planc.files.tensors.writer import TensorWriter

_WHOLE_BYTES = sorted(dtype for dtype, bits in BITS.items() if bits % 8 == 0)


def file_of(text: str | bytes, data: bytes = b"") -> bytes:
    raw = text if isinstance(text, bytes) else text.encode()
    return len(raw).to_bytes(8, "little") + raw + data


def parse(content: bytes, limits: Limits = DEFAULT) -> Any:
    length = text_length(content[:9], len(content), limits)
    return parse_header(content[: 8 + length], len(content), limits)


def refusal(content: bytes, limits: Limits = DEFAULT) -> str:
    with pytest.raises(FileError) as caught:
        parse(content, limits)
    return f"{type(caught.value).__name__}: {caught.value}"


@st.composite
def tensors(draw: st.DrawFn) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    found = {}
    for name in draw(st.lists(st.text(min_size=1, max_size=8), max_size=5, unique=True)):
        if name == "__metadata__" or hidden(name):
            continue
        dtype = draw(st.sampled_from(_WHOLE_BYTES))
        shape = tuple(draw(st.lists(st.integers(0, 4), max_size=3)))
        size = math.prod(shape) * BITS[dtype] // 8
        found[name] = (dtype, shape, draw(st.binary(min_size=size, max_size=size)))
    return found


@given(tensors(), st.dictionaries(st.text(max_size=5), st.text(max_size=9), max_size=3))
def test_what_is_written_others_read(
    tmp_path_factory: Any,
    stored: dict[str, tuple[str, tuple[int, ...], bytes]],
    metadata: dict[str, str],
) -> None:
    path = tmp_path_factory.mktemp("files") / "a.safetensors"
    entries = place(aligned((name, t[0], t[1]) for name, t in stored.items()))
    with replacing(path) as descriptor, TensorWriter(descriptor, entries, metadata) as writer:
        for entry in entries:
            writer.add(entry, [stored[entry.name][2]])
        writer.finish()
    content = path.read_bytes()
    found = {
        name: (t["dtype"], tuple(t["shape"]), bytes(t["data"])) for name, t in deserialize(content)
    }
    assert found == stored
    header = read_header(path)
    assert header.entries == entries
    assert header.metadata == metadata
    assert header.data % 64 == 0
    assert all(e.start % max(1, BITS[e.dtype] // 8) == 0 for e in entries)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_what_others_write_is_read(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    made = {
        "a": torch.randn(3, 4, dtype=torch.bfloat16),
        "b.c": torch.arange(5),
        "d": torch.tensor(True),
        "e": torch.zeros(0, 3),
        "f": torch.randn(2).to(torch.float8_e4m3fn),
        "g": torch.randn(2, dtype=torch.complex64),
    }
    save_file(made, tmp_path / "a.safetensors", metadata)
    with open_tensors(tmp_path / "a.safetensors") as file:
        assert {e.name: e.shape for e in file.header.entries} == {
            name: tuple(tensor.shape) for name, tensor in made.items()
        }
        for entry in file.header.entries:
            read = b"".join(bytes(chunk) for chunk in file.chunks(entry, 7))
            values = made[entry.name].reshape(-1).view(torch.uint8) if read else torch.zeros(0)
            assert read == bytes(values.tolist())
    assert file.header.metadata == (metadata or {})


def test_the_header_is_written_over_when_the_digests_are_known(tmp_path: Path) -> None:
    entries = place([("a", "U8", (3,))])
    with (
        replacing(tmp_path / "a") as descriptor,
        TensorWriter(descriptor, entries, {"digest": "0" * 64}) as writer,
    ):
        writer.add(entries[0], [b"ab", b"c"])
        (digest,) = (digest.hex() for digest in writer.digests())
        header = writer.finish({"digest": digest})
    assert read_header(tmp_path / "a") == header
    assert header.metadata["digest"] == digest
    assert load_file(tmp_path / "a")["a"].tolist() == list(b"abc")


ONE = '"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}'


def one(**fields: Any) -> str:
    table = {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]} | fields
    return json.dumps({"a": table})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "TruncatedFile"),
        (b"\x02\0\0\0\0\0\0\0", "TruncatedFile"),
        (file_of(" {}"), "begins with 7b"),
        (file_of("[]"), "begins with 7b"),
        ((1 << 63).to_bytes(8, "little") + b"{", "LimitExceeded"),
        ((100).to_bytes(8, "little") + b"{}", "TruncatedFile"),
        (file_of("{}", b"x"), "TrailingData"),
        (file_of("{" + ONE + "}", b"x"), "TruncatedFile"),
        (file_of("{" + ONE + "}", b"xyz"), "TrailingData"),
        (file_of("{" + ONE + "," + ONE + "}", b"xy"), "the key 'a' is there twice"),
        (file_of('{"__metadata__":{"k":"1","k":"2"}}'), "the key 'k' is there twice"),
        (
            file_of('{"a":{"dtype":"U8","dtype":"I8","shape":[2],"data_offsets":[0,2]}}', b"xy"),
            "twice",
        ),
        (file_of('{"__metadata__":{"k":1}}'), "strings to strings"),
        (file_of('{"__metadata__":[]}'), "strings to strings"),
        (file_of(one(extra=1), b"xy"), "a tensor has"),
        (file_of('{"a":1}'), "a tensor has"),
        (file_of(one(dtype="F128"), b"xy"), "dtype 'F128'"),
        (file_of(one(dtype=3), b"xy"), "wrong type"),
        (file_of(one(dtype="F4", shape=[3], data_offsets=[0, 1]), b"x"), "whole bytes"),
        (file_of(one(shape=[-2]), b"xy"), "is no size"),
        (file_of(one(shape=[True, 2]), b"xy"), "wrong type"),
        (file_of(one(shape=[2.0]), b"xy"), "is no size"),
        (file_of(one(shape=[3]), b"xy"), "3 bytes for U8"),
        (file_of(one(shape=[1] * 33, data_offsets=[0, 1]), b"x"), "rank"),
        (file_of(one(shape=[1 << 47, 1 << 47]), b"xy"), "elements"),
        (file_of(one(shape=[1 << 60]), b"xy"), "dimension"),
        (file_of(one(data_offsets=[0, 2, 2]), b"xy"), "data_offsets are"),
        (file_of(one(data_offsets=[2, 0]), b"xy"), "data_offsets are"),
        (file_of(one(data_offsets=[1, 3]), b"xyz"), "a hole before it"),
        (
            file_of("{" + ONE + ',"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}', b"xyz"),
            "another tensor",
        ),
        (file_of('{"a":{"dtype":"U8","shape":[2e0],"data_offsets":[0,2]}}', b"xy"), "is no size"),
        (file_of('{"a":{"dtype":"U8","shape":[NaN],"data_offsets":[0,2]}}', b"xy"), "is no size"),
        (
            file_of('{"a":{"dtype":"U8","shape":[' + "9" * 5000 + '],"data_offsets":[0,2]}}'),
            "is no size",
        ),
        (file_of('{"\\ud800":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}', b"xy"), "not JSON"),
        (file_of(b'{"\xff":1}'), "not JSON"),
        (file_of("{}".encode("utf-16-le")), "MalformedFile"),
        (file_of('{"a":' + "[" * 50_000), "not JSON"),
        (file_of("{}\0"), "not JSON"),
        (file_of(json.dumps({"a" * 2000: json.loads(one())["a"]}), b"xy"), "string"),
    ],
)
def test_a_header_that_is_wrong_is_refused_by_name(content: bytes, words: str) -> None:
    assert words in refusal(content)


def test_headers_are_bounded_before_they_are_read(tmp_path: Path) -> None:
    assert "header" in refusal(file_of("{" + " " * 100 + "}"), Limits(header=50))
    with pytest.raises(LimitExceeded, match="tensors"):
        parse(file_of("{" + ONE + "}", b"xy"), Limits(tensors=0))


def test_every_length_but_the_right_one_is_refused(tmp_path: Path) -> None:
    entries = place([("a", "F32", (3,)), ("b", "U8", (5,))])
    content = write_header(entries, {"k": "v"}) + b"\x01" * entries[-1].stop
    for length in range(len(content)):
        with pytest.raises((TruncatedFile, MalformedFile)):
            parse(content[:length])
    with pytest.raises(TrailingData):
        parse(content + b"\0")
    assert parse(content).entries == entries


def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.safetensors")
    with pytest.raises(UnsafePath, match="a pipe"):
        read_header(tmp_path / "a.safetensors")


def test_a_file_that_shrinks_while_it_is_read_is_an_error_not_a_signal(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.zeros(1000)}, path)
    with open_tensors(path) as file:
        os.truncate(path, 1000)
        with pytest.raises(TruncatedFile, match="while it was read"):
            list(file.chunks(file.header.entries[0], 1 << 20))


def test_an_entry_is_plain_data() -> None:
    assert place([("a", "F64", (2,)), ("b", "U8", ())]) == (
        Entry("a", "F64", (2,), 0, 16),
        Entry("b", "U8", (), 16, 17),
    )
