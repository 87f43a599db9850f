"""Screens on the command line: widths, colors, the pager, exit codes, and the time they take."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import planc
from planc.cli import run
from planc.ir.groups import Member, Run
from planc.plan.plan import Plan, PlanGroup, TensorSpec
from tests.scripts.screens import SCREENS
from tests.support.strategies import complete, example_plan

ROOT = Path(planc.__file__).parent.parent
RESNET = str(SCREENS / "resnet50.planc")
GLOBAL = str(SCREENS / "resnet50-global.planc")
UNITS = 1_000
NUMPY = 0.14  # seconds to import NumPy on an idle machine


def printed(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    capsys.readouterr()
    found = run(list(arguments))
    output, errors = capsys.readouterr()
    assert found == code, errors
    return output


def in_terminal(*arguments: str, **environment: str) -> str:
    """The output of a command in a terminal of 24 lines."""
    ours, theirs = pty.openpty()
    plain = {key: os.environ[key] for key in os.environ if key not in ("NO_COLOR", "COLUMNS")}
    process = subprocess.Popen(
        [sys.executable, "-m", "planc", *arguments],
        cwd=ROOT,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
        env={**plain, "TERM": "xterm", "LINES": "24", **environment},
    )
    os.close(theirs)
    found = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        found += part
    process.wait()
    os.close(ours)
    return found.decode()


def wide(units: int, removed: int) -> Plan:
    """A plan of 100 layers with ``units`` channels each."""
    tensors, groups = [], []
    for i in range(100):
        runs = (Run(0, units, 0, 1),)
        tensors.append(TensorSpec((f"h.{i:02}.weight",), (units, 4), "parameter"))
        members = (Member(f"h.{i:02}.weight", 0, runs),)
        gone = tuple(range(i % 7, removed + i % 7))
        name = f"h.{i:02}.weight:0"
        groups.append(PlanGroup(name, "channels", units, 1, members, removed=gone))
    return complete(tuple(tensors), (), tuple(groups), ())


@pytest.mark.parametrize("width", [60, 80, 200])
def test_lines_keep_to_the_width_and_end_without_blanks(
    width: int, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (
        ("show", RESNET),
        ("show", RESNET, "--group", "layer3"),
        ("diff", RESNET, GLOBAL),
        ("diff", RESNET, GLOBAL, "--stat"),
    ):
        code = 1 if command[0] == "diff" else 0
        lines = printed(capsys, *command, "--width", str(width), code=code).splitlines()
        names = max(map(len, command)) + 3  # of files, which stay whole
        assert all(len(line) <= max(width, names) for line in lines)
        assert all(line == line.rstrip() for line in lines)
        assert "\x1b" not in "".join(lines)


def test_the_width_is_that_of_the_terminal_or_of_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert printed(capsys, "show", RESNET) == (SCREENS / "resnet50.80.txt").read_text()
    monkeypatch.delenv("COLUMNS")
    assert printed(capsys, "show", RESNET) == (SCREENS / "resnet50.160.txt").read_text()
    monkeypatch.setenv("COLUMNS", "none")
    assert printed(capsys, "show", RESNET, "--width", "80") == (
        (SCREENS / "resnet50.80.txt").read_text()
    )


def test_a_group_is_shown_alone_as_text_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    found = printed(capsys, "show", RESNET, "--group", "layer3.0–5.conv1", "--width", "100")
    assert found.count("members") == 6
    plain = json.loads(printed(capsys, "show", RESNET, "--group", "conv1", "--json"))
    assert [group["name"] for group in plain["groups"]] == ["conv1.weight:0"]
    assert run(["show", RESNET, "--group", "layer9"]) == 1
    assert "did you mean" in capsys.readouterr().err


def test_diff_tells_by_its_exit_code(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "are equal" in printed(capsys, "diff", RESNET, RESNET)
    assert RESNET in printed(capsys, "diff", RESNET, GLOBAL, code=1)
    plain = json.loads(printed(capsys, "diff", RESNET, GLOBAL, "--json", code=1))
    assert (plain["a"], plain["b"]) == (RESNET, GLOBAL)
    assert plain["groups"][0]["kept"] == [32, 37]
    monkeypatch.chdir(tmp_path)
    Path("broken.planc").write_bytes(b"no plan")
    for arguments in (
        (RESNET, "missing.planc"),
        (RESNET, "broken.planc"),
        (RESNET, "."),
        (RESNET,),
        (RESNET, RESNET, RESNET),
        (),
    ):
        assert run(["diff", *arguments]) == 2
        output, errors = capsys.readouterr()
        assert not output
        assert "Traceback" not in errors
        assert errors


def test_a_terminal_has_colors_with_a_meaning() -> None:
    shown = in_terminal("show", RESNET, "--no-pager", "--width", "80")
    assert "\x1b[32m" in shown  # green: kept
    assert "\x1b[31m" in shown  # red: removed
    assert "\x1b[3" not in in_terminal("show", RESNET, "--no-pager", NO_COLOR="1")


def test_more_than_a_screen_goes_to_the_pager() -> None:
    for variable in ("PLANC_PAGER", "PAGER"):
        assert "paged conv1" in in_terminal("show", RESNET, **{variable: "sed s/^/paged\\ /"})
    short = in_terminal("diff", RESNET, RESNET, PLANC_PAGER="sed s/^/paged\\ /")
    assert "paged" not in short
    for without in ("", "cat", "no-such-pager --now"):
        assert "conv1" in in_terminal("show", RESNET, PLANC_PAGER=without)
    left = in_terminal("show", RESNET, "--full", PLANC_PAGER="head -n 1")
    assert "fingerprint" in left
    assert "layer4" not in left


def processor_time(code: str) -> float:
    """Seconds of the processor for a Python process, the least of three."""
    taken = []
    for _ in range(3):
        before = os.times()
        command = [sys.executable, "-c", code]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        after = os.times()
        user = after.children_user - before.children_user
        taken.append(user + after.children_system - before.children_system)
    return min(taken)


def test_100_000_units_are_shown_and_compared_in_half_a_second_without_torch(
    tmp_path: Path,
) -> None:
    a, b = str(tmp_path / "a.planc"), str(tmp_path / "b.planc")
    planc.save_plan(wide(UNITS, 500), a)
    planc.save_plan(wide(UNITS, 490), b)
    slower = max(1, processor_time("import numpy") / NUMPY)  # a busy machine is no failure
    for arguments in (["show", a], ["diff", a, b]):
        code = (
            f"import sys; from planc.cli import run; run({arguments!r}); "
            "assert not {'torch', 'scipy'} & set(sys.modules)"
        )
        assert processor_time(code) < 0.5 * slower, arguments


def test_a_plan_that_without_removals_is_shown(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    plan = example_plan()
    whole = complete(
        plan.tensors, plan.modules, tuple(replace(g, removed=()) for g in plan.groups), ()
    )
    planc.save_plan(whole, tmp_path / "whole.planc")
    found = printed(capsys, "show", str(tmp_path / "whole.planc"))
    assert "0 removed" in found
    assert "whole" in found


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_screens_are_written_in_any_encoding(encoding: str) -> None:
    command = [sys.executable, "-m", "planc", "show", RESNET, "--width", "80"]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True)
    found = done.stdout.decode(encoding)
    golden = (SCREENS / "resnet50.80.txt").read_text()
    if encoding == "utf-8":
        assert found == golden
    else:
        assert "64 >   32" in found
        assert "#.." in found
        assert list(map(len, found.splitlines())) == list(map(len, golden.splitlines()))
