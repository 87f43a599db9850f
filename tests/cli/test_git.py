"""Plans in a git repository: the text of a version, and the difference of two."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import planc
from planc.plan.plan import Plan
from tests.support.strategies import complete, example_plan

PLAN = example_plan()
PLANC = f"{sys.executable} -m planc"
ROOT = Path(planc.__file__).parent.parent

Git = Callable[..., str]


def other() -> Plan:
    groups = (replace(PLAN.groups[0], removed=(1, 2, 3)), *PLAN.groups[1:])
    follow = {"out_features": 3, "shape": (3, (1, 2)), "scale": 0.25}
    changes = tuple(replace(c, after=follow[c.name]) for c in PLAN.attributes)
    return complete(PLAN.tensors, PLAN.modules, groups, changes)


@pytest.fixture
def git(tmp_path: Path) -> Git:
    """Git in a repository with a plan that changed after its commit."""
    plain = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "HOME": str(tmp_path)}
    path = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"

    def call(*arguments: str, **environment: str) -> str:
        done = subprocess.run(
            ["git", "-c", "user.name=A", "-c", "user.email=a@b.c", *arguments],
            cwd=tmp_path,
            env={**os.environ, **plain, "PYTHONPATH": path, "COLUMNS": "100", **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    call("init", "-q")
    (tmp_path / ".gitattributes").write_text("*.planc diff=planc\n")
    planc.save_plan(PLAN, tmp_path / "model.planc")
    call("add", ".")
    call("commit", "-qm", "one")
    planc.save_plan(other(), tmp_path / "model.planc")
    return call


def test_git_shows_changes_of_the_text_of_a_plan(git: Git) -> None:
    git("config", "diff.planc.textconv", f"{PLANC} show --full")
    found = git("diff")
    assert re.search(r"^-a\.weight:0 ~ +channels +6 → +4 ", found, re.MULTILINE)
    assert re.search(r"^\+a\.weight:0 ~ +channels +6 → +3 ", found, re.MULTILINE)
    in_pager = git("diff", "--no-color", GIT_PAGER_IN_USE="true")
    assert "\x1b" not in in_pager


def test_git_shows_the_difference_of_two_plans(git: Git) -> None:
    git("config", "diff.planc.command", f"{PLANC} diff")
    found = git("diff")
    assert "a  a/model.planc" in found
    assert "b  b/model.planc" in found
    assert "1 of 3 groups remove other units" in found
    assert "\x1b[" in git("diff", GIT_PAGER_IN_USE="true")
    assert "\x1b[3" not in git("diff", GIT_PAGER_IN_USE="true", NO_COLOR="1")


def test_git_shows_plans_that_come_go_and_move(git: Git, tmp_path: Path) -> None:
    git("config", "diff.planc.command", f"{PLANC} diff")
    planc.save_plan(PLAN, tmp_path / "new.planc")
    git("add", "new.planc")
    assert "no a/new.planc; the other: 3 groups" in git("diff", "--cached")
    git("commit", "-qm", "two")
    git("rm", "-q", "new.planc")
    assert "no b/new.planc; the other: 3 groups" in git("diff", "--cached")
    git("checkout", "-qf", "HEAD")
    git("mv", "model.planc", "moved.planc")
    planc.save_plan(other(), tmp_path / "moved.planc")
    git("add", ".")
    found = git("diff", "--cached", "-M10%")
    assert "a/model.planc" in found
    assert "b/moved.planc" in found
