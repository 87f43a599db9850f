"""On several processes every rank gets the same sums, whatever part of the batches it saw."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import planc
from planc.criteria import Statistics
from tests.criteria.calibrated import case, loss
from tests.support.ranks import HANGS

ROOT = Path(__file__).parents[3]
CRITERIA = ["taylor_unit", "obd", "obd_c", "wanda"]
WORKER = """
import sys, torch
from torch import distributed
torch.set_num_threads(1)
folder, number, count, what = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
distributed.init_process_group(
    "gloo", init_method=f"file://{folder}/meeting", rank=number, world_size=count
)
import planc
from tests.criteria.calibration.test_ranks import CRITERIA
from tests.criteria.calibrated import case, loss
model, batches = case("residual" if what != "models" or number == 0 else "dense", 5)
own = batches[number::count]
if what == "failure" and number == count - 1:
    own = [(torch.zeros(1),)]
if what == "idle" and number == 0:
    own = []
try:
    statistics = planc.calibrate(model, own, CRITERIA, loss)
except planc.CalibrationError as error:
    print(error)
else:
    planc.save_statistics(statistics, f"{folder}/statistics{number}")
    for criterion in ("taylor_unit", "obd", "wanda"):
        plan = planc.compile(model, batches[0], criterion=criterion, statistics=statistics)
        planc.save_plan(plan, f"{folder}/{criterion}{number}")
distributed.destroy_process_group()
"""


def run(folder: Path, count: int, what: str = "") -> list[str]:
    """What each of ``count`` processes prints."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(folder), str(number), str(count), what],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env=environment,
            text=True,
        )
        for number in range(count)
    ]
    answers = [rank.communicate(timeout=HANGS) for rank in ranks]
    for rank, (_, said) in zip(ranks, answers, strict=True):
        assert rank.returncode == 0, said
    return [answer for answer, _ in answers]


def alone(batches: int = 5) -> Statistics:
    model, own = case("residual", batches)
    return planc.calibrate(model, own, CRITERIA, loss)


@pytest.mark.long
@pytest.mark.parametrize("count", [1, 2, 4])
def test_every_rank_compiles_the_same_bytes(count: int, tmp_path: Path) -> None:
    run(tmp_path, count)
    for name in ("statistics", "taylor_unit", "obd", "wanda"):
        assert len({(tmp_path / f"{name}{number}").read_bytes() for number in range(count)}) == 1
    statistics, reference = planc.load_statistics(tmp_path / "statistics0"), alone()
    assert statistics.batches == 5
    assert statistics.tensors.keys() == reference.tensors.keys()
    for key, tensor in reference.tensors.items():
        torch.testing.assert_close(statistics.tensors[key], tensor, rtol=1e-10, atol=1e-12)
    model, batches = case("residual")
    analysis = planc.analyze(planc.trace(model, batches[0]))
    for name in ("taylor_unit", "obd", "wanda"):
        criterion = planc.criteria.named(name)
        pairs = zip(
            planc.score(analysis, model, criterion, statistics).units,
            planc.score(analysis, model, criterion, reference).units,
            strict=True,
        )
        for found, wanted in pairs:
            torch.testing.assert_close(
                torch.from_numpy(found), torch.from_numpy(wanted), rtol=1e-8, atol=1e-14
            )


@pytest.mark.long
def test_a_rank_without_batches_gets_the_sums_of_the_others(tmp_path: Path) -> None:
    run(tmp_path, 2, "idle")
    files = {(tmp_path / f"statistics{number}").read_bytes() for number in range(2)}
    assert len(files) == 1
    assert planc.load_statistics(tmp_path / "statistics0").batches == 2  # the second rank's


@pytest.mark.long
def test_a_failure_on_one_rank_is_reported_on_all_ranks(tmp_path: Path) -> None:
    for answer in run(tmp_path, 2, "failure"):
        assert answer.startswith("rank 1: batch 0: loss(model, batch) fails: RuntimeError")


@pytest.mark.long
def test_ranks_with_different_models_are_refused(tmp_path: Path) -> None:
    for answer in run(tmp_path, 2, "models"):
        assert answer.startswith("rank 1: ")
        assert "run the same model on every rank" in answer
