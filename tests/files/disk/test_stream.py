"""Claims of writing long files: the bytes and their digests are those that came, in whatever pieces
and whichever way they are written; what is read once leaves the system's cache as it was.
"""

from __future__ import annotations

import errno
import fcntl
import gc
import os
import re
import threading
import time
import tracemalloc
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planc.errors import PlancError
from planc.files.disk import stream
from planc.files.disk.atomic import replacing
from planc.files.disk.stream import Bytes, Stream, fill
from planc.files.tensors import reader
from planc.files.tensors.header import place, write_header
from planc.files.tensors.reader import open_tensors
from planc.files.tensors.writer import TensorWriter

BLOCK = 8192


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks so small that tests need several, in files that count as long."""
    monkeypatch.setattr(stream, "BLOCK", BLOCK)
    monkeypatch.setattr(stream, "LONG", 0)


def goes_directly(directory: Path) -> bool:
    """Whether files there can be written without the system's cache."""
    with replacing(directory / "probe") as descriptor:
        return stream._File(descriptor, direct=True)._direct


pieces = st.lists(st.integers(0, BLOCK) | st.sampled_from([4096, 8191, 8192]), max_size=12)


@pytest.mark.parametrize("direct", [True, False])
@given(sizes=pieces, parts=st.integers(1, 4), seed=st.integers(0, 99))
@settings(max_examples=60)
def test_what_is_filled_in_is_what_the_file_has(
    tmp_path_factory: Any, direct: bool, sizes: list[int], parts: int, seed: int
) -> None:
    content = np.random.default_rng(seed).bytes(sum(sizes))
    path, at, digests = tmp_path_factory.mktemp("files") / "a", 0, []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(stream, "BLOCK", BLOCK)
        patched.setattr(stream, "LONG", 0 if direct else 1 << 30)
        with replacing(path) as descriptor, Stream(descriptor, len(content)) as written:
            for part in range(parts):
                written.begin()
                began = at
                for size in sizes[part::parts]:
                    written.space(size)[:] = np.frombuffer(content[at : at + size], np.uint8)
                    at += size
                digests.append((written.end(), sha256(content[began:at])))
            written.finish()
    assert path.read_bytes() == content
    assert all(found.digest() == expected.digest() for found, expected in digests)


@pytest.mark.parametrize("length", [4096, 8192, 40_960, 8191, 40_961])
def test_the_start_can_be_written_over_when_the_end_is_written(
    tmp_path: Path, small: None, length: int
) -> None:
    with replacing(tmp_path / "a") as descriptor:
        with Stream(descriptor, length) as written:
            fill(written.space, bytes(length))
            written.finish()
        os.pwrite(descriptor, b"abc", 0)
    assert (tmp_path / "a").read_bytes() == b"abc" + bytes(length - 3)


def test_a_long_file_is_written_directly_where_that_can_be(tmp_path: Path, small: None) -> None:
    if not goes_directly(tmp_path):
        pytest.skip("this file system has no direct writes")
    modes, real = [], os.write

    def write(descriptor: int, content: Any) -> int:
        modes.append(_is_direct(descriptor))
        return real(descriptor, content)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "write", write)
        with replacing(tmp_path / "a") as descriptor, Stream(descriptor, 20_000) as written:
            fill(written.space, bytes(20_000))
            written.finish()
    assert modes[:-1] == [True] * (len(modes) - 1)
    assert modes[-1] is False  # 20,000 is no number of whole sectors


def _is_direct(descriptor: int) -> bool:
    return bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT)


@pytest.mark.parametrize("refused", [0, 1, 2])
def test_a_system_that_refuses_a_direct_write_gets_another(
    tmp_path: Path, small: None, refused: int
) -> None:
    real, calls = os.write, 0

    def write(descriptor: int, content: Any) -> int:
        nonlocal calls
        calls += 1
        if _is_direct(descriptor):
            if calls > refused:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            if len(content) > 4096:
                return real(descriptor, content[:4096])  # takes less than it is given
        return real(descriptor, content)

    content = np.random.default_rng(0).bytes(50_000)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "write", write)
        with replacing(tmp_path / "a") as descriptor, Stream(descriptor, len(content)) as written:
            fill(written.space, content)
            written.finish()
    assert (tmp_path / "a").read_bytes() == content


def test_a_write_that_fails_is_raised_and_nothing_goes_on(tmp_path: Path, small: None) -> None:
    real, calls = os.write, 0

    def write(descriptor: int, content: Any) -> int:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, content)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "write", write)
        with pytest.raises(OSError, match="No space"):
            _write_zeros(tmp_path / "a", 1 << 20)
    assert list(tmp_path.iterdir()) == []
    assert calls < 10  # of 128 blocks


def _write_zeros(path: Path, size: int) -> None:
    entries = place([("a", "U8", (size,))])
    with replacing(path) as descriptor, TensorWriter(descriptor, entries, {}) as writer:
        writer.add(entries[0], [bytes(size)])
        writer.finish()


def test_a_tensor_of_another_length_than_its_shape_says_is_refused(tmp_path: Path) -> None:
    entries = place([("a", "U8", (4,)), ("b", "U8", (4,))])
    for chunks in ([b"abc"], [b"abcd", b"e"], []):
        with (
            pytest.raises(PlancError, match=r"a: \d bytes came"),
            replacing(tmp_path / "a") as descriptor,
            TensorWriter(descriptor, entries, {}) as writer,
        ):
            writer.add(entries[0], chunks)
    with replacing(tmp_path / "a") as descriptor, TensorWriter(descriptor, entries, {}) as writer:
        with pytest.raises(PlancError, match="b: not the tensor that follows"):
            writer.add(entries[1], [b"abcd"])
        writer.add(entries[0], [b"abcd"])
        with pytest.raises(PlancError, match="b: this tensor was never written"):
            writer.digests()


@pytest.mark.parametrize("was_there", [True, False])
def test_what_is_read_once_leaves_the_cache_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, was_there: bool
) -> None:
    if not hasattr(os, "RWF_NOWAIT"):
        pytest.skip("this system does not tell what is in its cache")
    size, path = 8 << 20, tmp_path / "a.safetensors"
    entries = place([("a", "U8", (size,))])
    content = write_header(entries, {}) + np.random.default_rng(0).bytes(size)
    for name in ("a.safetensors", "other"):
        with replacing(tmp_path / name) as descriptor:
            os.write(descriptor, content)
        _forget(tmp_path / name)
    if _places_in_cache(tmp_path / "other", size):
        pytest.skip("this file system does not tell what is in the cache")
    if was_there:
        path.read_bytes()
    monkeypatch.setattr(reader, "_LONG", 0)
    with open_tensors(path, once=True) as file:
        read = sum(len(chunk) for chunk in file.chunks(entries[0], 1 << 20))
    assert read == size
    assert _places_in_cache(path, size) == (8 if was_there else 0)


def _forget(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def _places_in_cache(path: Path, size: int) -> int:
    """At how many of eight places a file is in the system's cache."""
    descriptor = os.open(path, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
    found = sum(reader._is_here(descriptor, at) for at in range(size // 16, size, size // 8))
    os.close(descriptor)
    return found


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EPERM])
def test_a_file_system_without_direct_writes_gets_the_others(
    tmp_path: Path, small: None, number: int
) -> None:
    content, real = np.random.default_rng(0).bytes(20_000), fcntl.fcntl

    def refused(descriptor: int, command: int, flags: int = 0) -> int:
        if command == fcntl.F_SETFL and flags & os.O_DIRECT:
            raise OSError(number, os.strerror(number))
        return real(descriptor, command, flags)

    def write() -> None:
        with replacing(tmp_path / "a") as descriptor, Stream(descriptor, len(content)) as written:
            fill(written.space, content)
            written.finish()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(fcntl, "fcntl", refused)
        if number == errno.EPERM:  # says nothing about what the file system can
            with pytest.raises(PermissionError):
                write()
            assert list(tmp_path.iterdir()) == []
        else:
            write()
            assert (tmp_path / "a").read_bytes() == content


class Flags:
    """A system's ``fcntl`` whose file systems all write directly, in sectors."""

    F_GETFL, F_SETFL = fcntl.F_GETFL, fcntl.F_SETFL

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.flags, self.set = os.O_RDWR, list[int]()
        monkeypatch.setattr(stream, "fcntl", self)

    def fcntl(self, descriptor: int, command: int, flags: int = 0) -> int:
        if command == self.F_SETFL:
            self.flags = flags
            self.set.append(flags)
        return self.flags


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    found = os.open(tmp_path / "a", os.O_RDWR | os.O_CREAT)
    yield found
    os.close(found)


DIRECT, PLAIN = os.O_RDWR | os.O_DIRECT, os.O_RDWR


@pytest.mark.parametrize(("length", "long"), [(64 << 20, True), ((64 << 20) - 1, False)])
def test_a_file_is_long_from_64_mib_on(
    descriptor: int, monkeypatch: pytest.MonkeyPatch, length: int, long: bool
) -> None:
    system = Flags(monkeypatch)
    with Stream(descriptor, length) as written:
        fill(written.space, bytes(5000))
        assert system.set == ([DIRECT] if long else [])
        written.finish()
    assert system.set == ([DIRECT, PLAIN] if long else [])
    assert os.pread(descriptor, 9000, 0) == bytes(5000)


def test_a_system_without_direct_writes_is_not_asked_for_them(
    descriptor: int, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "fcntl", None)
    monkeypatch.setattr(stream, "_CAN_DIRECTLY", False)
    with Stream(descriptor, 20_000) as written:
        fill(written.space, bytes(20_000))
        written.finish()
    assert os.pread(descriptor, 30_000, 0) == bytes(20_000)


@pytest.mark.parametrize(("number", "again"), [(errno.EINVAL, 1), (errno.ENOSPC, 0)])
@pytest.mark.parametrize("direct", [True, False])
def test_only_what_a_direct_write_is_refused_for_is_tried_again(
    descriptor: int, monkeypatch: pytest.MonkeyPatch, number: int, again: int, direct: bool
) -> None:
    system, calls, real = Flags(monkeypatch), list[int](), os.write

    def write(descriptor: int, content: Any) -> int:
        calls.append(system.flags)
        if len(calls) == 1:
            raise OSError(number, os.strerror(number))
        return real(descriptor, content)

    monkeypatch.setattr(os, "write", write)
    file = stream._File(descriptor, direct)
    content = np.arange(100, dtype=np.uint8)
    if direct and again:
        file.write(content)
        assert calls == [DIRECT, PLAIN]
        assert os.pread(descriptor, 200, 0) == bytes(content)
    else:
        with pytest.raises(OSError, match=re.escape(os.strerror(number))):
            file.write(content)
        assert calls == [DIRECT if direct else PLAIN]


def test_a_system_that_keeps_on_writing_directly_is_an_error(
    descriptor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = Flags(monkeypatch)
    file, real = stream._File(descriptor, direct=True), system.fcntl

    def fcntl(descriptor: int, command: int, flags: int = 0) -> int:
        if command == system.F_SETFL:
            raise OSError(errno.EINVAL, "flags stay")
        return real(descriptor, command)

    def write(*_: Any) -> int:
        raise OSError(errno.EINVAL, "not directly")

    monkeypatch.setattr(system, "fcntl", fcntl)
    monkeypatch.setattr(os, "write", write)
    with pytest.raises(OSError, match="flags stay"):
        file.write(np.zeros(100, dtype=np.uint8))


def test_as_much_is_asked_for_at_once_as_fits() -> None:
    asked: list[int] = []

    def space(size: int) -> Bytes:
        asked.append(size)
        return np.empty(size, dtype=np.uint8)

    fill(space, bytes((20 << 20) + 3))
    assert asked == [8 << 20, 8 << 20, (4 << 20) + 3]


def test_a_block_is_filled_to_its_end_before_it_is_written(
    descriptor: int, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, real = list[int](), os.write
    monkeypatch.setattr(os, "write", lambda d, part: sizes.append(len(part)) or real(d, part))
    with Stream(descriptor, 1 << 20) as written:
        for size in (4096, BLOCK, 4096, BLOCK, 4096, 1):
            written.space(size)[:] = 7
        written.finish()
    assert sizes == [BLOCK + 4096, BLOCK + 4096, 4096, 1]


def test_three_blocks_of_memory_take_turns(descriptor: int, small: None) -> None:
    seen = []
    with Stream(descriptor, 1 << 20) as written:
        for number in range(9):
            space = written.space(BLOCK)
            space[:] = number
            seen.append(space.ctypes.data)
        written.finish()
    assert len(set(seen)) == 3
    assert seen == seen[:3] * 3
    for number in range(9):
        assert os.pread(descriptor, BLOCK, number * BLOCK) == bytes([number]) * BLOCK


def test_a_short_file_takes_little_memory(descriptor: int) -> None:
    tracemalloc.start()
    with Stream(descriptor, 100) as written:
        fill(written.space, bytes(100))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        written.finish()
    assert peak < 64 << 10


def test_finishing_twice_writes_once(descriptor: int) -> None:
    with Stream(descriptor, 100) as written:
        for _ in range(2):
            fill(written.space, bytes(50))
            written.finish()
            written.finish()
    assert os.pread(descriptor, 200, 0) == bytes(100)


def test_a_digest_goes_on_over_an_end(descriptor: int) -> None:
    with Stream(descriptor, 100) as written:
        fill(written.space, b"before")
        written.begin()
        fill(written.space, b"abc")
        written.finish()
        fill(written.space, b"defghijk")
        digest = written.end()
        written.finish()
    assert digest.digest() == sha256(b"abcdefghijk").digest()


def threads() -> set[str]:
    names = (thread.name.rpartition("_")[0] for thread in threading.enumerate())
    return {name for name in names if name.startswith("planc")}


def test_what_is_not_written_when_a_body_fails_is_dropped(
    descriptor: int, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, written_parts = threading.Event(), threading.Event(), list[int]()

    def write(descriptor: int, part: Any) -> int:
        begun.set()
        go_on.wait(20)
        time.sleep(0.05)  # until the end has been asked for
        written_parts.append(len(part))
        return len(part)

    def fail() -> None:
        with Stream(descriptor, 1 << 20) as written:
            written.begin()
            for _ in range(3):
                written.space(BLOCK)
            assert begun.wait(20)
            assert threads() == {"planc-hash", "planc-write"}
            go_on.set()
            raise KeyError

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(KeyError):
        fail()
    assert threads() == set()
    assert written_parts == [BLOCK]


def test_what_is_done_is_let_go() -> None:
    class Result:
        pass

    results: list[weakref.ref[Result]] = []

    def call(part: Bytes) -> Any:
        result = Result()
        results.append(weakref.ref(result))
        return result

    block = stream._Block(10)
    with ThreadPoolExecutor(1) as thread:
        block.submit(thread, call, block.room)
        block.wait()
    gc.collect()
    assert [result() for result in results] == [None]


def test_memory_of_a_block_begins_at_a_sector() -> None:
    for size in (1, 4096, 10_000):
        block = stream._Block(size)
        assert block.room.ctypes.data % 4096 == 0
        assert block.room.nbytes == size
