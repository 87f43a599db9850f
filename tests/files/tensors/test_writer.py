"""Claims of writing safetensors files: what comes is what the file has, in its order and of its
length; the header may be written again over the first one, as long as it is.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from planc.errors import PlancError
from planc.files.disk.atomic import replacing
from planc.files.disk.stream import Stream
from planc.files.tensors import writer as module
from planc.files.tensors.header import Entry, place, write_header
from planc.files.tensors.writer import TensorWriter, rewrite

ENTRIES = place([("a", "U8", (2, 2)), ("b", "U8", (3,)), ("c", "U8", (0,))])
THREE = place([("a", "U8", (4,)), ("b", "U8", (3,)), ("c", "U8", (5,))])


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    found = os.open(tmp_path / "a", os.O_RDWR | os.O_CREAT)
    yield found
    os.close(found)


def content(descriptor: int) -> bytes:
    return os.pread(descriptor, 1 << 20, 0)


def filled(writer: TensorWriter) -> TensorWriter:
    for entry, chunks in zip(ENTRIES, ([b"ab", b"cd"], [b"efg"], []), strict=True):
        writer.add(entry, chunks)
    return writer


def test_tensors_follow_the_header_and_their_digests_are_known(descriptor: int) -> None:
    with TensorWriter(descriptor, ENTRIES, {"format": "pt"}) as writer:
        filled(writer)
        assert writer.digests() == tuple(sha256(part).digest() for part in (b"abcd", b"efg", b""))
        header = writer.finish()
    raw = write_header(ENTRIES, {"format": "pt"})
    assert content(descriptor) == raw + b"abcdefg"
    assert (header.entries, header.metadata, header.raw) == (ENTRIES, {"format": "pt"}, raw)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"format": "np"}])
def test_a_header_is_written_again_only_if_it_is_another(
    descriptor: int, monkeypatch: pytest.MonkeyPatch, metadata: dict[str, str] | None
) -> None:
    written: list[bytes] = []
    monkeypatch.setattr(module, "rewrite", lambda _, start: written.append(start))
    with TensorWriter(descriptor, ENTRIES, {"format": "pt"}) as writer:
        header = filled(writer).finish(metadata)
        assert header.metadata == (metadata or {"format": "pt"})
        assert header.raw == write_header(ENTRIES, header.metadata)
        assert written == ([header.raw] if metadata == {"format": "np"} else [])
        assert writer.finish() == header


def test_a_tensor_out_of_turn_is_refused(descriptor: int) -> None:
    with TensorWriter(descriptor, ENTRIES, {}) as writer:
        for entry in (ENTRIES[1], Entry("a", "U8", (2, 2), 0, 4)):
            with pytest.raises(PlancError, match=": not the tensor that follows in the file"):
                writer.add(entry, [b"abcd"])
        filled(writer)
        with pytest.raises(PlancError, match="c: not the tensor that follows in the file"):
            writer.add(ENTRIES[2], [])


@pytest.mark.parametrize("chunks", [[b"ef"], [b"ef", b"gh"], []])
def test_a_tensor_of_another_length_is_refused(descriptor: int, chunks: list[bytes]) -> None:
    with TensorWriter(descriptor, ENTRIES, {}) as writer:
        writer.add(ENTRIES[0], [b"abcd"])
        count = sum(map(len, chunks))
        with pytest.raises(PlancError, match=rf"^b: {count} bytes came, U8\[3\] has 3$"):
            writer.add(ENTRIES[1], chunks)
        with pytest.raises(PlancError, match="b: this tensor was never written"):
            writer.finish()


def test_space_beyond_the_end_of_a_tensor_is_refused_when_it_is_asked_for(descriptor: int) -> None:
    def ask(writer: TensorWriter) -> None:
        with writer.adding(ENTRIES[0]) as space:
            space(4)
            space(1)
            raise AssertionError

    with (
        TensorWriter(descriptor, ENTRIES, {}) as writer,
        pytest.raises(PlancError, match="a: 5 bytes came"),
    ):
        ask(writer)


@pytest.mark.parametrize(("entries", "size"), [(ENTRIES, 7), (THREE, 12), ((), 0)])
def test_the_length_of_the_file_is_known_before(
    descriptor: int, monkeypatch: pytest.MonkeyPatch, entries: tuple[Entry, ...], size: int
) -> None:
    lengths: list[int] = []

    def noted(descriptor: int, length: int) -> Any:
        lengths.append(length)
        return Stream(descriptor, length)

    monkeypatch.setattr(module, "Stream", noted)
    with TensorWriter(descriptor, entries, {}):
        pass
    assert lengths == [len(write_header(entries, {})) + size]


def test_no_thread_is_left_when_a_body_fails(descriptor: int) -> None:
    def fail() -> None:
        with TensorWriter(descriptor, ENTRIES, {}) as writer:
            filled(writer).digests()
            assert any(thread.name.startswith("planc-") for thread in threading.enumerate())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not any(thread.name.startswith("planc-") for thread in threading.enumerate())


@pytest.mark.parametrize("most", [1, 2, 9])
def test_a_start_is_written_over_however_little_is_taken(
    descriptor: int, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    os.write(descriptor, b"0123456789")
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda d, rest, at: real(d, rest[:most], at))
    rewrite(descriptor, b"abcde")
    assert content(descriptor) == b"abcde56789"


def test_a_header_of_another_length_is_not_written_over_the_first(tmp_path: Path) -> None:
    entries = place([("a", "U8", (4,))])
    with (
        replacing(tmp_path / "a") as descriptor,
        TensorWriter(descriptor, entries, {"digest": "0" * 64}) as writer,
    ):
        writer.add(entries[0], [b"abcd"])
        with pytest.raises(PlancError, match=r"a header of \d+ bytes does not fit in \d+"):
            writer.finish({"digest": "1" * 8000})
        header = writer.finish({"digest": "1" * 64})
    assert (tmp_path / "a").read_bytes() == header.raw + b"abcd"
    assert header.metadata == {"digest": "1" * 64}
