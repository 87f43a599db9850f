"""Claims of directories that fill up over several runs: what one has finished the next goes on
with, if it is about the same; nobody else writes there meanwhile.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from planc.errors import PlancError
from planc.files.disk import staging as module
from planc.files.disk.staging import _locked, joining, staging
from tests.support.systems import without_directories


class Interrupted(BaseException):
    """What a run is stopped with."""


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def about(target: Path) -> Path:
    """The file that says what the run is about."""
    return target.with_name(f".{target.name}.planc-about")


def interrupted(target: Path, identity: str = "one", **files: str) -> Path:
    """The directory that a run leaves which writes files and is stopped."""

    def run() -> None:
        with staging(target, identity, False) as directory:
            for name, text in files.items():
                (directory / name).write_text(text)
            raise Interrupted

    with pytest.raises(Interrupted):
        run()
    return target.with_name(f".{target.name[:50]}.planc-partial")


def test_a_directory_takes_its_place_when_it_is_full(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with staging(target, "one", False) as directory:
        assert directory == tmp_path / ".out.planc-partial"
        assert not target.exists()
        (directory / "a").write_text("new")
    assert content(target) == {"a": "new"}
    assert names(tmp_path) == ["out"]


def test_names_of_unfinished_directories_are_short(tmp_path: Path) -> None:
    target = tmp_path / ("x" * 240)
    with staging(target, "one", False) as directory:
        assert directory.name.startswith(f".{'x' * 33}-")
        assert len(directory.name) == 1 + 50 + len(".planc-partial")
    assert names(tmp_path) == [target.name]


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_there_is_replaced_only_on_request(tmp_path: Path, overwrite: bool) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "a").write_text("old")
    if overwrite:
        with staging(target, "one", True) as directory:
            (directory / "b").write_text("new")
    else:
        with pytest.raises(PlancError, match="out exists"), staging(target, "one", False):
            pass
    assert content(target) == ({"b": "new"} if overwrite else {"a": "old"})
    assert names(tmp_path) == ["out"]


def test_an_exchange_that_was_interrupted_is_put_right_first(tmp_path: Path) -> None:
    (tmp_path / ".out.planc-about").touch()
    (tmp_path / ".out.planc-old").mkdir()
    (tmp_path / ".out.planc-old" / "a").write_text("old")
    with pytest.raises(PlancError, match="out exists"), staging(tmp_path / "out", "one", False):
        pass
    assert content(tmp_path / "out") == {"a": "old"}


def test_a_run_that_has_finished_nothing_leaves_nothing(tmp_path: Path) -> None:
    interrupted(tmp_path / "out")
    assert names(tmp_path) == []


def test_finished_files_stay_for_a_run_about_the_same(tmp_path: Path) -> None:
    left = interrupted(
        tmp_path / "out",
        a="done",
        **{".b.tmp": "half", ".e.planc-tmp": "half", ".c": "hidden", "d.tmp": "d"},
    )
    assert names(tmp_path) == [".out.planc-about", left.name]
    with staging(tmp_path / "out", "one", False) as directory:
        assert directory == left
        assert content(directory) == {"a": "done", ".c": "hidden", "d.tmp": "d"}
    assert names(tmp_path / "out") == [".c", "a", "d.tmp"]


def test_what_a_run_about_something_else_has_left_is_thrown_away(tmp_path: Path) -> None:
    interrupted(tmp_path / "out", a="done")
    with staging(tmp_path / "out", "two", False) as directory:
        assert content(directory) == {}
        assert about(tmp_path / "out").read_text() == "two"


@pytest.mark.parametrize("text", [b"one" + bytes(1 << 10), b"\xff"])
def test_what_nobody_knows_what_it_is_about_is_thrown_away(tmp_path: Path, text: bytes) -> None:
    interrupted(tmp_path / "out", a="done")
    about(tmp_path / "out").write_bytes(text)
    with staging(tmp_path / "out", "one", False) as directory:
        assert content(directory) == {}
        assert about(tmp_path / "out").read_text() == "one"


def test_what_no_run_has_begun_is_refused(tmp_path: Path) -> None:
    left = interrupted(tmp_path / "out", a="another's")
    about(tmp_path / "out").unlink()
    with (
        pytest.raises(
            PlancError, match=r"\.out\.planc-partial: was not made by planc; move it away"
        ),
        staging(tmp_path / "out", "one", True),
    ):
        pass
    assert content(left) == {"a": "another's"}


def test_a_name_as_long_as_they_come_is_known_again(tmp_path: Path) -> None:
    left = interrupted(tmp_path / "out", "x" * 1024, a="done")
    with staging(tmp_path / "out", "x" * 1024, False):
        assert (left / "a").exists()


def test_nobody_else_writes_there_meanwhile(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with staging(target, "one", False):
        for other in (
            staging(target, "one", False),
            staging(target, "two", False),
            joining(target),
        ):
            with pytest.raises(PlancError, match="out: another process is writing it; wait"), other:
                pass


def test_an_error_after_the_rename_is_raised_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = module.settle

    def settle(*paths: Path) -> None:
        real(*paths)
        raise OSError("the flush failed")

    monkeypatch.setattr(module, "settle", settle)
    with (
        pytest.raises(OSError, match="the flush failed"),
        staging(tmp_path / "out", "one", False),
    ):
        pass


def test_an_error_while_cleaning_up_does_not_hide_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("not empty")

    monkeypatch.setattr(os, "rmdir", refuse)
    interrupted(tmp_path / "out")
    assert names(tmp_path) == [".out.planc-about", ".out.planc-partial"]


def test_processes_of_a_job_fill_it_together(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with staging(target, "one", False, shared=True) as directory:
        for _ in range(2):
            with joining(target) as joined, joining(target) as another:
                assert joined == another == directory
        with pytest.raises(PlancError, match="another process"), staging(target, "one", False):
            pass
        (directory / "a").write_text("new")
    assert content(target) == {"a": "new"}


def test_no_run_begins_while_one_of_a_job_is_at_work(tmp_path: Path) -> None:
    target = tmp_path / "out"
    left = interrupted(target, a="done")
    with joining(target) as joined:
        assert joined == left
        with pytest.raises(PlancError, match="another process"), staging(target, "one", False):
            pass
        assert (left / "a").exists()
    with staging(target, "one", False):
        assert (left / "a").exists()


def test_a_directory_that_nobody_has_begun_cannot_be_joined(tmp_path: Path) -> None:
    words = r"\.out\.planc-partial: is not there, where rank 0 has made it; ranks need one file sys"
    with pytest.raises(PlancError, match=words), joining(tmp_path / "out"):
        pass
    (tmp_path / ".out.planc-partial").write_text("a file")
    with pytest.raises(PlancError, match=words), joining(tmp_path / "out"):
        pass


def test_directories_are_not_locked_where_they_cannot_be_opened(tmp_path: Path) -> None:
    with without_directories(), _locked(tmp_path, tmp_path / "out") as share:
        share()


def test_the_lock_is_let_go_with_its_descriptor(tmp_path: Path) -> None:
    def opened() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = opened()
    interrupted(tmp_path / "out", a="done")
    with joining(tmp_path / "out"):
        pass
    assert opened() == before
