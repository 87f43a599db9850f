"""Commands say what weights a plan was computed from, and warn where others are pruned."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from safetensors.torch import save_file

import planc
from planc.cli import run
from planc.cli.named import load_model

FACTORY = """
from torch import nn

def net(width=8):
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2))
"""
MODEL = "origin_models:net"
INPUT = ["--input", "1x4"]
RANDOM = "planc: warning: weights as the factory builds them may be random: pass --weights FILE"


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "origin_models.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "origin_models", raising=False)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    for name, seed in (("a", 1), ("b", 2)):
        save_file(load_model(MODEL, {}, seed).state_dict(), f"{name}.safetensors")


def errors(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """The warnings that a command prints to standard error."""
    capsys.readouterr()
    assert run(list(arguments)) == 0
    lines = capsys.readouterr().err.splitlines()
    return [line for line in lines if line.startswith("planc: warning: ")]


def test_weights_of_a_factory_are_warned_about_and_those_of_a_file_are_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (line,) = errors(capsys, "plan", MODEL, *INPUT, "-o", "random.planc")
    assert line.startswith(RANDOM)
    assert planc.load_plan("random.planc").provenance[0].origin == "factory"
    assert not errors(capsys, "plan", MODEL, *INPUT, "--weights", "a.safetensors", "-o", "a.planc")
    made = planc.load_plan("a.planc").provenance[0]
    assert made.origin == "file"
    assert made.weights != planc.load_plan("random.planc").provenance[0].weights


def test_a_plan_that_removes_nothing_is_not_warned_about(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert not errors(capsys, "plan", MODEL, *INPUT, "--ratio", "0", "-o", "a.planc")


def test_weights_read_one_by_one_give_the_same_file(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["plan", MODEL, *INPUT, "--weights", "a.safetensors", "-o"]
    assert not errors(capsys, *given, "a.planc")
    assert not errors(capsys, *given, "meta.planc", "--meta")
    assert Path("a.planc").read_bytes() == Path("meta.planc").read_bytes()


def test_apply_and_verify_print_one_line_about_other_weights(
    capsys: pytest.CaptureFixture[str],
) -> None:
    errors(capsys, "plan", MODEL, *INPUT, "--weights", "a.safetensors", "-o", "a.planc")
    commands = {
        ("apply", "a.planc", "--out", "1", "--weights"): "b.safetensors: ",
        ("apply", "a.planc", MODEL, "--out", "2.safetensors", "--weights"): "b.safetensors: ",
        ("verify", "a.planc", MODEL, "--weights"): "verify: ",
    }
    for command, start in commands.items():
        (line,) = errors(capsys, *command, "b.safetensors")
        assert line.startswith(
            f"planc: warning: {start}the weights differ from those that the plan"
        )
    for command in commands:
        again = [argument.replace("1", "3").replace("2", "4") for argument in command]
        assert not errors(capsys, *again, "a.safetensors")


def test_scores_are_in_the_file_and_in_its_text_on_request(
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = ["plan", MODEL, *INPUT, "--weights", "a.safetensors", "-o"]
    errors(capsys, *given, "plain.planc")
    errors(capsys, *given, "scored.planc", "--scores")
    plain, scored = planc.load_plan("plain.planc"), planc.load_plan("scored.planc")
    assert all(group.scores is None for group in plain.groups)
    assert all(len(group.scores or b"") == 4 * group.size for group in scored.groups)
    capsys.readouterr()
    assert run(["show", "scored.planc", "--json"]) == 0
    text = capsys.readouterr().out
    assert json.loads(text)["groups"][0]["scores"] == (scored.groups[0].scores or b"").hex()
    Path("text.json").write_text(text)
    errors(capsys, "plan", "--from-json", "text.json", "-o", "again.planc")
    assert Path("again.planc").read_bytes() == Path("scored.planc").read_bytes()


def test_mask_plans_name_their_weights_and_are_warned_about_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (line,) = errors(capsys, "mask", MODEL, "-o", "a.masks")
    assert line.startswith(RANDOM)
    assert not errors(capsys, "mask", MODEL, "--weights", "a.safetensors", "-o", "b.masks")
    found = [planc.load_masks(name).provenance[0] for name in ("a.masks", "b.masks")]
    assert [made.origin for made in found] == ["factory", "file"]
    assert found[0].weights != found[1].weights
    text = ["plan", MODEL, *INPUT, "--weights", "a.safetensors", "--from-masks", "b.masks"]
    assert run([*text, "-o", "c.planc"]) == 0
    made = planc.load_plan("c.planc").provenance[0]
    assert (made.origin, made.weights) == ("", None)
