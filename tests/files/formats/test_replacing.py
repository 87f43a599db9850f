"""Files on other systems, and what a process that died has left."""

from __future__ import annotations

import errno
import importlib.util
import os
import socket
import stat
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType

import pytest

from planc.errors import LimitExceeded, UnsafePath
from planc.files.disk import atomic as files
from planc.files.disk import beside
from planc.files.disk.atomic import read_file, replacing, write_file
from planc.files.disk.beside import temporary_name
from planc.files.formats.envelope import kind_of, seal


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def imported_again() -> ModuleType:
    """The module as it is imported where the system is another one."""
    spec = files.__spec__
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_without_locks_files_are_replaced_and_nothing_is_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beside, "fcntl", None)
    left = temporary_name(tmp_path / "a")
    left.write_bytes(b"half, or another process's")
    write_file(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert left.exists()
    with beside.locked(tmp_path / "a"), beside.locked(tmp_path / "a"):
        pass


@pytest.mark.parametrize("call", ["write", "fsync", "open"])
def test_a_full_disk_names_the_file(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **_: object) -> None:
        if call != "open" or int(str(arguments[1])) & os.O_CREAT:
            name = arguments[0] if call == "open" else None
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
        raise AssertionError("nothing is read")

    with monkeypatch.context() as patched:
        patched.setattr(os, call, full)
        with pytest.raises(OSError, match="No space left on device") as caught:
            write_file(tmp_path / "a", b"new")
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_cannot_be_read_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    (tmp_path / "a").write_bytes(b"x")
    with monkeypatch.context() as patched:
        patched.setattr(os, "read", broken)
        with pytest.raises(OSError, match=r"a'$") as caught:
            read_file(tmp_path / "a", 10)
    assert caught.value.filename == str(tmp_path / "a")


def test_an_error_of_the_body_is_raised_where_the_new_file_is_gone(tmp_path: Path) -> None:
    def swept() -> None:
        with replacing(tmp_path / "a"):
            for path in tmp_path.iterdir():
                path.unlink()
            raise ValueError("of the body")

    with pytest.raises(ValueError, match="of the body"):
        swept()
    assert list(tmp_path.iterdir()) == []


def test_where_a_mode_cannot_be_set_a_file_is_replaced_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"old")
    monkeypatch.delattr(os, "fchmod")
    write_file(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"


@pytest.mark.parametrize(
    ("mode", "value", "reading"), [("O_NONBLOCK", None, 0), ("O_BINARY", os.O_NOCTTY, os.O_NOCTTY)]
)
def test_files_are_opened_in_the_modes_that_the_system_has(
    mode: str, value: int | None, reading: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []
    real = os.open

    def noting(path: Path, flags: int, mode: int = 0o777) -> int:
        opened.append(flags)
        return real(path, flags, mode)

    with monkeypatch.context() as patched:
        if value is None:
            patched.delattr(os, mode)
        else:
            patched.delattr(os, "O_NONBLOCK")
            patched.setattr(os, mode, value, raising=False)
        patched.setattr(os, "open", noting)
        elsewhere = imported_again()
        elsewhere.write_file(tmp_path / "a", b"new")
        assert elsewhere.read_file(tmp_path / "a", 3) == b"new"
    writing = os.O_WRONLY | os.O_CREAT | os.O_EXCL | reading
    assert opened == [writing, os.O_RDONLY, os.O_RDONLY | reading]  # the second a directory


def test_a_directory_is_not_flushed_where_the_system_cannot(
    tmp_path: Path, unopened_directories: AbstractContextManager[None]
) -> None:
    with unopened_directories:
        files.sync_directory(tmp_path)


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.EIO])
def test_a_file_system_may_not_flush_directories(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def refusing(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, os.strerror(code))
        real(descriptor)

    before = open_files()
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", refusing)
        if code == errno.EIO:
            with pytest.raises(OSError, match=os.strerror(code)):
                write_file(tmp_path / "a", b"new")
        else:
            write_file(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert open_files() == before


def test_a_socket_is_neither_read_nor_replaced() -> None:
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as bound:
        path = Path(folder) / "s"
        bound.bind(str(path))
        with pytest.raises(UnsafePath, match="a socket"):
            write_file(path, b"")
        with pytest.raises(OSError, match="No such device"):
            read_file(path, 10)


def test_descriptors_are_closed_and_not_inherited(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"xyz")
    before = open_files()
    for _ in range(3):
        read_file(tmp_path / "a", 3)
        with pytest.raises(LimitExceeded, match=r"limits=Limits\(file=3\)"):
            read_file(tmp_path / "a", 2)
        with pytest.raises(UnsafePath):
            read_file(tmp_path, 2)
        write_file(tmp_path / "b", b"1")
    assert open_files() == before
    descriptor = files.open_regular(tmp_path / "a")
    with replacing(tmp_path / "b") as other:
        assert not os.get_inheritable(descriptor)
        assert not os.get_inheritable(other)
        os.write(other, b"2")
    os.close(descriptor)


def test_a_file_of_unknown_size_is_read_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(bytes(range(256)) * 40)
    real = os.read
    asked: list[int] = []

    def short(descriptor: int, length: int) -> bytes:
        asked.append(length)
        return real(descriptor, min(length, 999))

    with monkeypatch.context() as patched:
        patched.setattr(os, "read", short)
        assert read_file(tmp_path / "a", 1 << 40) == bytes(range(256)) * 40
    assert asked[:2] == [10_241, 10_241 - 999]
    assert max(asked) == 10_241
    assert min(asked) == 4096


@pytest.mark.parametrize("size", [(1 << 32) - 1, 1 << 32])
def test_a_body_of_four_gibibytes_fits_no_envelope(size: int) -> None:
    class Large(bytes):
        def __len__(self) -> int:
            return size

    if size < 1 << 32:
        assert seal(b"planc/plan", Large())[47:] == b"\xc6\xff\xff\xff\xff"
        return
    with pytest.raises(
        LimitExceeded, match=f"a body of {size} bytes, the format ends below {size}"
    ):
        seal(b"planc/plan", Large())


@pytest.mark.parametrize("length", [0, 1, 255, 256, 65_535, 65_536, 70_000])
def test_any_msgpack_library_opens_an_envelope(length: int) -> None:
    from hashlib import sha256

    import msgpack

    sealed = seal(b"planc/plan", bytes(length))
    kind, version, digest, body = msgpack.unpackb(sealed)
    assert msgpack.packb([kind, version, digest, body]) == sealed
    assert (kind, version, body) == ("planc/plan", 2, bytes(length))
    assert digest == sha256(sealed[:13] + body).digest()


def test_a_kind_is_known_by_its_first_bytes() -> None:
    for kind in (b"planc/plan", b"planc/mask", b"planc/ckpt", b"planc/part", b"planc/time"):
        assert kind_of(seal(kind, b"")[:12]) == kind_of(seal(kind, b"body")) == kind
    for other in (b"", b"\x94\xaaplanc/what", b"\x95\xaaplanc/plan", b"\x94\xabplanc/plan"):
        assert kind_of(other) is None
