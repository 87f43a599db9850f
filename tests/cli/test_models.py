"""Claims of models and weights as everybody has them: every form of MODEL builds the same model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.shell_completion import ShellComplete
from torch import nn

import planc
from planc.cli import cli, run
from planc.cli.named import load_model, usual_input
from planc.errors import PlancError

SOURCE = """
from torch import nn
from parts import block

print("imported")


class Net(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.body, self.head = block(3, width), nn.Linear(width * 36, 5)

    def forward(self, x):
        print("running")
        return self.head(self.body(x).flatten(1))


class Zoo:
    net = Net


def build(width=16):
    print("building")
    return Net(width)


made = Net()


def leave():
    raise SystemExit(3)


def fail():
    return made["no such"]
"""
PARTS = """
from torch import nn


def block(before, after):
    return nn.Sequential(nn.Conv2d(before, after, 3), nn.ReLU())
"""
INPUT = ("--input", "2x3x8x8")


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with models in a file, in a package, and in a folder."""
    for folder in (tmp_path, tmp_path / "folder", tmp_path / "outer" / "package"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "parts.py").write_text(PARTS)
    (tmp_path / "mine.py").write_text(SOURCE)
    (tmp_path / "folder" / "my-net.v2.py").write_text(SOURCE)
    (tmp_path / "folder" / "random.py").write_text(SOURCE)  # a name of the standard library
    inner = SOURCE.replace("from parts", "from .parts")
    (tmp_path / "outer" / "package" / "nets.py").write_text(inner)
    (tmp_path / "outer" / "package" / "__init__.py").write_text("from .nets import *")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("mine", "parts", "package", "package.nets", "package.parts"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def planned(*arguments: str) -> bytes:
    Path("a.planc").unlink(missing_ok=True)
    assert run(["plan", *arguments, "-o", "a.planc"]) == 0
    return Path("a.planc").read_bytes()


@pytest.mark.parametrize(
    "model",
    [
        "mine:Net",
        "mine:Zoo.net",
        "mine.py:build",
        "./mine.py:Net",
        "folder/my-net.v2.py:build",
        "folder/random.py:build",
        "outer/package/nets.py:build",
        "outer/package:build",
        "mine.py:made",
        "mine:made",
    ],
)
def test_every_form_of_a_model_gives_the_same_plan(
    model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = planned(model, *INPUT)
    output, errors = capsys.readouterr()
    assert "running" in errors
    assert "running" not in output
    assert "building" not in output
    torch.manual_seed(0)
    assert [g.kept for g in planc.load_plan("a.planc").groups if g.removed] == [8]
    assert found == planned(model, *INPUT)


def test_a_factory_takes_keywords_and_an_instance_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert load_model("mine.py:build", {"width": 8}).body[0].weight.shape[0] == 8
    with pytest.raises(PlancError, match="is a model, not a factory: leave --set width=8 out"):
        load_model("mine.py:made", {"width": 8})


def test_an_instance_is_copied() -> None:
    first = load_model("mine:made")
    nn.init.zeros_(first.head.weight)
    assert load_model("mine:made").head.weight.abs().sum() > 0
    assert load_model("mine:made", device="meta").head.weight.is_meta


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("mine.py", "'mine.py' is no model: name the factory in it, such as mine.py:build"),
        ("mine.py:biuld", "module 'mine.py' has no factory 'biuld'; did you mean build"),
        ("other.py:build", "there is no file other.py"),
        ("mine:leave", "its code ended the program (SystemExit: 3)"),
        ("mine:fail", "mine:fail() failed: TypeError: 'Net' object is not subscriptable (mine.py:"),
        ("folder", "folder is a directory without config.json: name the code of its model"),
        (":build", "is no model"),
        ("mine:", "is no model"),
        ("", "is no model"),
        ("timm:resnet19", "timm has no model 'resnet19'; did you mean resnet18"),
    ],
)
def test_a_name_without_a_model_is_one_line(
    model: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if model.startswith("timm:"):
        pytest.importorskip("timm")
    assert run(["plan", model, *INPUT]) == 1
    [line] = [row for row in capsys.readouterr().err.splitlines() if row.startswith("planc:")]
    assert said in line


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("torchvision:resnet10", ["torchvision:resnet101"]),
        ("torchvision:nothing", []),
        ("torch", ["torchvision:", "torch"]),
        ("", ["torchvision:", "timm:", ""]),
        ("mine:bu", []),
        ("timm:resnet10t", ["timm:resnet10t"]),
    ],
)
def test_the_shell_completes_names_of_models(start: str, expected: list[str]) -> None:
    if start.startswith("timm:"):
        pytest.importorskip("timm")
    complete = ShellComplete(cli, {}, "planc", "_PLANC_COMPLETE")
    for command in (["plan"], ["verify", "a.planc"], ["apply", "a.planc"]):
        assert [item.value for item in complete.get_completions(command, start)] == expected


def test_a_library_that_is_not_installed_completes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    complete = ShellComplete(cli, {}, "planc", "_PLANC_COMPLETE")
    assert complete.get_completions(["plan"], "timm:resnet10t") == []
    with pytest.raises(PlancError, match=r"timm:resnet10t needs timm: .*; pip install timm"):
        load_model("timm:resnet10t")


def test_a_file_that_does_not_import_is_named_with_its_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, text, said in (
        ("bad1", "def build(:", "SyntaxError: invalid syntax (bad1.py, line 1)"),
        ("bad2", "\nimport no_such_library", "No module named 'no_such_library'"),
        ("bad3", "\n\n1 / 0", "ZeroDivisionError: division by zero (bad3.py:3)"),
        ("bad4", "import sys; sys.exit('usage: bad4')", "SystemExit: usage: bad4"),
    ):
        Path(f"{name}.py").write_text(text)
        for model in (f"{name}.py:build", f"{name}:build"):
            assert run(["plan", model, *INPUT]) == 1
            assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        ({"vocab_size": 300}, "1x16:int64"),
        ({"vocab_size": 300, "is_encoder_decoder": True}, ""),
        ({"image_size": 32, "num_channels": 1}, "1x1x32x32"),
        ({"pretrained_cfg": {"input_size": [3, 64, 96]}}, "1x3x64x96"),
        ({"hidden_size": 8}, ""),
        ([300], ""),
    ],
)
def test_the_configuration_of_a_directory_says_what_its_model_takes(
    config: Any, shape: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert usual_input(str(tmp_path)) == shape


def test_only_torchvision_and_directories_have_a_default_input(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for command in ("plan", "explain", "measure"):
        assert run([command, "mine:build"]) == 2
        [line] = [row for row in capsys.readouterr().err.splitlines() if row != "imported"]
        assert "mine:build: name the shape of its example input with --input" in line


def test_a_timm_model_is_built_by_name() -> None:
    pytest.importorskip("timm")
    model = load_model("timm:resnet10t", {"num_classes": 7}, device="meta")
    assert model.get_classifier().weight.shape[0] == 7


def test_a_directory_that_describes_no_model_is_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("empty").mkdir()
    for config, said in (
        ("{", "empty/config.json: not JSON"),
        ("[]", "names no architecture of transformers or timm"),
        ("{}", "names no architecture of transformers or timm"),
        (json.dumps({"architectures": ["NoSuchModel"]}), "has no 'NoSuchModel'"),
        (
            json.dumps({"architectures": ["NoSuchModel"], "auto_map": {"AutoModel": "a.B"}}),
            "read it, and add --trust-remote-code",
        ),
        (json.dumps({"architecture": "resnet19"}), "timm has no model 'resnet19'"),
    ):
        if "arch" in config:
            pytest.importorskip("transformers")
            pytest.importorskip("timm")
        Path("empty/config.json").write_text(config)
        assert run(["plan", "empty", *INPUT]) == 1
        [line] = capsys.readouterr().err.splitlines()
        assert said in line


def test_weights_are_taken_as_they_were_saved(capsys: pytest.CaptureFixture[str]) -> None:
    state = load_model("mine:build", seed=4).state_dict()
    torch.save(state, "flat.pt")
    torch.save({"model": state, "epoch": 3}, "nested.bin")
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, "wrapped.pth.tar")
    planned("mine:build", *INPUT, "--seed", "4")
    expected = planc.load_plan("a.planc").groups
    for name in ("flat.pt", "nested.bin", "wrapped.pth.tar"):
        stored = ("--weights", name)
        for command in (
            ("plan", "mine:build", *INPUT),
            ("explain", "mine:build", *INPUT),
            ("measure", "mine:build", *INPUT),
            ("mask", "mine:build"),
            ("verify", "a.planc", "mine:build"),
            ("apply", "a.planc", "mine:build", "-o", "b.safetensors"),
        ):
            capsys.readouterr()
            assert run([*command, *stored]) == 1, command
            assert f"{name}: is a pickle" in capsys.readouterr().err
        trusted = (*stored, "--trust-pickle")
        found = planned("mine:build", *INPUT, "--seed", "4", *trusted)
        assert planc.load_plan("a.planc").groups == expected
        assert planned("mine:build", *INPUT, "--seed", "4", *trusted, "--meta") == found
        assert run(["verify", "a.planc", "mine:build", *trusted]) == 0
        assert run(["explain", "mine:build", *INPUT, *trusted]) == 0
        assert run(["mask", "mine:build", *trusted]) == 0
        assert run(["apply", "a.planc", "mine:build", *trusted, "-o", f"{name}.safetensors"]) == 0
        assert (
            run(["verify", "a.planc", "mine:build", *trusted, "--result", f"{name}.safetensors"])
            == 0
        )


@pytest.mark.parametrize("output", ["out", "out.safetensors"])
def test_apply_with_a_model_writes_the_same_as_without(output: str) -> None:
    state = load_model("mine:build", seed=4).state_dict()
    torch.save({"model": state, "epoch": 3}, "a.pt")
    planned("mine:build", *INPUT)
    results = []
    for model in ((), ("mine:build",)):
        options = ("--weights", "a.pt", "--trust-pickle", "--keep-removed", "kept", "--overwrite")
        assert run(["apply", "a.planc", *model, *options, "-o", output]) == 0
        files = [Path(output)] if Path(output).is_file() else sorted(Path(output).iterdir())
        results.append({path.name: path.read_bytes() for path in files})
    assert results[0] == results[1]


def test_removed_values_are_kept_of_given_weights_only(capsys: pytest.CaptureFixture[str]) -> None:
    planned("mine:build", *INPUT)
    out = ("-o", "out", "--keep-removed", "kept")
    assert run(["apply", "a.planc", "mine:build", *out]) == 2
    assert "name them" in capsys.readouterr().err
    state = load_model("mine:build").state_dict()
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, "a.pt")
    stored = ("--weights", "a.pt", "--trust-pickle")
    assert run(["apply", "a.planc", "mine:build", *stored, *out]) == 1
    assert "under the model's own names" in capsys.readouterr().err


@pytest.mark.long
def test_a_print_to_the_original_standard_output_is_all_that_a_model_can_do() -> None:
    Path("loud.py").write_text(SOURCE.replace("from parts import block", PARTS))
    command = [sys.executable, "-m", "planc", "explain", "loud.py:build", *INPUT, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert isinstance(json.loads(done.stdout), (list, dict))
    assert "building" in done.stderr


def test_explain_takes_modules_patterns_and_plans(capsys: pytest.CaptureFixture[str]) -> None:
    planned("mine:build", *INPUT)
    capsys.readouterr()

    def told(*arguments: str) -> str:
        assert run(["explain", *arguments]) == 0
        return capsys.readouterr().out

    assert "belong to group body.0.weight:0 (16 channels)" in told("mine:build", "body", *INPUT)
    assert "to free it: name it in free_outputs (--free-outputs)" in told("mine:build", *INPUT)
    assert "kernel" not in told("mine:build", *INPUT)
    plan = told("a.planc")
    assert plan == "body.0.weight:0 (16 channels): 8 removed, 8 kept\n"
    assert "  3 members leave together:\n    body.0.weight:0\n" in told("a.planc", "body.*")
    [group] = json.loads(told("a.planc", "body.*", "--json"))
    assert group["members"] == ["body.0.weight:0", "body.0.bias:0", "head.weight:1"]
    assert len(group["removed"]) == 8
    assert run(["explain", "a.planc", "boddy"]) == 1
    assert "no group has a tensor, module or name 'boddy'" in capsys.readouterr().err
