"""Claims of reading files: every range as it lies in the file, whatever the system gives at once;
what is read once leaves the system's cache as it was; descriptors are closed.
"""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from planc.errors import LimitExceeded, TruncatedFile
from planc.files.disk.limits import Limits
from planc.files.tensors import reader
from planc.files.tensors.reader import OpenFile, is_directory, open_tensors, read_header

CONTENT = bytes(range(200))


def opened() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def zeros(size: int) -> Any:
    return np.zeros(size, dtype=np.uint8)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "a").write_bytes(CONTENT)
    return tmp_path / "a"


@pytest.fixture
def tensors(tmp_path: Path) -> Path:
    made = {"w": np.arange(30, dtype=np.int16), "b": np.arange(5, dtype=np.int8)}
    save_file(made, tmp_path / "a.safetensors", {"format": "np"})
    return tmp_path / "a.safetensors"


@pytest.mark.parametrize("most", [1, 7, 1000])
def test_any_range_is_read_however_little_comes_at_once(
    path: Path, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(io.FileIO):
        def readinto(self, buffer: Any) -> int:
            return super().readinto(memoryview(buffer)[:most])

    monkeypatch.setattr(reader, "FileIO", Slow)
    with path.open("rb") as file:
        read = OpenFile(path, file.fileno(), once=False).read
        for at, size in ((3, 50), (0, 200), (199, 1), (9, 0)):
            into = zeros(size)
            read(at, into)
            assert bytes(into) == CONTENT[at : at + size]
        with pytest.raises(
            TruncatedFile, match=rf"{path}: byte 200: the file ended while it was read; copy it"
        ):
            read(150, zeros(51))


def test_the_tensors_of_a_file_are_read_in_ranges_and_in_pieces(tensors: Path) -> None:
    with open_tensors(tensors) as file:
        assert file.path == tensors
        assert file.header == read_header(tensors)
        w, b = (next(e for e in file.header.entries if e.name == name) for name in "wb")
        into = zeros(6)
        file.read_into(w, 4, into)
        assert into.view(np.int16).tolist() == [2, 3, 4]
        assert [bytes(chunk) for chunk in file.chunks(b, 2)] == [b"\0\1", b"\2\3", b"\4"]
        [whole] = file.chunks(b, 99)
        assert (whole.tolist(), _memory(whole).nbytes) == ([0, 1, 2, 3, 4], 5)


def test_pieces_share_memory_of_the_size_that_was_asked_for(tensors: Path) -> None:
    with open_tensors(tensors) as file:
        found = [_memory(chunk) for chunk in file.chunks(_w(file), 8)]
    assert {id(memory) for memory in found} == {id(found[0])}
    assert found[0].nbytes == 8


def _memory(chunk: reader.Bytes) -> Any:
    return chunk.base


def _w(file: reader.TensorFile) -> Any:
    return next(entry for entry in file.header.entries if entry.name == "w")


def test_files_are_closed_whatever_happens(tensors: Path) -> None:
    before = opened()
    with open_tensors(tensors):
        assert opened() == before + 1
    assert opened() == before
    with pytest.raises(KeyError), open_tensors(tensors):
        raise KeyError
    with pytest.raises(LimitExceeded):
        read_header(tensors, Limits(tensors=1))
    assert opened() == before


def test_a_header_that_is_refused_is_named_with_its_file(tensors: Path) -> None:
    with pytest.raises(LimitExceeded, match=f"^{tensors}: .*2 exceeds the limit of 1 tensors"):
        read_header(tensors, Limits(tensors=1))
    length = int.from_bytes(tensors.read_bytes()[:8], "little")
    assert read_header(tensors, Limits(header=length)).entries
    with (
        pytest.raises(LimitExceeded, match=f"^{tensors}: "),
        open_tensors(tensors, Limits(header=length - 1)),
    ):
        pass
    with tensors.open("r+b") as file:
        file.truncate(20)
    with pytest.raises(TruncatedFile, match=f"^{tensors}: "):
        read_header(tensors)


def test_the_tensors_of_a_large_header_are_read(tmp_path: Path) -> None:
    names = [f"tensor.{i}" * 10 for i in range(900)]  # more than is read at once without asking
    save_file({name: np.full(1, i % 100, np.int8) for i, name in enumerate(names)}, tmp_path / "a")
    with open_tensors(tmp_path / "a") as file:
        found = {e.name: next(file.chunks(e, 1)).tolist() for e in file.header.entries}
    assert found == {name: [i % 100] for i, name in enumerate(names)}


# what is in the system's cache


class Advice:
    """What the system is told about its cache."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cached: bool = False) -> None:
        self.given: list[tuple[int, int, int]] = []
        monkeypatch.setattr(os, "posix_fadvise", lambda _, *advice: self.given.append(advice))

        def is_cached(descriptor: int, size: int) -> bool:
            assert os.fstat(descriptor).st_size == size
            return cached

        monkeypatch.setattr(reader, "_is_cached", is_cached)


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("once", [True, False])
@pytest.mark.parametrize("more", [0, -1])
def test_a_long_file_that_is_read_once_does_not_stay_in_the_cache(
    path: Path, monkeypatch: pytest.MonkeyPatch, once: bool, cached: bool, more: int
) -> None:
    advice = Advice(monkeypatch, cached)
    os.truncate(path, (64 << 20) + more)
    with path.open("rb") as file:
        long = OpenFile(path, file.fileno(), once)
        for at in (0, 30, 100):
            long.read(at, zeros(50))
    expected = [(0, 50), (0, 80), (50, 100)] if once and not cached and more == 0 else []
    assert advice.given == [(*span, os.POSIX_FADV_DONTNEED) for span in expected]


@pytest.mark.parametrize(("options", "times"), [({}, 0), ({"once": False}, 0), ({"once": True}, 1)])
def test_a_file_is_read_once_only_where_that_is_said(
    tensors: Path, monkeypatch: pytest.MonkeyPatch, options: Any, times: int
) -> None:
    monkeypatch.setattr(reader, "_LONG", 0)
    advice = Advice(monkeypatch)
    with open_tensors(tensors, **options) as file:
        assert len(list(file.chunks(_w(file), 100))) == 1
    assert len(advice.given) == times


def test_sixteen_places_all_over_a_file_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "RWF_NOWAIT", 8, raising=False)
    advice: list[tuple[int, ...]] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda *given: advice.append(given))
    looked: list[int] = []
    monkeypatch.setattr(reader, "_is_here", lambda _, at: looked.append(at))
    assert not reader._is_cached(7, 1600)
    assert [at // 100 for at in looked] == list(range(16))
    assert advice == [(7, 0, 0, os.POSIX_FADV_RANDOM), (7, 0, 0, os.POSIX_FADV_NORMAL)]
    second = looked.copy()
    looked.clear()
    reader._is_cached(7, 1600)
    assert looked != second  # a place that was looked at is in the cache from then on


@pytest.mark.parametrize("here", [0, 15])
def test_a_file_of_which_a_part_is_in_the_cache_is_cached(
    monkeypatch: pytest.MonkeyPatch, here: int
) -> None:
    monkeypatch.setattr(os, "RWF_NOWAIT", 8, raising=False)
    monkeypatch.setattr(os, "posix_fadvise", lambda *_: None)
    monkeypatch.setattr(reader, "_is_here", lambda _, at: at // 100 == here)
    assert reader._is_cached(7, 1600)


@pytest.mark.parametrize(("number", "here"), [(None, True), (errno.EAGAIN, False)])
def test_one_byte_is_read_if_that_needs_no_disk(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int | None, here: bool
) -> None:
    asked: list[Any] = []

    def preadv(descriptor: int, buffers: list[Any], at: int, flags: int) -> int:
        asked.append((descriptor, [len(buffer) for buffer in buffers], at, flags))
        if number is not None:
            raise OSError(number, os.strerror(number))
        return 1

    monkeypatch.setattr(os, "RWF_NOWAIT", 8, raising=False)
    monkeypatch.setattr(os, "preadv", preadv)
    assert reader._is_here(5, 40) is here
    assert asked == [(5, [1], 40, 8)]


def test_a_path_leads_to_a_directory_a_file_or_nowhere(path: Path) -> None:
    assert is_directory(path.parent)
    assert not is_directory(path)
    (path.parent / "link").symlink_to(path.parent)
    assert is_directory(path.parent / "link")
    with pytest.raises(FileNotFoundError):
        is_directory(path.with_name("no"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RWF_NOWAIT", None),  # Windows, macOS
        ("preadv", errno.ENOTSUP),  # a file system that cannot tell
        ("preadv", errno.EAGAIN),  # not in the cache: no reason to believe otherwise
    ],
)
def test_what_the_system_does_not_tell_counts_as_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: Any
) -> None:
    def fail(*_: Any) -> int:
        raise OSError(value, os.strerror(value))

    (tmp_path / "a").write_bytes(bytes(9000))
    if value is None:
        monkeypatch.delattr(os, name, raising=False)
    else:
        monkeypatch.setattr(os, "RWF_NOWAIT", 8, raising=False)
        monkeypatch.setattr(os, name, fail)
    descriptor = os.open(tmp_path / "a", os.O_RDONLY)
    assert reader._is_cached(descriptor, 9000) is (value != errno.EAGAIN)
    os.close(descriptor)


def test_one_file_under_two_names_is_the_same(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "b").touch()
    (tmp_path / "link").symlink_to("a")
    same = {n: reader.is_same_file(tmp_path / "a", tmp_path / n) for n in ("a", "b", "link", "no")}
    assert same == {"a": True, "b": False, "link": True, "no": False}
