"""R5, when the machine dies and not only the process: at each call, whatever of the calls that were
not flushed is lost, the target is the old bytes or the new bytes.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from planc.files.disk.atomic import write_file
from tests.crash.power import recorded
from tests.crash.test_crash import CASES, Contents, contents, loadable, target
from tests.scripts.promises import Goal


@pytest.mark.promise("R5 power")
@pytest.mark.parametrize("case", CASES)
def test_the_target_is_old_or_new_when_the_power_fails(
    case: str, tmp_path: Path, goal: Goal
) -> None:
    operation, prepare, name, moves = CASES[case]
    place = tmp_path / "place"
    place.mkdir()
    prepare(place)
    old = contents(place)
    with recorded(place) as log:
        operation(place)
    new = contents(place)
    seen: dict[tuple[tuple[str, bytes], ...], bool] = {}
    states = 0
    for end, files in log.states():
        states += 1
        found = target(files, name)
        key = tuple(sorted(found.items()))
        if key not in seen:
            write(files, tmp_path / "state")
            whole = loadable(found, tmp_path / "state")
            seen[key] = whole in (target(old, name), target(new, name)) or (
                moves and not found and is_aside(files, target(old, name))
            )
        assert seen[key], f"after call {end} of {len(log.calls)}"
        assert target(files, "in") == target(old, "in")
    assert list(seen.values()) == [True] * len(seen)
    assert len(seen) > 1
    assert loadable(found, tmp_path / "state").items() <= target(new, name).items()
    assert found.keys() >= target(new, name).keys()  # the last state: all is on the disk
    goal.count(states)


def test_a_file_that_is_renamed_before_it_is_flushed_is_found_out(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with recorded(tmp_path) as log:
        descriptor = os.open(tmp_path / "b", os.O_WRONLY | os.O_CREAT)
        os.write(descriptor, b"n")
        os.write(descriptor, b"ew")
        os.close(descriptor)
        (tmp_path / "b").replace(tmp_path / "a")
    found = {files.get("a") for _, files in log.states()}
    assert found == {b"old", b"new", b"", b"n", b"\0ew"}


def test_a_file_that_is_flushed_before_it_is_renamed_is_not(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with recorded(tmp_path) as log:
        write_file(tmp_path / "a", b"new")
    states = [files.get("a") for _, files in log.states()]
    assert set(states) == {b"old", b"new"}
    assert states[-1] == b"new"


def write(files: Contents, directory: Path) -> None:
    """Puts the files on a real disk."""
    shutil.rmtree(directory, ignore_errors=True)
    for path, content in files.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(content)


def is_aside(files: Contents, old: Contents) -> bool:
    """Whether the old directory has another name, from which the next run takes it back."""
    return {f"out/{Path(path).name}" for path in files if ".planc-old/" in path} == old.keys()
