"""A deployment build installs without torch, and applies plans to files there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import planc
from tests.support.ranks import HANGS

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden" / "v1"
HEAVY = ("torch", "torchvision", "scipy", "safetensors")
PLAN, MASKS = GOLDEN / "plans" / "example.planc", GOLDEN / "masks" / "example.masks"
COMMANDS = [
    "apply {plan} --weights weights.safetensors -o smaller.safetensors --keep-removed removed",
    "inspect smaller.safetensors",
    "restore smaller.safetensors --removed removed -o again.safetensors",
    "apply {masks} --weights masked.safetensors -o sparse.safetensors --keep-removed zeros",
    "restore sparse.safetensors --removed zeros -o dense.safetensors",
    "show {plan}",
    "show {masks}",
    "diff {plan} {plan}",
    "report {plan} -o page.html",
]

BLOCKED = """
import json, sys
from importlib.metadata import packages_distributions

INSTALLED, ALLOWED = packages_distributions(), set({allowed})

class Blocker:
    def find_spec(self, name, path=None, target=None):
        owners = {{owner.lower() for owner in INSTALLED.get(name.partition(".")[0], ())}}
        if owners and not owners & ALLOWED:
            raise ModuleNotFoundError(f"{{name}} is not installed", name=name)

sys.meta_path.insert(0, Blocker())
from planc.cli import run
codes = [run(arguments) for arguments in {arguments}]
tops = {{name.partition(".")[0] for name in sys.modules}}
loaded = {{owner.lower() for top in tops for owner in INSTALLED.get(top, ())}}
print()
print(json.dumps([codes, sorted(loaded)]))
"""


def documented() -> str:
    """The line of the README that installs planc without torch."""
    text = (ROOT / "README.md").read_text()
    found = re.search(r"^<!-- deploy -->\n```sh\n(.+)\n```$", text, re.MULTILINE)
    assert found, "README.md has no line under <!-- deploy -->"
    return found.group(1)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Random weights of both golden plans."""
    torch.manual_seed(0)
    specs = {
        "weights": planc.load_plan(PLAN).tensors,
        "masked": planc.load_masks(MASKS).tensors,
    }
    for name, tensors in specs.items():
        state = {spec.names[0]: torch.randn(spec.shape) for spec in tensors}
        save_file(state, tmp_path / f"{name}.safetensors", metadata={"format": "pt"})
    return tmp_path


def commands() -> list[list[str]]:
    return [line.format(plan=PLAN, masks=MASKS).split() for line in COMMANDS]


def requirements(package: str) -> set[str]:
    """A package and those that pip installs with it."""
    needed = [line for line in requires(package) or () if "extra ==" not in line]
    names = [re.split(r"[^\w.-]", line, maxsplit=1)[0].lower() for line in needed]
    return {package}.union(*(requirements(name) for name in names))


def check(directory: Path) -> None:
    """The smaller weights are smaller; restored ones are the original, byte for byte."""
    whole = (directory / "weights.safetensors").read_bytes()
    assert (directory / "again.safetensors").read_bytes() == whole
    masked = (directory / "masked.safetensors").read_bytes()
    assert (directory / "dense.safetensors").read_bytes() == masked
    sizes = [planc.inspect(directory / "smaller.safetensors").plan.cost_after.params]
    assert sizes == [planc.load_plan(PLAN).cost_after.params]


def test_commands_on_files_need_only_the_documented_packages(weights: Path) -> None:
    named = documented().rpartition(" install -q ")[2].split()
    allowed = {"planc"}.union(*map(requirements, named))
    assert not allowed & set(HEAVY)
    script = BLOCKED.format(allowed=sorted(allowed), arguments=commands())
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=weights, capture_output=True, text=True, timeout=HANGS
    )
    assert done.returncode == 0, done.stderr
    codes, loaded = json.loads(done.stdout.splitlines()[-1])
    assert codes == [0] * len(COMMANDS), done.stderr
    check(weights)
    assert set(named) <= set(loaded), "a package that no command on files needs"


@pytest.mark.long
def test_the_documented_line_installs_a_build_without_torch(weights: Path) -> None:
    line = documented().replace("pip install -q --no-deps .", f"pip install -q --no-deps {ROOT}")
    done = subprocess.run(["bash", "-c", line], cwd=weights, capture_output=True, text=True)
    if done.returncode and re.search("onnection|No matching distribution|resolution", done.stderr):
        pytest.skip(f"no package index can be reached: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    installed = {path.name for path in weights.glob(".venv/lib/*/site-packages/*")}
    assert not installed & set(HEAVY)
    for arguments in commands():
        done = subprocess.run(
            [".venv/bin/planc", *arguments], cwd=weights, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    check(weights)
