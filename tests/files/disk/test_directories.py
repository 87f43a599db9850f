"""A directory appears whole or not at all, and what an interrupted run left is put right."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from planc.errors import PlancError
from planc.files.disk import beside as module
from planc.files.disk.beside import beside, temporary_name
from planc.files.disk.directories import ABOUT, PARTIAL, check_free, new_directory, recover, settle


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def left(target: Path, *, new: str = "", old: str = "") -> Path:
    """The mark of a process that died, with what it had made and what it had moved aside."""
    mark = temporary_name(target, ".planc-mark")
    mark.touch()
    for suffix, text in (("new", new), ("old", old)):
        if text:
            filled(mark.with_suffix(f".planc-{suffix}"), text)
    return mark


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


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
        PlancError, match="there exists: name a new directory, or replace it with --overwrite"
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


@pytest.mark.parametrize("old", ["", "old"])
def test_a_run_that_died_leaves_nothing_for_the_next_one(tmp_path: Path, old: str) -> None:
    left(tmp_path / "new", new="half", old=old)
    left(tmp_path / "new")
    with new_directory(tmp_path / "new", overwrite=True) as directory:
        assert len(list(tmp_path.iterdir())) == (3 if old else 2)  # its own, and its mark
        (directory / "a").write_text("new")
        recover(tmp_path / "new")  # as another run begins
        assert directory.exists()
    assert content(tmp_path / "new") == {"a": "new"}
    assert names(tmp_path) == ["new"]


def test_a_directory_without_a_mark_is_nobodys_leftover(tmp_path: Path) -> None:
    target = tmp_path / "new"
    mark = left(target, new="another's", old="another's")
    mark.unlink()
    for name in (".new.planc-old", ".new.planc-partial"):
        filled(tmp_path / name, "another's")
    before = names(tmp_path)
    for text in ("one", "two"):
        write(target, text, overwrite=True)
    assert names(tmp_path) == sorted([*before, "new"])


def test_a_mark_is_a_file_of_its_own(tmp_path: Path) -> None:
    target = tmp_path / "new"
    mark = left(target, new="another's")
    mark.unlink()
    (tmp_path / "elsewhere").touch()
    mark.symlink_to(tmp_path / "elsewhere")
    write(target, "new")
    assert mark.with_suffix(".planc-new").exists()
    assert mark.is_symlink()


@pytest.mark.parametrize("there", [False, True])
def test_an_interrupted_exchange_is_put_right(there: bool, tmp_path: Path) -> None:
    """Between the two renames the old directory has another name."""
    target = tmp_path / "there"
    left(target, old="old")
    if there:
        filled(target, "new")
    recover(target)
    assert content(target) == {"a": "new" if there else "old"}
    assert list(tmp_path.iterdir()) == [target]
    recover(target)
    assert list(tmp_path.iterdir()) == [target]
    recover(tmp_path / "nothing")


@pytest.mark.parametrize("there", [False, True])
def test_an_exchange_of_a_run_over_several_is_put_right(there: bool, tmp_path: Path) -> None:
    target = tmp_path / "there"
    about = beside(target, ABOUT)
    about.touch()
    filled(about.with_suffix(".planc-old"), "old")
    if there:
        filled(target, "new")
    recover(target)
    assert content(target) == {"a": "new" if there else "old"}
    assert list(tmp_path.iterdir()) == [target]


def test_what_a_run_over_several_goes_on_with_stays(tmp_path: Path) -> None:
    target = tmp_path / "there"
    beside(target, ABOUT).touch()
    filled(beside(target, PARTIAL), "half")
    before = names(tmp_path)
    recover(target)
    assert names(tmp_path) == before


def test_a_new_run_first_puts_the_last_one_right(tmp_path: Path) -> None:
    target = tmp_path / "there"
    left(target, old="old")
    with pytest.raises(PlancError, match="exists: name a new directory"):
        write(target, "new")
    assert content(target) == {"a": "old"}


@pytest.mark.parametrize("length", [49, 50, 200, 255])
def test_names_of_old_directories_are_short(length: int, tmp_path: Path) -> None:
    target = filled(tmp_path / ("x" * length), "old")
    seen: list[str] = []
    real = os.rename

    def noted(source: Any, to: Any) -> None:
        seen.append(Path(to).name)
        real(source, to)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "rename", noted)
        write(target, "new", overwrite=True)
    assert seen[1:] == [target.name]
    assert len(seen[0]) == 1 + min(length, 50) + 1 + 16 + len(".planc-old")


def test_a_directory_that_appears_meanwhile_is_not_replaced_either(tmp_path: Path) -> None:
    target = tmp_path / "new"

    def run() -> None:
        with new_directory(target) as directory:
            (directory / "a").write_text("mine")
            filled(target, "another's")

    with pytest.raises(PlancError, match="new exists"):
        run()
    assert content(target) == {"a": "another's"}
    assert names(tmp_path) == ["new"]


def test_a_rename_that_fails_puts_the_old_one_back(tmp_path: Path) -> None:
    target = filled(tmp_path / "there", "old")
    real = os.rename

    def refusing(source: Any, to: Any) -> None:
        if Path(source).name.endswith(".planc-new"):
            raise OSError(5, "Input/output error")
        real(source, to)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "rename", refusing)
        with pytest.raises(OSError, match="Input/output"):
            write(target, "new", overwrite=True)
    assert content(target) == {"a": "old"}
    assert names(tmp_path) == ["there"]


def test_a_mark_that_another_run_took_for_a_leftover_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [False, True]
    real = module.hold
    monkeypatch.setattr(module, "hold", lambda fd: real(fd) and answers.pop(0))
    write(tmp_path / "new", "new")
    assert content(tmp_path / "new") == {"a": "new"}
    assert names(tmp_path) == ["new"]


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
        settle(filled(tmp_path / "made", "new"), target, tmp_path / "aside")
    assert calls == ["directory", "aside", "t", "parent"]
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
