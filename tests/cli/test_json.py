"""``--json`` of every command prints one document on standard output: what the library finds."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

import planc
from planc.cli import cli, run
from planc.cli.named import load_model
from planc.cli.report.plain import plan_from_json
from planc.policy.latency import measure
from tests.cli.test_cli import FACTORY
from tests.policy.latency.test_latency import macs

LOADER = """
import torch

def batches():
    return [torch.ones(2, 3, 8, 8)] * 3
"""
INPUT = ("--input", "2x3x8x8")
MODEL = ("net.py:net", *INPUT)
Printed = Callable[..., Any]


@pytest.fixture(scope="module", autouse=True)
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working directory with a factory, its weights, a plan, and what its application wrote."""
    place = tmp_path_factory.mktemp("json")
    patch = pytest.MonkeyPatch()
    patch.chdir(place)
    patch.setattr(sys, "path", [*sys.path])
    patch.setattr(measure, "timer", lambda device: macs)
    Path("net.py").write_text(FACTORY + LOADER)
    save_file(load_model("net.py:net").state_dict(), "w.safetensors")
    assert run(["plan", *MODEL, "--weights", "w.safetensors", "-o", "a.planc"]) == 0
    assert run(["mask", "net.py:net", "--weights", "w.safetensors", "-o", "a.masks"]) == 0
    out = ("-o", "s.safetensors", "--keep-removed", "removed")
    assert run(["apply", "a.planc", "--weights", "w.safetensors", *out]) == 0
    yield place
    patch.undo()


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Printed:
    """Run a command with ``--json`` and return its document."""

    def call(*arguments: str) -> Any:
        capsys.readouterr()
        assert run([*arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return call


def test_every_command_has_it() -> None:
    lacking = [
        name
        for name, command in cli.commands.items()
        if "as_json" not in {param.name for param in command.params}
    ]
    assert not lacking


def test_commands_that_make_plans_print_them_as_show_does(printed: Printed) -> None:
    stored = ("--weights", "w.safetensors")
    plan = printed("plan", *MODEL, *stored, "--scores", "-o", "b.planc")
    assert plan == printed("show", "b.planc")
    assert plan_from_json(plan) == planc.load_plan("b.planc")
    edited = printed("edit", "a.planc", "net.py:net", *stored, "--keep", "0.0", "-o", "c.planc")
    assert edited == printed("show", "c.planc")
    assert edited["latency"] is None
    masks = printed("mask", "net.py:net", *stored, "--ratio", "25%", "-o", "b.masks")
    assert masks == printed("show", "b.masks")
    assert printed("measure", *MODEL, "-o", "a.latency") == printed("show", "a.latency")
    timed = printed(
        *("edit", "a.planc", "net.py:net", *stored, "--keep", "0.0"),
        *("--latency-table", "a.latency"),
    )
    assert timed["latency"]["after"] <= timed["latency"]["before"]
    assert timed | {"latency": None} == edited


def test_a_plan_in_a_pipe_is_written_back(printed: Printed) -> None:
    Path("piped.json").write_text(json.dumps(printed("plan", *MODEL, "--ratio", "25%")))
    assert printed("plan", "--from-json", "piped.json")["groups"]


def test_a_recovered_plan_is_printed_alone(printed: Printed) -> None:
    stored = ("--weights", "w.safetensors")
    assert run(["apply", "a.planc", *stored, "-o", "pruned.safetensors"]) == 0
    found = printed("recover", *MODEL, "pruned.safetensors", *stored)
    assert plan_from_json(found).groups == planc.load_plan("a.planc").groups


def test_commands_that_write_weights_say_what_they_wrote(printed: Printed) -> None:
    stored = ("--weights", "w.safetensors")
    done = printed("apply", "a.planc", *stored, "-o", "b.safetensors")
    assert done["output"] == "b.safetensors"
    assert 0 < done["after"] < done["before"]
    built = printed("apply", "a.planc", "net.py:net", "-o", "d.safetensors")
    assert built["parameters"]["after"] < built["parameters"]["before"]
    zeros = printed("apply", "a.masks", *stored, "-o", "e.safetensors")["zeros"]
    assert zeros == printed("show", "a.masks")["removed"]
    back = printed("restore", "s.safetensors", "--removed", "removed", "-o", "f.safetensors")
    assert back == {"output": "f.safetensors", "exact": True}


def test_the_other_commands_print_what_they_found(printed: Printed) -> None:
    given = ("net.py:net", "--data", "net.py:batches", "--criterion", "wanda")
    found = printed("calibrate", *given, "-o", "a.statistics")
    assert found == {"output": "a.statistics", "batches": 3, "quantities": ["inputs"]}
    proof = printed("verify", "a.planc", "net.py:net", "--weights", "w.safetensors")
    assert proof["error"] < 1e-4
    assert len(proof["checks"]) > 5
    assert printed("report", "a.planc") == {"output": "a.html", "plans": ["a.planc"]}
    assert printed("inspect", "s.safetensors")["tensors"]
    assert printed("diff", "a.planc", "a.planc")["equal"] is True
    assert printed("explain", "a.planc")
