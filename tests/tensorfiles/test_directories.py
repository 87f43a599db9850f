"""A directory appears whole or not at all, and what an interrupted run left is put right."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from planc.codec.files import sweep, temporary_name
from planc.errors import PlancError
from planc.tensorfiles import directories
from planc.tensorfiles.directories import check_free, new_directory, recover, settle
from tests.systems import without_directories


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def old(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.planc-old")


def filled(folder: Path, text: str) -> Path:
    folder.mkdir()
    (folder / "a").write_text(text)
    return folder


def write(target: Path, text: str, overwrite: bool = False) -> None:
    with new_directory(target, overwrite) as directory:
        assert directory.parent == target.parent
        (directory / "a").write_text(text)
        assert not target.exists() or content(target) != {"a": text}


@pytest.mark.parametrize("there", [False, True])
def test_a_new_directory_appears_when_it_is_done(there: bool, tmp_path: Path) -> None:
    target = tmp_path / "new"
    if there:
        target.mkdir()
    write(target, "new")
    assert content(target) == {"a": "new"}
    assert list(tmp_path.iterdir()) == [target]


def test_what_is_there_is_replaced_only_on_request(tmp_path: Path) -> None:
    target = filled(tmp_path / "there", "old")
    with pytest.raises(
        PlancError, match="there exists: name a new directory, or allow to overwrite"
    ):
        write(target, "new")
    with pytest.raises(PlancError, match="there exists"), new_directory(target):
        pass
    assert content(target) == {"a": "old"}
    write(target, "new", overwrite=True)
    assert content(target) == {"a": "new"}
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_is_never_replaced_by_a_directory(overwrite: bool, tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("x")
    with pytest.raises(PlancError, match="file exists and is no directory: name another"):
        write(target, "new", overwrite)
    with pytest.raises(PlancError, match="no directory"):
        check_free(target, overwrite)
    assert target.read_text() == "x"


def test_a_link_to_a_directory_stays_one(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with new_directory(tmp_path / "link") as directory:
        (directory / "a").write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert content(tmp_path / "real") == {"a": "new"}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_leaves_what_was_there(error: type[BaseException], tmp_path: Path) -> None:
    target = filled(tmp_path / "there", "old")

    def fail() -> None:
        with new_directory(target, overwrite=True) as directory:
            (directory / "a").write_text("half")
            raise error

    before = open_files()
    with pytest.raises(error):
        fail()
    assert content(target) == {"a": "old"}
    assert list(tmp_path.iterdir()) == [target]
    assert open_files() == before


def test_a_run_that_died_leaves_nothing_for_the_next_one(tmp_path: Path) -> None:
    left = filled(temporary_name(tmp_path / "new"), "half")
    with new_directory(tmp_path / "new") as directory:
        assert not left.exists()
        (directory / "a").write_text("new")
        sweep(tmp_path / "new")  # as another run begins
        assert directory.exists()
    assert content(tmp_path / "new") == {"a": "new"}


@pytest.mark.parametrize("there", [False, True])
def test_an_interrupted_exchange_is_put_right(there: bool, tmp_path: Path) -> None:
    """Between the two renames the old directory has another name."""
    target = tmp_path / "there"
    filled(old(target), "old")
    if there:
        filled(target, "new")
    recover(target)
    assert content(target) == {"a": "new" if there else "old"}
    assert list(tmp_path.iterdir()) == [target]
    recover(target)
    assert list(tmp_path.iterdir()) == [target]
    recover(tmp_path / "nothing")


def test_a_new_run_first_puts_the_last_one_right(tmp_path: Path) -> None:
    target = tmp_path / "there"
    filled(old(target), "old")
    with pytest.raises(PlancError, match="exists: name a new directory"):
        write(target, "new")
    assert content(target) == {"a": "old"}


def test_names_of_old_directories_are_short(tmp_path: Path) -> None:
    target = filled(tmp_path / ("x" * 200), "old")
    seen: list[str] = []
    real = os.rename

    def noted(source: Any, to: Any) -> None:
        seen.append(Path(to).name)
        real(source, to)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "rename", noted)
        write(target, "new", overwrite=True)
    assert seen == [f".{'x' * 50}.planc-old", "x" * 200]


def test_names_are_flushed_before_and_after(tmp_path: Path) -> None:
    calls: list[str] = []
    real_rename, real_fsync = os.rename, os.fsync

    def fsync(descriptor: int) -> None:
        status = os.fstat(descriptor)
        assert stat.S_ISDIR(status.st_mode)
        parent = tmp_path.stat()
        calls.append("parent" if status.st_ino == parent.st_ino else "directory")
        real_fsync(descriptor)

    def rename(source: Any, to: Any) -> None:
        calls.append(f"{Path(to).name}")
        real_rename(source, to)

    target = filled(tmp_path / "t", "old")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "rename", rename)
        patched.setattr(os, "fsync", fsync)
        settle(filled(tmp_path / "made", "new"), target)
    assert calls == ["directory", ".t.planc-old", "t", "parent"]
    assert content(target) == {"a": "new"}
    assert list(tmp_path.iterdir()) == [target]


def test_directories_are_not_held_where_they_cannot_be_opened(tmp_path: Path) -> None:
    with without_directories(), directories._held(tmp_path):
        pass


def test_old_directories_with_long_names_are_put_back(tmp_path: Path) -> None:
    target = tmp_path / ("x" * 200)
    filled(tmp_path / f".{'x' * 50}.planc-old", "old")
    recover(target)
    assert content(target) == {"a": "old"}
    assert list(tmp_path.iterdir()) == [target]


def test_what_an_exchange_left_does_not_hinder_the_next(tmp_path: Path) -> None:
    target = filled(tmp_path / "there", "there")
    filled(old(target), "old")
    settle(filled(tmp_path / "made", "new"), target)
    assert content(target) == {"a": "new"}
    assert list(tmp_path.iterdir()) == [target]


def test_the_error_of_a_body_that_removed_its_directory_is_raised(tmp_path: Path) -> None:
    def fail() -> None:
        with new_directory(tmp_path / "new") as directory:
            directory.rmdir()
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fail()
    assert list(tmp_path.iterdir()) == []
