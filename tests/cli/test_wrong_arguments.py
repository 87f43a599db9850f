"""A wrong argument of any command ends in one message and an exit code; nothing is written."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import planc
from planc.cli import cli, run
from planc.cli.named import load_model
from planc.policy.latency import measure
from tests.policy.latency.test_latency import macs

TOY = """
from torch import nn


def net(width=16):
    first, last = nn.Conv2d(3, width, 3), nn.Linear(8 * 16, 5)
    return nn.Sequential(first, nn.ReLU(), nn.Conv2d(width, 8, 3), nn.Flatten(), last)


class Raises(nn.Module):
    def forward(self, x):
        raise ValueError("shape trouble\\nand a second line")


class Exits(nn.Module):
    def forward(self, x):
        raise SystemExit(5)


class Lazy(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.LazyLinear(4)

    def forward(self, x):
        return self.last(x)


def none():
    return None


def pair():
    return net(), 1


def needs(width):
    return net()


def deep():
    return deep()


class Odd(BaseException):
    pass


def odd():
    raise Odd("no error")


def leave():
    import sys

    sys.exit("usage: toy")


word = "torch"
nothing = []


def batches():
    import torch

    return [torch.randn(2, 3, 8, 8) for _ in range(3)]
"""
INPUT = ("--input", "2x3x8x8")
PLAN = ("plan", "toy:net", *INPUT)


@pytest.fixture(scope="module", autouse=True)
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working directory with one file of each kind."""
    place = tmp_path_factory.mktemp("wrong")
    patch = pytest.MonkeyPatch()
    patch.chdir(place)
    patch.setattr(sys, "path", [*sys.path])
    patch.delitem(sys.modules, "toy", raising=False)
    patch.setattr(measure, "timer", lambda device: macs)
    Path("toy.py").write_text(TOY)
    for command in (
        (*PLAN, "-o", "a.planc"),
        (*PLAN, "--ratio", "0.25", "-o", "b.planc"),
        ("mask", "toy:net", "-o", "a.masks"),
        ("measure", "toy:net", *INPUT, "-o", "a.latency"),
    ):
        assert run(list(command)) == 0
    model, images = load_model("toy:net"), torch.randn(2, 3, 8, 8)
    save_file(model.state_dict(), "w.safetensors")
    torch.save(model.state_dict(), "w.pt")
    planc.save_statistics(planc.calibrate(model, [images], "wanda"), "a.statistics")
    kept = ("--keep-removed", "removed")
    command = ("apply", "a.planc", "--weights", "w.safetensors", "-o", "s.safetensors", *kept)
    assert run(list(command)) == 0
    Path("folder").mkdir()
    Path("a.html").write_text("<!DOCTYPE html>")
    Path("a.json").write_text('{"groups": 3}')
    Path("empty").write_bytes(b"")
    Path("text").write_text("hello\n")
    Path("noise").write_bytes(bytes(range(256)) * 4)
    Path("cut.planc").write_bytes(Path("a.planc").read_bytes()[:-9])
    yield place
    patch.undo()


FILES = (
    *("missing", "no/such/directory", "", "folder", "removed", "empty", "text", "noise"),
    *("cut.planc", "a.planc", "a.masks", "a.latency", "a.statistics", "w.safetensors", "w.pt"),
    *("s.safetensors", "a.json", "a.html", "toy.py", "toy:net"),
)
# a command with FILE in one place, and the files that are right there
PLACES: list[tuple[str, str]] = [
    ("show FILE", "a.planc a.masks a.latency"),
    ("diff FILE b.planc", "a.planc"),
    ("diff b.planc FILE", "a.planc"),
    ("report FILE -o out", "a.planc"),
    ("report b.planc FILE -o out", "a.planc"),
    ("apply FILE --weights w.safetensors -o out", "a.planc a.masks"),
    ("apply a.planc --weights FILE -o out", "w.safetensors"),
    ("apply a.planc --weights FILE --trust-pickle -o out", "w.safetensors w.pt"),
    ("apply a.planc FILE -o out", "toy:net"),
    ("apply a.planc toy:net --weights FILE -o out", "w.safetensors"),
    ("apply a.masks --weights FILE -o out", "w.safetensors"),
    ("inspect FILE", "s.safetensors"),
    ("restore FILE --removed removed -o out", "s.safetensors"),
    ("restore s.safetensors --removed FILE -o out", "removed"),
    ("verify FILE toy:net", "a.planc"),
    ("verify a.planc FILE", "toy:net"),
    ("verify a.planc toy:net --weights FILE", "w.safetensors"),
    ("verify a.planc toy:net --result FILE", "s.safetensors"),
    ("plan FILE --input 2x3x8x8 -o out", "toy:net"),
    ("plan toy:net --input 2x3x8x8 --weights FILE -o out", "w.safetensors"),
    ("plan toy:net --input 2x3x8x8 --meta --weights FILE -o out", "w.safetensors"),
    (
        "plan toy:net --input 2x3x8x8 --criterion wanda --statistics FILE -o out",
        "a.statistics",
    ),
    (
        "plan toy:net --input 2x3x8x8 --latency 0.9 --latency-table FILE -o out",
        "a.latency",
    ),
    ("plan --from-json FILE -o out", ""),
    ("plan toy:net --input 2x3x8x8 --from-masks FILE -o out", "a.masks"),
    ("plan toy:net --input 2x3x8x8 --from-history FILE -o out", ""),
    ("mask FILE -o out", "toy:net"),
    ("measure FILE --input 2x3x8x8 -o out", "toy:net"),
    ("calibrate FILE --data toy:batches --criterion wanda -o out", "toy:net"),
    ("calibrate toy:net --data FILE --criterion wanda -o out", "toy:net"),
    (
        "calibrate toy:net --data toy:batches --criterion wanda --weights FILE -o out",
        "w.safetensors",
    ),
    ("explain FILE --input 2x3x8x8", "toy:net a.planc"),
]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str, code: int | None = None) -> str:
    """Run a command that must fail with one message, and return the message."""
    before = sorted(path.name for path in Path().iterdir() if path.name != "__pycache__")
    capsys.readouterr()
    found = run(list(arguments))
    output, errors = capsys.readouterr()
    assert found in ((1, 2, 4) if code is None else (code,)), (arguments, errors)
    assert not output, arguments
    assert "Traceback" not in errors
    assert ": unexpected " not in errors, (arguments, errors)
    assert sorted(path.name for path in Path().iterdir() if path.name != "__pycache__") == before
    said = [line for line in errors.splitlines() if line.startswith(("planc: ", "Error: "))]
    assert len(said) == 1, (arguments, errors)
    assert len(said[0]) < 500, arguments
    return said[0]


@pytest.mark.parametrize(("command", "right"), PLACES)
def test_a_wrong_file_is_named(
    command: str, right: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in FILES:
        if name in right.split(" "):
            continue
        words = [name if word == "FILE" else word for word in command.split()]
        said = refused(capsys, *words)
        assert name in said or "two of one kind" in said or "name two plans" in said, said


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("show w.pt", "is a PyTorch file (.pt), not a plan; planc plan, apply and verify take it"),
        ("show w.safetensors", "is a safetensors file, not a plan; planc inspect prints it"),
        ("apply a.planc --weights b.planc -o out", "b.planc: is a plan, not a safetensors file"),
        ("verify toy:net a.planc", "this is the name of a MODEL: PLAN stands before it"),
        ("verify a.planc b.planc", "b.planc is a plan, not a model"),
        ("plan w.pt", "w.pt is a PyTorch file (.pt), not a model"),
        ("plan --from-json a.planc", "a.planc: is a plan, not JSON of planc show --json"),
    ],
)
def test_a_file_in_the_wrong_place_is_told_by_its_kind(
    command: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in refused(capsys, *command.split())


WRONG = """
2 nothing
2 plan
2 plan toy:net --bogus
2 plan toy:net more --input 2x3x8x8
2 show
2 show a.planc b.planc
2 show a.planc --json --bogus
2 diff a.planc
2 apply
2 apply a.planc
2 apply a.planc -o out
2 apply a.planc toy:net
2 apply a.planc toy:net -o
2 restore s.safetensors -o out
2 verify a.planc
2 explain
2 mask
2 measure
2 inspect
2 report
2 PLAN --macs half
2 PLAN --macs infM
2 PLAN --params 1e400M
2 PLAN --latency nanms
1 PLAN --macs -1
1 PLAN --macs -5%
1 PLAN --macs nan
1 PLAN --macs inf
1 PLAN --macs 0
1 PLAN --latency -5ms --latency-table a.latency
1 PLAN --latency 0.5
1 PLAN --latency-table a.planc
1 PLAN --machine abacus
2 PLAN --ratio 1
2 PLAN --ratio half
2 PLAN --ratio nan
1 PLAN --ratio 0.5 --macs 0.5
2 PLAN --criterion l3
1 PLAN --criterion taylor
2 PLAN --ranking best
1 PLAN --ranking isomorphic --global
2 PLAN --round-to 0
2 PLAN --cap 2
2 PLAN --cap nan
1 PLAN --keep nothing*
1 PLAN --keep [
1 PLAN --only nothing
1 PLAN --kind head=0.5
2 PLAN --kind heads
2 PLAN --kind heads=1e
2 PLAN --kind channels=2
1 PLAN --rows nothing
1 PLAN --ratio-of x=0.5
2 PLAN --target onnx
2 PLAN --set width
1 PLAN --set depth=3
1 PLAN --set width=-1
1 PLAN --set width=wide
2 PLAN --seed -1
2 PLAN --seed 99999999999999999999999
1 plan toy:net --input 2x4x8x8
1 plan toy:net --input 2x3x8
2 plan toy:net --input x
2 plan toy:net --input -2x3
1 plan toy:net --input 2x3x8x8:float23
1 plan toy:net --input 2x3x8x8:int64
1 plan toy:net --input 99999x99999x9999
1 plan toy:net --input 99999999999999999999x3
1 PLAN --input 2x3x8x8
1 PLAN -o folder
1 PLAN -o no/such/directory/a.planc
1 PLAN -o toy.py/a.planc
2 PLAN --meta
1 PLAN --from-json a.json
2 PLAN --from-masks a.masks --ratio 0.5
2 PLAN --from-history a.json --ratio 0.5
2 PLAN --from-history a.json --from-masks a.masks
2 plan toy:net
1 plan toy:nett
1 plan tow:net
1 plan torchvision:resnet55
1 plan torchvision:
1 plan toy:none --input 1x8
1 plan toy:pair --input 1x8
1 plan toy:needs --input 1x8
1 plan toy:deep --input 1x8
1 plan toy:odd --input 1x8
1 plan toy:leave --input 1x8
1 plan toy:Raises --input 1x8
1 plan toy:Exits --input 1x8
1 plan toy:Lazy --input 1x8
1 plan toy:word --input 1x8
1 explain toy:Exits --input 1x8
1 explain toy:Raises --input 1x8
1 measure toy:Exits --input 1x8
1 mask toy:odd
1 measure toy:net --input 2x3x8x8 --device nonsense
2 measure toy:net --input 2x3x8x8 --threads 0
2 recover toy:net
1 recover toy:net no.safetensors --input 2x3x8x8
2 recover toy:net s.safetensors
1 recover toy:net w.safetensors --input 2x4x8x8
2 recover toy:net w.safetensors --input 2x3x8x8 --least 2
1 recover toy:net a.planc --input 2x3x8x8
1 recover toy:net w.safetensors --input 2x3x8x8 -o folder
2 calibrate
2 calibrate toy:net --criterion wanda -o out
2 calibrate toy:net --data toy:batches -o out
2 calibrate toy:net --data toy:batches --criterion wanda
2 calibrate toy:net --data toy:batches --criterion l2 -o out
2 calibrate toy:net --data toy:batches --criterion wanda --batches 0 -o out
1 calibrate toy:net --data toy:batches --criterion taylor -o out
1 calibrate toy:net --data toy:batches --criterion taylor --loss no_loss -o out
1 calibrate toy:net --data toy:batches --criterion taylor --loss toy:none -o out
1 calibrate toy:net --data toy:word --criterion wanda -o out
1 calibrate toy:net --data toy:none --criterion wanda -o out
1 calibrate toy:net --data toy:needs --criterion wanda -o out
1 calibrate toy:net --data toy:nothing --criterion wanda -o out
1 calibrate toy:net --data toy:batches --criterion wanda --device nonsense -o out
1 calibrate toy:net --data toy:batches --criterion wanda -o folder
2 mask toy:net --n-of-m 4
1 mask toy:net --n-of-m 5:4
1 mask toy:net --n-of-m 0:0
1 mask toy:net --n-of-m 2:4 --along 9
2 mask toy:net --ratio 1.5
2 mask toy:net --ratio nan
2 mask toy:net --largest 0.5
1 mask toy:net --only nothing
1 explain toy:net 0.weihgt --input 2x3x8x8
1 explain toy:net 0.weight:9 --input 2x3x8x8
1 explain toy:net 0.weight:x --input 2x3x8x8
1 apply a.planc toy:net --set width=24 -o out
1 apply a.planc --weights s.safetensors -o out
1 apply a.planc --weights w.safetensors -o w.safetensors
2 apply a.planc --weights w.safetensors -o out --sha256 12
1 apply a.planc --weights w.safetensors -o out --sha256 SHA
2 apply a.planc --weights w.safetensors -o out --workers 0
2 apply a.planc --weights w.safetensors -o out --keep-removed out
2 apply a.planc toy:net -o out --keep-removed kept
1 verify a.planc toy:net --input 2x4x8x8
1 verify a.planc torchvision:squeezenet1_0
1 verify a.planc toy:net --set width=24
2 diff a.planc a.masks
1 report a.planc -o a.planc
1 report a.planc -o folder
"""


@pytest.mark.parametrize("line", WRONG.strip().splitlines())
def test_a_wrong_argument_is_one_message(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, *words = line.replace("PLAN", " ".join(PLAN)).replace("SHA", "0" * 64).split()
    refused(capsys, *words, code=int(code))


def test_every_command_is_tried() -> None:
    lines = [*(place for place, _ in PLACES), *(line[2:] for line in WRONG.strip().splitlines())]
    assert {line.split()[0] for line in lines} >= set(cli.commands) - {"edit"}


def test_the_traceback_of_a_factory_is_shown_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (
        ("plan", "toy:needs", "--input", "1x8", "--debug"),
        ("--debug", "plan", "toy:needs", "--input", "1x8"),
        ("mask", "toy:leave", "--debug"),
    ):
        assert run(list(command)) == 1
        errors = capsys.readouterr().err
        assert errors.count("Traceback") == 1
        assert errors.splitlines()[-1].startswith("planc: toy:")
    assert "toy.py" in errors


def test_an_error_of_no_known_kind_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise KeyError("a fault of planc")

    monkeypatch.setattr(planc, "inspect", fails)
    assert run(["inspect", "s.safetensors"]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("planc: unexpected KeyError: 'a fault of planc'; --debug prints")
