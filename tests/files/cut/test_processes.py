"""Claims of plans on files that need a process of their own: neither torch nor the model is loaded,
and memory does not grow with the tensors.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import planc
from planc.ir.groups import Member, Run
from planc.plan.plan import PlanGroup, TensorSpec
from tests.files.cut.test_files import PLAN, contents, sharded
from tests.support.strategies import complete


def test_the_commands_need_neither_torch_nor_the_model(tmp_path: Path) -> None:
    sharded(tmp_path / "in")
    planc.save_plan(PLAN, tmp_path / "p.planc")
    script = (
        "import sys\n"
        "sys.modules['torch'] = sys.modules['torchvision'] = None\n"
        "from planc.cli import run\n"
        "assert run(['apply', 'p.planc', '--weights', 'in', '--out', 'out', '--keep-removed',"
        " 'kept', '--workers', '2']) == 0\n"
        "assert run(['inspect', 'out']) == 0\n"
        "assert run(['restore', 'out', '--removed', 'kept', '--out', 'back']) == 0\n"
    )
    path = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "byte for byte" in done.stderr
    (tmp_path / "in" / "pytorch_model.bin").unlink()
    assert contents(tmp_path / "back") == contents(tmp_path / "in")


@pytest.mark.promise("R12 memory")
def test_memory_does_not_grow_with_the_tensor(tmp_path: Path) -> None:
    """R12, by the peak of a process of its own: 384 MiB of tensors."""
    rows, width = 48 << 10, 2048
    tensors = tuple(
        TensorSpec((name,), shape, "parameter")
        for name, shape in (("up", (rows, width)), ("down", (width, rows)))
    )
    members = (Member("up", 0, (Run(0, rows, 0, 1),)), Member("down", 1, (Run(0, rows, 0, 1),)))
    gone = tuple(np.flatnonzero(np.random.default_rng(0).random(rows) < 0.5).tolist())
    plan = complete(tensors, (), (PlanGroup("up:0", "features", rows, 1, members, "", gone),), ())
    planc.save_plan(plan, tmp_path / "p.planc")
    make_sparse(tmp_path / "a.safetensors", tensors)
    script = (
        "import sys\n"
        "from planc.files.formats import load_plan\n"
        "from planc.files.cut import apply_files\n"
        "def peak():\n"
        "    return int(next(l for l in open('/proc/self/status') if 'VmHWM' in l).split()[1])\n"
        "plan = load_plan('p.planc')\n"
        "before = peak()\n"
        "apply_files(plan, 'a.safetensors', 'b.safetensors')\n"
        "print(peak() - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) << 10 < 128 << 20


def make_sparse(path: Path, tensors: tuple[TensorSpec, ...]) -> None:
    """A file of zeros, which takes no room on the disk."""
    from planc.files.tensors.header import place, write_header

    entries = place((spec.name, "F16", spec.shape) for spec in tensors)
    with path.open("wb") as file:
        file.write(write_header(entries, {}))
        file.truncate(file.tell() + 2 * sum(math.prod(spec.shape) for spec in tensors))
