"""Claims of plans on files over the ranks of a job: the very bytes that one process writes; where a
rank fails or is killed, there is no output, every rank says why, and the next run goes on.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import planc
from planc.errors import PlancError
from planc.files.cut.ranks import shares
from planc.files.disk.staging import joining
from tests.files.cut.test_files import contents, mlp_plan, sharded
from tests.files.cut.threads import in_threads
from tests.support.ranks import ROOT, in_ranks

PLAN = mlp_plan(layers=6)


@given(st.lists(st.integers(0, 1000), max_size=30), st.integers(1, 8))
def test_shares_hold_every_job_once_and_are_about_equal(sizes: list[int], count: int) -> None:
    found = shares(sizes, count)
    assert len(found) == count
    assert sorted(number for share in found for number in share) == list(range(len(sizes)))
    held = [sum(sizes[number] for number in share) for share in found]
    assert max(held) - min(held) <= max(sizes, default=0)


JOBS = """
import json, os, signal, sys, time
import torch
from planc.cli import run
from planc.files.cut import workers
from tests.support.ranks import forked

def failing(how):
    real, count = workers.cut_shard, [0]
    def cut(cutting, descriptor):
        count[0] += 1
        if count[0] == 2:
            time.sleep(0.5)  # until others have finished a shard
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(28, "No space left on device")
        return real(cutting, descriptor)
    return cut

def job(name, size, bad, how, more):
    def work(rank):
        os.dup2(os.open(f"{name}.err", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        if rank == bad:
            workers.cut_shard = failing(how)
        return run(["apply", "p.planc", "--weights", "in", "--out", name, *more])
    return forked(size, work)

print(json.dumps({job_[0]: job(*job_) for job_ in json.loads(sys.argv[1])}))
"""
FAILED = [(f"{how}{bad}", 2, bad, how, ()) for how in ("raise", "kill") for bad in (0, 1)]
WHOLE = [(f"whole{n}", n, None, "", ("--keep-removed", f"kept{n}")) for n in (1, 2, 4)]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("ranks")
    sharded(directory / "in", PLAN)
    planc.save_plan(PLAN, directory / "p.planc")
    planc.apply_files(PLAN, directory / "in", directory / "one", keep_removed=directory / "kept")
    return directory


@pytest.fixture(scope="module")
def codes(prepared: Path) -> dict[str, list[int]]:
    """The exit codes of all ranks, by job; what they said is in files beside."""
    done = in_ranks(JOBS, prepared, json.dumps(WHOLE + FAILED))
    assert done.returncode == 0, done.stderr
    found: dict[str, list[int]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.long
@pytest.mark.parametrize("size", [1, 2, 4])
def test_ranks_write_the_bytes_that_one_process_writes(
    prepared: Path, codes: dict[str, list[int]], size: int
) -> None:
    said = (prepared / f"whole{size}.err").read_text()
    assert codes[f"whole{size}"] == [0] * size, said
    assert contents(prepared / f"whole{size}") == contents(prepared / "one")
    assert contents(prepared / f"kept{size}") == contents(prepared / "kept")
    assert said.count(f"wrote whole{size}") == 1
    assert not list(prepared.glob(f".whole{size}*"))


@pytest.mark.parametrize("bad", [0, 1])
@pytest.mark.parametrize("how", ["raise", "kill"])
def test_a_rank_that_fails_fails_all_and_the_next_run_goes_on(
    prepared: Path, codes: dict[str, list[int]], how: str, bad: int
) -> None:
    target, said = prepared / f"{how}{bad}", (prepared / f"{how}{bad}.err").read_text()
    assert codes[target.name] == [-9 if how == "kill" and n == bad else 1 for n in (0, 1)]
    if how == "raise":
        assert re.search(r"planc: .*\.safetensors: No space left on device", said)
        assert f"planc: rank {bad}: [Errno 28] No space left on device: '" in said
    else:
        assert f"planc: rank {1 - bad}: another process of the job has ended" in said
    assert not target.exists()
    found = in_threads(2, lambda r: planc.apply_files(PLAN, prepared / "in", target, ranks=r))
    assert all(done.cut < done.shards for done in found)
    assert contents(target) == contents(prepared / "one")
    assert not list(prepared.glob(f".{target.name}*"))


@pytest.mark.long
def test_torchrun_starts_the_command(prepared: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command = ["apply", "p.planc", "--weights", "in", "--out", "torchrun"]
    done = subprocess.run(
        [*launcher, "-m", "planc", *command],
        cwd=prepared,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert contents(prepared / "torchrun") == contents(prepared / "one")


# ranks as threads: what processes agree on, without their start


@pytest.mark.parametrize("size", [2, 3, 7, 9])
def test_any_number_of_ranks_writes_the_same(prepared: Path, tmp_path: Path, size: int) -> None:
    out = tmp_path / "out"
    found = in_threads(size, lambda r: planc.apply_files(PLAN, prepared / "in", out, ranks=r))
    assert {(done.shards, done.cut) for done in found} == {(6, 6)}
    assert contents(out) == contents(prepared / "one")


def test_ranks_with_different_plans_are_refused(tmp_path: Path) -> None:
    sharded(tmp_path / "in", PLAN)
    (tmp_path / "in" / "config.json").unlink()
    plans, out = [PLAN, mlp_plan(layers=6, step=4)], tmp_path / "out"
    found = in_threads(2, lambda r: planc.apply_files(plans[r.rank], tmp_path / "in", out, ranks=r))
    assert all("rank 1: has another plan or other files than rank 0" in str(e) for e in found)
    assert not out.exists()


def test_ranks_without_a_common_file_system_are_refused(prepared: Path, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    places = [tmp_path / "out", tmp_path / "far" / "out"]
    found = in_threads(
        2, lambda r: planc.apply_files(PLAN, prepared / "in", places[r.rank], ranks=r)
    )
    assert all(isinstance(error, PlancError) for error in found)
    assert "ranks need one file system" in str(found[0])
    assert [path.name for path in tmp_path.iterdir()] == ["far"]


def test_no_other_run_begins_while_a_rank_is_at_work(prepared: Path, tmp_path: Path) -> None:
    (tmp_path / ".out.planc-partial").mkdir()
    with (
        joining(tmp_path / "out"),  # rank 0 has been killed, this one goes on
        pytest.raises(PlancError, match="another process is writing"),
    ):
        planc.apply_files(PLAN, prepared / "in", tmp_path / "out")
