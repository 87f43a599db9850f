"""The end of ``planc plan``: the sum, remarks, what it wrote and the next command; one notation."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import pytest

import planc
from planc.cli import run
from planc.cli.options import amount, proportion

FACTORY = """
from torch import nn

def net(width=16):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, 8, 3), nn.Flatten(),
                         nn.Linear(8 * 16, 5))
"""
PLAN = ("plan", "ending_models:net", "--input", "1x3x8x8")


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ending_models.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "ending_models", raising=False)


def ended(
    capsys: pytest.CaptureFixture[str], *options: str, code: int = 0
) -> tuple[list[str], list[str]]:
    """The lines on standard output and on standard error."""
    capsys.readouterr()
    assert run([*PLAN, *options]) == code
    output, errors = capsys.readouterr()
    return output.splitlines(), errors.splitlines()


def test_a_plan_ends_with_its_sum_its_file_and_commands_that_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output, errors = ended(capsys, "-o", "my plan.planc")
    assert output == str(planc.load_plan("my plan.planc")).splitlines()
    assert "wrote my plan.planc" in errors
    commands = errors[-1].removeprefix("next: ").split(", then ")
    assert len(commands) == 2
    for command in commands:
        assert run(shlex.split(command)[1:]) == 0
    assert Path("my plan-pruned.safetensors").is_file()


def test_a_plan_without_a_file_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    _, errors = ended(capsys)
    assert errors[-1] == "nothing is written: -o FILE saves the plan"


def test_settings_of_the_factory_are_not_lost_in_the_next_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, errors = ended(capsys, "--set", "width=32", "-o", "a.planc")
    assert errors[-1] == "next: planc show a.planc"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--macs", "100G"), "--macs 100G asks for nothing: the model has 34.6 k MACs"),
        (("--params", "1.0"), "--params 100% asks for nothing: the model has 2.25 k parameters"),
        (("--bytes", "1MB"), "--bytes 1.00M asks for nothing"),
        (("--ratio", "0.99"), "2 of 2 groups keep a single unit, such as 0: --floor N"),
        (("--ratio", "80%", "--keep", "0*", "--floor", "1"), ""),
        (("--macs", "50%"), ""),
    ],
)
def test_odd_plans_get_a_note(
    options: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    notes = [line for line in ended(capsys, *options)[1] if line.startswith("planc: note: ")]
    assert len(notes) == bool(said)
    assert said in "".join(notes)


def test_latency_is_in_the_plan_and_on_every_screen(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["measure", *PLAN[1:], "-o", "a.latency"]) == 0
    capsys.readouterr()
    for name, amounts in (("a", ("--macs", "50%", "--latency", "100%")), ("b", ("--ratio", "25%"))):
        output, _ = ended(capsys, *amounts, "--latency-table", "a.latency", "-o", f"{name}.planc")
        (line,) = (text for text in output if text.startswith("latency"))
        assert re.fullmatch(r"latency [\d.]+ [µm]s → [\d.]+ [µm]s \(.\d+ %\) on .+", line)
        assert run(["show", f"{name}.planc", "--width", "400"]) == 0
        assert line in capsys.readouterr().out
        assert run(["report", f"{name}.planc"]) == 0
        page = Path(f"{name}.html").read_text()
        assert line.removeprefix("latency ") in page
        assert "Latency of a run" in page
    ended(capsys, "--ratio", "25%", "-o", "c.planc")
    for other, shown in (("b.planc", r"[\d.]+ .s \("), ("c.planc", "unknown")):
        assert run(["diff", "a.planc", other, "--stat"]) == 1
        assert re.search(rf"latency [\d.]+ .s \(.*→ {shown}", capsys.readouterr().out)
    assert run(["diff", "b.planc", "c.planc"]) == 1  # by latency alone
    assert run(["diff", "b.planc", "c.planc", "--latency-table", "a.latency"]) == 0
    capsys.readouterr()
    assert run(["show", "c.planc", "--latency-table", "a.latency", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["latency"]
    assert 0 < found["after"] < found["before"]
    assert f"on {found['machine']}" in line


def test_shares_are_written_alike_in_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    plans = []
    for number, (ratio, cap) in enumerate((("0.25", "0.9"), ("25%", "90%"), ("25 %", "90.0%"))):
        name = f"{number}.planc"
        scopes = ("--kind", f"channels={ratio}", "--ratio-of", f"0*={ratio}")
        ended(capsys, "--ratio", ratio, "--cap", cap, *scopes, "-o", name)
        plans.append(Path(name).read_bytes())
    assert len(set(plans)) == 1
    for option in ("--ratio", "--cap"):
        for text in ("50", "half", "100%", "-5%", "nan"):
            _, errors = ended(capsys, f"{option}={text}", code=2)
            assert "share" in errors[-1]
    assert "50% is written with its sign" in ended(capsys, "--ratio", "50", code=2)[1][-1]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("100k", 100_000),
        ("100K", 100_000),
        ("100 k", 100_000),
        ("100kB", 100_000),
        ("2M", 2_000_000),
        ("2.5 MB", 2_500_000),
        ("1T", 10**12),
        ("2,000,000", 2_000_000),
        ("50%", 0.5),
        ("50 %", 0.5),
        ("0.5", 0.5),
    ],
)
def test_budgets_have_one_notation(text: str, value: float) -> None:
    assert amount(text) == value
    assert type(amount(text)) is type(value)


def test_a_proportion_is_at_most_the_whole() -> None:
    assert [proportion(text) for text in ("0", "1", "100%", " 12.5% ")] == [0, 1, 1, 0.125]
    for text in ("1.5", "101%", "", "%", "inf"):
        with pytest.raises(ValueError, match="share"):
            proportion(text)
