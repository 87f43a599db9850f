"""Names beside a target belong to it alone; leftovers of dead processes go, other files stay."""

from __future__ import annotations

import fcntl
import os
import signal
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planc.files.disk import beside as module
from planc.files.disk.atomic import replacing, write_file
from planc.files.disk.beside import (
    beside,
    created,
    hold,
    left,
    locked,
    shortened,
    sweep,
    temporary_name,
    temporary_names,
    wait_for,
)

LETTERS = st.characters(codec="utf-8", exclude_characters="/\0")
NAMES = st.text(LETTERS, min_size=1, max_size=60).filter(lambda name: name not in (".", ".."))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_a_dead_process_left_is_removed_and_what_another_holds_stays(tmp_path: Path) -> None:
    target = tmp_path / "a.plan"
    gone, held = (temporary_name(target) for _ in range(2))
    gone.write_bytes(b"half")
    others = [".b.plan.0.planc-tmp", ".a.plan.0", "a.plan.0.planc-tmp", "b"]
    for other in others:
        (tmp_path / other).write_bytes(b"another's")
    with held.open("wb") as file:
        assert hold(file.fileno())
        write_file(target, b"new")
        assert names(tmp_path) == sorted(["a.plan", held.name, *others])
    sweep(target)
    assert not held.exists()
    assert target.read_bytes() == b"new"


def test_a_killed_writers_file_goes_when_it_is_dead_and_not_before(tmp_path: Path) -> None:
    target, (reader, writer) = tmp_path / "a", os.pipe()
    child = os.fork()
    if not child:
        with replacing(target) as descriptor:
            os.write(descriptor, b"half")
            os.write(writer, b"!")
            signal.pause()
        os._exit(1)
    assert os.read(reader, 1) == b"!"
    write_file(target, b"new")
    [path] = temporary_names(target)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert path.read_bytes() == b"half"
    write_file(target, b"newer")
    assert names(tmp_path) == ["a"]
    for descriptor in (reader, writer):
        os.close(descriptor)


# neighbours whose names resemble those of leftovers of "model", by what comes after ".model"
DIGITS = "0123456789abcdef"
RESEMBLING = [
    ".tmp", ".planc-tmp", ".safetensors.tmp", f".{DIGITS}.tmp", f".{DIGITS}.planc-tmp.bak",
    f".{DIGITS[:-1]}.planc-tmp", f".{DIGITS}0.planc-tmp", f".{DIGITS.upper()}.planc-tmp",
    f".{DIGITS[:-1]}g.planc-tmp", f".v2.{DIGITS}.planc-tmp", f".{DIGITS}.{DIGITS}.planc-tmp",
    f"s.{DIGITS}.planc-tmp", f".{DIGITS}.planc-tmp\n", f"-{DIGITS}.planc-tmp", ".planc-old",
    f".{DIGITS}.planc-mark.bak", f"x{DIGITS}.planc-mark", ".planc-partial", ".planc-about~",
]  # fmt: skip


@pytest.mark.parametrize("kind", ["file", "directory", "link", "link to nothing"])
def test_neighbours_that_resemble_leftovers_stay(kind: str, tmp_path: Path) -> None:
    place, elsewhere = tmp_path / "place", tmp_path / "elsewhere"
    place.mkdir()
    elsewhere.write_text("another's")
    exact = [] if kind == "file" else [f".{DIGITS}.planc-tmp"]
    for ending in RESEMBLING + exact:
        path = place / f".model{ending}"
        if kind == "file":
            path.write_text("another's")
        elif kind == "directory":
            path.mkdir()
            (path / "notes").write_text("another's")
        else:
            path.symlink_to(elsewhere if kind == "link" else tmp_path / "nothing")
    before = names(place)
    for number in range(10):
        write_file(place / "model", bytes([number]))
    assert names(place) == sorted([*before, "model"])
    assert elsewhere.read_text() == "another's"


@given(NAMES, NAMES)
def test_no_two_targets_share_a_name(one: str, other: str) -> None:
    if one != other:
        assert shortened(one) != shortened(other)
        assert beside(Path("d") / one, ".x") != beside(Path("d") / other, ".x")


@pytest.mark.parametrize("letter", ["x", "ü", "語", "\U0001f600", "\udcff"])
@pytest.mark.parametrize("length", [1, 49, 50, 51, 240])
def test_names_beside_long_ones_fit_a_file_system(letter: str, length: int) -> None:
    target = Path("/") / (letter * length)
    assert len(os.fsencode(temporary_name(target).name)) <= 255
    assert len(shortened(target.name)) == min(length, 50)
    assert beside(target, ".x") != beside(Path("/") / (letter * (length + 1)), ".x")


def test_targets_with_long_names_do_not_sweep_each_others_files(tmp_path: Path) -> None:
    one, other = (tmp_path / ("x" * 250 + end) for end in "ab")
    path = temporary_name(other)
    path.write_bytes(b"half")
    write_file(one, b"new")
    assert path.exists()
    write_file(other, b"new")
    assert not path.exists()


def test_a_temporary_name_is_hidden_and_never_the_same(tmp_path: Path) -> None:
    found = {temporary_name(tmp_path / "a") for _ in range(20)}
    assert len(found) == 20
    assert {path.parent for path in found} == {tmp_path}
    assert all(path.name.startswith(".a.") for path in found)


def test_nothing_is_left_to_sweep_where_there_is_no_directory(tmp_path: Path) -> None:
    sweep(tmp_path / "none" / "a")


def test_a_held_file_is_locked_until_it_is_closed(tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as file, (tmp_path / "a").open("rb") as other:
        assert hold(file.fileno())
        assert not hold(other.fileno())
        with left(tmp_path / "a") as is_left:
            assert not is_left
        file.close()
        assert hold(other.fileno())


def test_a_file_system_without_locks_holds_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", none)
    path = temporary_name(tmp_path / "a")
    path.write_bytes(b"half, or another process's")
    write_file(tmp_path / "a", b"new")
    assert path.exists()
    with locked(tmp_path / "a"):
        wait_for(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"new"


@pytest.mark.parametrize("taken", ["held", "removed"])
def test_a_file_that_another_process_takes_for_a_leftover_is_made_again(
    taken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its creation and its lock, a sweep may see it."""
    real, count = module.hold, [0]

    def late(descriptor: int) -> bool:
        count[0] += 1
        if count[0] > 1:
            return real(descriptor)
        if taken == "held":
            return False
        sweep(tmp_path / "a")
        return real(descriptor)

    monkeypatch.setattr(module, "hold", late)
    write_file(tmp_path / "a", b"new")
    assert count == [2]
    assert names(tmp_path) == ["a"]
    assert created(tmp_path / "b", os.O_WRONLY, 0o600) is not None


def test_a_target_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    inside, most, total = [0], [0], [0]

    def work() -> None:
        for _ in range(50):
            with locked(tmp_path / "a"):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                total[0] += 1
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, total) == ([1], [200])
    assert names(tmp_path) == []


def test_a_reader_waits_for_the_end_of_a_save(tmp_path: Path) -> None:
    seen: list[str] = []
    wait_for(tmp_path / "a")  # nobody holds it
    with locked(tmp_path / "a"):
        reader = threading.Thread(target=lambda: (wait_for(tmp_path / "a"), seen.append("read")))
        reader.start()
        reader.join(0.2)
        seen.append("saved")
    reader.join()
    assert seen == ["saved", "read"]


def test_an_interrupt_while_waiting_for_a_lock_leaves_no_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    before = len(list(Path("/proc/self/fd").iterdir()))
    with monkeypatch.context() as patched, suppress(KeyboardInterrupt):
        patched.setattr(fcntl, "flock", interrupted)
        with locked(tmp_path / "a"):
            raise AssertionError("not held")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    with locked(tmp_path / "a"):  # what is left of the lock hinders nobody
        pass
    assert names(tmp_path) == []


def test_a_temporary_file_that_vanishes_is_no_leftover(tmp_path: Path) -> None:
    with left(tmp_path / "none") as is_left:
        assert not is_left


def test_a_name_that_is_gone_is_no_file(tmp_path: Path) -> None:
    assert not module._is_regular(tmp_path / "gone")
