"""Plans are found on the command line from pruned weights in a file, with their confidence."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import planc
from planc.cli import run
from planc.cli.named import load_model

FACTORY = """
from torch import nn

def net():
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3), nn.Flatten(),
                         nn.Linear(8 * 16, 5))
"""
MODEL = "pruned_models:net"
INPUT = ("--input", "1x3x8x8")


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A factory, the weights of a model, a plan, and the weights that it leaves."""
    (tmp_path / "pruned_models.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "pruned_models", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    model = load_model(MODEL, {}, 3)
    plan = planc.compile(model, torch.zeros(1, 3, 8, 8), ratio=0.5)
    planc.save_plan(plan, "made.planc")
    save_file(model.state_dict(), "net.safetensors")
    save_file(planc.apply(plan, model.state_dict()), "small.safetensors")


def recovered(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    capsys.readouterr()
    assert run(["recover", MODEL, *words]) == code
    output, errors = capsys.readouterr()
    return output if code == 0 else errors


def test_the_plan_of_a_pruned_file_is_found_and_saved(capsys: pytest.CaptureFixture[str]) -> None:
    weights = ("--weights", "net.safetensors")
    shown = recovered(capsys, "small.safetensors", *INPUT, *weights, "-o", "a.planc")
    assert shown.startswith("12 units were removed; the tensors are equal\n")
    made, found = planc.load_plan("made.planc"), planc.load_plan("a.planc")
    assert [g.removed for g in found.groups] == [g.removed for g in made.groups]
    assert found.result == made.result
    apply = ["apply", "a.planc", *weights, "-o", "again.safetensors"]
    assert run(apply) == 0
    again, small = load_file("again.safetensors"), load_file("small.safetensors")
    assert all(torch.equal(again[name], tensor) for name, tensor in small.items())


def test_trained_weights_in_a_pickle_are_matched(capsys: pytest.CaptureFixture[str]) -> None:
    small = {n: t + 0.01 * torch.randn_like(t) for n, t in load_file("small.safetensors").items()}
    torch.save({"model": small, "epoch": 3}, "small.pt")
    words = ("small.pt", *INPUT, "--weights", "net.safetensors")
    shown = recovered(capsys, *words, "--trust-pickle", "--least", "50%")
    assert shown.startswith("12 units were removed; the tensors were changed afterwards\n")
    assert "not sure" not in shown
    assert "pickle" in recovered(capsys, *words, code=1)


def test_weights_of_another_model_are_refused_or_unsure(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("small.safetensors", *INPUT)  # the factory's weights are others
    assert "0.weight:0: not sure" in recovered(capsys, *words)
    refused = recovered(capsys, *words, "--least", "0.9", code=1)
    assert refused.startswith("planc: small.safetensors: group 0.weight:0: its units are recovered")
    less = {name: tensor[:3] for name, tensor in load_file("small.safetensors").items()}
    save_file({name: tensor.contiguous() for name, tensor in less.items()}, "less.safetensors")
    assert "less.safetensors: " in recovered(capsys, "less.safetensors", *INPUT, code=1)
