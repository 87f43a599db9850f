"""The commands as a user runs them: what they print, what they write, and how they fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import planc
from planc import masks
from planc.cli import run
from planc.cli.named import load_model
from planc.cli.options import CRITERIA, RANKINGS, amount, duration
from planc.compile import RankingName
from planc.criteria import NAMES
from planc.plan.masks import mask_plan
from planc.plan.plan import TensorSpec
from planc.plan.weights import with_origin
from tests.policy.latency.test_latency import macs

FACTORY = """
from torch import nn

WIDTH = 3

def net(width=16, act="relu"):
    first = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU())
    return nn.Sequential(first, nn.Conv2d(width, 8, 3), nn.Flatten(), nn.Linear(8 * 16, 5))

def word():
    return "not a module"

def broken():
    raise RuntimeError("no such luck")
"""
MODEL = "toy_models:net"
INPUT = ["--input", "2x3x8x8"]

Run = Callable[..., str]


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a module of models in it."""
    (tmp_path / "toy_models.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "toy_models", raising=False)
    return tmp_path


@pytest.fixture
def succeed(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command that must exit with 0, or the given code, and returns its standard output."""

    def call(*arguments: str, code: int = 0) -> str:
        capsys.readouterr()
        found = run(list(arguments))
        output, errors = capsys.readouterr()
        assert found == code, errors
        return output

    return call


@pytest.fixture
def fail(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command that must fail with a message and write nothing; returns the message."""

    def call(*arguments: str, code: int = 1) -> str:
        before = sorted(Path().iterdir())
        capsys.readouterr()
        assert run(list(arguments)) == code
        output, errors = capsys.readouterr()
        assert not output
        assert "Traceback" not in errors
        after = [path for path in sorted(Path().iterdir()) if path.name != "__pycache__"]
        assert after == [path for path in before if path.name != "__pycache__"]
        return errors

    return call


def planned(path: str, *options: str, model: str = MODEL) -> planc.Plan:
    assert run(["plan", model, *INPUT, *options, "-o", path]) == 0
    return planc.load_plan(Path(path))


def weights(path: str, seed: int = 3, width: int = 16) -> None:
    save_file(load_model(MODEL, {"width": width}, seed).state_dict(), path)


def test_wishes_that_leave_nothing_to_remove_are_a_line_on_standard_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["plan", MODEL, *INPUT, "--floor", "100"]) == 0
    assert capsys.readouterr().err == (
        "planc: warning: floor(..., 100): every group stays whole and nothing is removed; the "
        "largest, 0.0.weight:0, has 16 units: ask for less\n"
        "nothing is written: -o FILE saves the plan\n"
    )


def test_help_answers_in_less_than_300_ms() -> None:
    command = [sys.executable, "-c", "from planc.cli import main; main()", "--help"]
    root = Path(planc.__file__).parent.parent
    taken = []
    for _ in range(3):
        before = os.times()
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
        after = os.times()  # of the processor, not of the clock: other tests run beside this one
        user = after.children_user - before.children_user
        taken.append(user + after.children_system - before.children_system)
    assert "Exit codes:" in done.stdout
    assert min(taken) < 0.3


def test_plan_writes_what_it_sums_up(succeed: Run) -> None:
    shown = succeed("plan", MODEL, *INPUT, "--ratio", "0.5", "-o", "a.planc")
    assert "2 groups, 24 channels: 12 removed" in shown
    assert shown == f"{planc.load_plan('a.planc')}\n"


def test_plan_without_output_writes_nothing(succeed: Run) -> None:
    before = set(Path().iterdir())
    assert "2 groups, 24 channels: 12 removed" in succeed("plan", MODEL, *INPUT)
    assert {path.name for path in set(Path().iterdir()) - before} <= {"__pycache__"}


def test_equal_command_lines_give_equal_bytes() -> None:
    for name in ("a.planc", "b.planc"):
        planned(name, "--criterion", "random", "--seed", "5")
    assert Path("a.planc").read_bytes() == Path("b.planc").read_bytes()


def test_every_named_criterion_and_ranking_is_an_option() -> None:
    assert sorted(CRITERIA) == sorted(NAMES)
    assert get_args(RankingName) == RANKINGS


def test_statistics_decide_where_a_criterion_needs_them(fail: Run) -> None:
    assert planned("l2.planc").provenance[0].criterion == "l2"
    model, drawn = load_model(MODEL, {}, 0), torch.randn(2, 3, 8, 8)
    planc.save_statistics(planc.calibrate(model, [drawn], "wanda"), "s.safetensors")
    found = planned("w.planc", "--criterion", "wanda", "--statistics", "s.safetensors")
    assert found.provenance[0].criterion == "wanda"
    said = fail("plan", MODEL, *INPUT, "--criterion", "taylor", "--statistics", "s.safetensors")
    assert "needs statistics of squared_gradient, these have inputs over 1 batches" in said


def test_calibrate_writes_what_the_library_collects(fail: Run, succeed: Run) -> None:
    Path("data.py").write_text(
        "import torch\n"
        "torch.manual_seed(3)\n"
        "loader = [[torch.randn(2, 3, 8, 8), torch.tensor([1, 0])] for _ in range(3)]\n"
        "def images(): return (batch[0] for batch in loader)\n"
        "def loss(model, batch): return model(batch[0]).square().mean()\n"
    )
    model = load_model(MODEL, {}, 0)
    torch.manual_seed(3)
    pairs = [(torch.randn(2, 3, 8, 8), torch.tensor([1, 0])) for _ in range(3)]
    images = [batch[0] for batch in pairs]

    def cross_entropy(model: torch.nn.Module, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(model(batch[0]), batch[1])

    def square(model: torch.nn.Module, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return model(batch[0]).square().mean()

    for options, expected in (
        (("data.py:images", "--criterion", "wanda"), planc.calibrate(model, images, "wanda")),
        (
            ("data:images", "--criterion", "wanda", "--batches", "2"),
            planc.calibrate(model, images[:2], "wanda"),
        ),
        (
            ("data:loader", "--criterion", "taylor", "--criterion", "obd", "--loss", "data:loss"),
            planc.calibrate(model, pairs, ["taylor", "obd"], square),
        ),
        (
            ("data:loader", "--criterion", "taylor", "--loss", "cross_entropy"),
            planc.calibrate(model, pairs, "taylor", cross_entropy),
        ),
    ):
        succeed("calibrate", MODEL, "--data", *options, "-o", "s.safetensors")
        found = planc.load_statistics("s.safetensors")
        assert found.batches == expected.batches
        assert found.tensors.keys() == expected.tensors.keys()
        for name, tensor in expected.tensors.items():
            assert torch.equal(found.tensors[name], tensor)
    plan = planned("t.planc", "--criterion", "taylor", "--statistics", "s.safetensors")
    assert plan.provenance[0].criterion == "taylor per element, p=2"


def test_options_reach_the_plan() -> None:
    [group] = [g for g in planned("a.planc", "--ratio", "0.25").groups if g.name == "0.0.weight:0"]
    assert len(group.removed) == 4
    kept = planned("b.planc", "--keep", "0.0.*")
    assert [len(g.removed) for g in kept.groups if g.name == "0.0.weight:0"] == [0]
    only = planned("c.planc", "--only", "0.0.*")
    assert {g.name for g in only.groups if g.removed} == {"0.0.weight:0"}
    rounded = planned("d.planc", "--ratio", "0.3", "--round-to", "8")
    assert all(g.kept % 8 == 0 for g in rounded.groups if g.removed)
    assert planned("e.planc", "--target", "graph").target == "graph"
    wider = planned("f.planc", "--set", "width=32", "--set", "act=gelu")
    assert {g.size for g in wider.groups if g.name == "0.0.weight:0"} == {32}


def test_budgets_reach_the_plan() -> None:
    for name, text, share in (
        ("macs", "50%", 0.5),
        ("params", "0.7", 0.7),
        ("bytes", "1k", None),
    ):
        plan = planned("a.planc", f"--{name}", text)
        before, after = (getattr(cost, name) for cost in (plan.cost_before, plan.cost_after))
        assert after <= (1000 if share is None else share * before)
    both = planned("b.planc", "--macs", "0.5", "--params", "0.4", "--round-to", "2", "--equal")
    assert both.provenance[0].policy == "equal(rounded(uniform, 2)) within macs=0.5, params=0.4"


def test_rankings_caps_and_scopes_reach_the_plan() -> None:
    for ranking, made in (
        ("isomorphic", "isomorphic(0.5)"),
        ("per_cost", "per_cost(0.5, macs)"),
        ("global", "global(0.5)"),
    ):
        assert planned("a.planc", "--ranking", ranking).provenance[0].policy == made
    scoped = planned("b.planc", "--ratio-of", "0.0*=0.25", "--cap", "0.9")
    assert scoped.provenance[0].policy == "capped(ratios(uniform(0.5), 0.0*=0.25), 0.9)"


def test_a_budget_is_a_share_or_a_figure_as_it_is_written() -> None:
    for text, read in (
        ("0.5", 0.5),
        ("1.0", 1.0),
        ("40%", 0.4),
        ("2000", 2000),
        ("2_000", 2000),
        ("1.5G", 1_500_000_000),
        ("3k", 3000),
    ):
        assert amount(text) == read
        assert type(amount(text)) is type(read)


def test_a_budget_that_is_none_is_an_error(fail: Run) -> None:
    for text in ("half", "", "M", "1.5X"):
        assert "--macs" in fail("plan", MODEL, "--macs", text, code=2)
    assert "a share above 1" in fail("plan", MODEL, *INPUT, "--macs", "1.5")
    assert "closest that can be reached" in fail("plan", MODEL, *INPUT, "--macs", "1")
    assert "give one of them" in fail("plan", MODEL, *INPUT, "--macs", "0.5", "--ratio", "0.5")


def test_show_and_diff_and_explain_speak_json(succeed: Run) -> None:
    planned("a.planc", "--ratio", "0.5")
    planned("b.planc", "--ratio", "0.25")
    assert json.loads(succeed("show", "a.planc", "--json"))
    assert json.loads(succeed("diff", "a.planc", "b.planc", "--json", code=1))
    found = json.loads(succeed("explain", MODEL, "0.0.weight:0", *INPUT, "--json"))
    assert [(entry["tensor"], entry["dim"]) for entry in found] == [("0.0.weight", 0)]
    assert any("0.1.running_mean" in line for line in found[0]["reasons"])


def test_explain_says_why_the_classifier_keeps_its_classes(succeed: Run) -> None:
    assert "output" in succeed("explain", MODEL, "3.weight:0", *INPUT)
    assert "3.bias:0" in succeed("explain", MODEL, *INPUT)


def test_diff_of_equal_plans_exits_with_0(succeed: Run) -> None:
    planned("a.planc")
    planned("b.planc")
    succeed("diff", "a.planc", "b.planc")


def test_a_page_is_written_beside_the_plan_and_never_over_it(
    succeed: Run, fail: Run, directory: Path
) -> None:
    planned("a.planc", "--ratio", "0.5")
    planned("b.planc", "--ratio", "0.25")
    succeed("report", "a.planc")
    alone = (directory / "a.html").read_text()
    assert "0.0.weight:0" in alone
    assert "side by side" not in alone
    assert sha256((directory / "a.planc").read_bytes()).hexdigest() in alone
    succeed("report", "a.planc", "b.planc", "b.planc", "-o", "three.html")
    assert "side by side" in (directory / "three.html").read_text()
    assert "MACs are" not in alone
    succeed("report", "a.planc", "--model", MODEL, "-o", "macs.html")
    assert "Where the parameters and MACs are" in (directory / "macs.html").read_text()
    assert "at most 3 plans" in fail("report", *["a.planc"] * 4, "-o", "four.html")
    before = (directory / "b.planc").read_bytes()
    assert "name another file" in fail("report", "a.planc", "b.planc", "-o", "b.planc")
    assert (directory / "b.planc").read_bytes() == before


def test_mask_plans_are_shown_and_compared_too(succeed: Run) -> None:
    model = torch.nn.Linear(8, 4)
    for name, ratio in (("a.masks", 0.5), ("b.masks", 0.25)):
        planc.save_masks(masks.select(model, masks.PerTensor(ratio)), name)
    assert "16 of 32 elements" in succeed("show", "a.masks")
    assert json.loads(succeed("show", "b.masks", "--json"))["removed"] == 8
    assert "equal" in succeed("diff", "a.masks", "a.masks")
    assert "weight" in succeed("diff", "a.masks", "b.masks", code=1)
    found = json.loads(succeed("diff", "a.masks", "b.masks", "--json", code=1))
    assert found["tensors"] == [{"name": "weight", "only_a": 8, "only_b": 0, "both": 8}]
    planned("a.planc")
    assert run(["diff", "a.planc", "a.masks"]) == 2


def masked(path: str, *options: str) -> planc.MaskPlan:
    assert run(["mask", MODEL, *options, "-o", path]) == 0
    return planc.load_masks(path)


def test_mask_plans_are_made_as_the_library_makes_them(succeed: Run) -> None:
    model = load_model(MODEL, {}, 0)
    for options, policy in (
        ((), masks.PerTensor(0.5)),
        (("--ratio", "0.25"), masks.PerTensor(0.25)),
        (("--global", "--largest", "0.7"), masks.GlobalElements(0.5, 0.7)),
        (("--n-of-m", "2:4", "--only", "3.weight"), masks.NofM(2, 4)),
        (("--n-of-m", "1:2", "--along", "0", "--keep", "3"), masks.NofM(1, 2, 0)),
    ):
        named = {"only": ["3.weight"]} if "--only" in options else {}
        named |= {"keep": ["3"]} if "--keep" in options else {}
        expected = with_origin(masks.select(model, policy, **named), "factory")
        assert masked("a.masks", *options) == expected
    drawn = masked("a.masks", "--criterion", "random", "--seed", "5")
    model = load_model(MODEL, {}, 5)
    expected = masks.select(model, masks.PerTensor(0.5), masks.RandomElements(5), seed=5)
    assert drawn == with_origin(expected, "factory")
    assert "tensors removed, −50 %" in succeed("mask", MODEL)


def test_mask_plans_make_zeros_in_files_and_are_taken_back(succeed: Run) -> None:
    plan = masked("a.masks", "--ratio", "0.7")
    weights("in.safetensors")
    command = ("apply", "a.masks", "--weights", "in.safetensors", "--keep-removed", "kept")
    succeed(*command, "-o", "out.safetensors")
    original, found = load_file("in.safetensors"), load_file("out.safetensors")
    expected = masks.apply(plan, original)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert sum(int((found[m.tensor] == 0).sum()) for m in plan.masks) == plan.removed
    succeed("restore", "out.safetensors", "--removed", "kept", "-o", "back.safetensors")
    assert Path("in.safetensors").read_bytes() == Path("back.safetensors").read_bytes()


def test_masked_units_become_a_plan(succeed: Run, fail: Run) -> None:
    model = load_model(MODEL, {}, 3)
    tensors = planc.analyze(planc.trace(model, torch.zeros(2, 3, 8, 8))).graph.tensors
    specs = tuple(TensorSpec(t.names, t.shape, t.kind) for t in tensors)
    gone = {
        t.names[0]: np.zeros(t.shape, dtype=bool)
        for t in tensors
        if t.names[0] in ("0.0.weight", "0.0.bias", "0.1.weight", "0.1.bias")
    }
    for elements in gone.values():
        elements[[2, 5]] = True
    planc.save_masks(mask_plan(specs, gone), "a.masks")
    command = ("plan", MODEL, *INPUT, "--seed", "3", "--from-masks", "a.masks")
    succeed(*command, "-o", "a.planc")
    removed = {group.name: group.removed for group in planc.load_plan(Path("a.planc")).groups}
    assert removed["0.0.weight:0"] == (2, 5)
    assert "--ratio and --from-masks" in fail(*command, "--ratio", "0.5", code=2)


def test_a_history_of_torch_pruning_becomes_a_plan(succeed: Run, fail: Run) -> None:
    history = [["0.0", True, [2, 5]], ["0.0", True, [0]], ["0.9", True, [0]]]
    Path("a.json").write_text(json.dumps(history[:2]))
    command = ("plan", MODEL, *INPUT, "--from-history", "a.json")
    assert "3 removed" in succeed(*command, "-o", "a.planc")
    removed = {group.name: group.removed for group in planc.load_plan(Path("a.planc")).groups}
    assert removed["0.0.weight:0"] == (0, 2, 5)
    assert "the history says what goes" in fail(*command, "--macs", "50%", code=2)
    Path("a.json").write_text(json.dumps(history))
    assert "history[2]: the model has no layer '0.9'" in fail(*command)


def test_mask_requests_that_mean_nothing_are_refused(fail: Run, succeed: Run) -> None:
    assert "0.0.weight" in fail("mask", MODEL, "--keep", "0.0.weihgt")
    assert "write 2:4" in fail("mask", MODEL, "--n-of-m", "two", code=2)
    assert "leave --ratio" in fail("mask", MODEL, "--n-of-m", "2:4", "--ratio", "0.5", code=2)
    assert "give --global" in fail("mask", MODEL, "--largest", "0.5", code=2)
    assert "not a multiple of 4" in fail("mask", MODEL, "--n-of-m", "2:4")
    assert "keeps more elements" in fail("mask", MODEL, "--n-of-m", "5:4")
    masked("a.masks")
    weights("wide.safetensors", width=20)
    out = ("-o", "out.safetensors")
    wide = fail("apply", "a.masks", "--weights", "wide.safetensors", *out)
    assert "0.0.weight: expected shape (16, 3, 3, 3), found (20, 3, 3, 3)" in wide
    assert "safetensors of --weights" in fail("apply", "a.masks", MODEL, *out, code=2)
    weights("in.safetensors")
    planned("a.planc")
    succeed("apply", "a.planc", "--weights", "in.safetensors", "-o", "small.safetensors")
    small = fail("apply", "a.masks", "--weights", "small.safetensors", *out)
    assert "0.0.weight: expected shape (16, 3, 3, 3), found (8, 3, 3, 3)" in small
    digest = ("--sha256", "0" * 64)
    assert "SHA-256" in fail("apply", "a.masks", "--weights", "in.safetensors", *out, *digest)


# -- latency ---------------------------------------------------------------------------------------


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch, succeed: Run) -> planc.LatencyTable:
    """What planc measure writes, by a clock that counts multiply-accumulates."""
    import planc.policy.latency.measure as measure

    monkeypatch.setattr(measure, "timer", lambda device: macs)
    assert "aten.conv2d.default" in succeed("measure", MODEL, *INPUT, "-o", "a.latency")
    return planc.load_latency("a.latency")


def test_a_measured_latency_bounds_a_plan(table: planc.LatencyTable, succeed: Run) -> None:
    whole = planned("a.planc", "--ratio", "0").cost_before.macs
    for text, most in (("50%", 0.5 * whole), (f"{whole // 2}ns", whole // 2), ("40us", 40_000)):
        plan = planned("a.planc", "--latency", text, "--latency-table", "a.latency")
        assert 0.7 * most < plan.cost_after.macs <= most  # what this clock counts
    assert table.machine in succeed("show", "a.latency")
    found = json.loads(succeed("show", "a.latency", "--json"))
    assert sum(entry["nanoseconds"] for entry in found["operators"]) == whole


def test_a_latency_is_a_share_or_a_time_as_it_is_written() -> None:
    for text, read in (("0.5", 0.5), ("50%", 0.5), ("2ms", 2_000_000), ("1.5us", 1500), ("7", 7)):
        assert duration(text) == read
        assert type(duration(text)) is type(read)


def test_a_latency_that_means_nothing_is_refused(table: planc.LatencyTable, fail: Run) -> None:
    given = ("--latency-table", "a.latency")
    assert "planc measure" in fail("plan", MODEL, *INPUT, "--latency", "0.5")
    assert "write a share" in fail("plan", MODEL, "--latency", "soon", *given, code=2)
    other = fail("plan", MODEL, *INPUT, "--set", "width=24", "--latency", "0.5", *given)
    assert "a model of another structure" in other
    small = fail("plan", MODEL, "--input", "1x3x8x8", "--latency", "0.5", *given)
    assert "measured for inputs float32[2, 3, 8, 8]" in small
    named = fail("plan", MODEL, *INPUT, "--latency", "0.5", *given, "--machine", "abacus")
    assert f"measured on {table.machine!r}, the plan is for machine 'abacus'" in named
    assert "closest that can be reached" in fail("plan", MODEL, *INPUT, "--latency", "3ns", *given)
    assert "it applies to nothing" in fail("apply", "a.latency", "--weights", "x", "-o", "y")
    assert "name two plans" in fail("diff", "a.latency", "a.latency", code=2)


def test_apply_to_weights_alone_equals_apply_to_the_model(succeed: Run) -> None:
    plan = planned("a.planc")
    weights("in.safetensors")
    succeed("apply", "a.planc", "--weights", "in.safetensors", "-o", "alone.safetensors")
    succeed("apply", "a.planc", MODEL, "--weights", "in.safetensors", "-o", "model.safetensors")
    alone, built = load_file("alone.safetensors"), load_file("model.safetensors")
    assert alone.keys() == built.keys()
    assert all(torch.equal(alone[name], built[name]) for name in alone)
    assert alone["0.0.weight"].shape == (8, 3, 3, 3)
    parameters = sum(t.numel() for name, t in alone.items() if name.endswith(("weight", "bias")))
    assert parameters == plan.cost_after.params


def test_the_seed_builds_the_model_where_no_weights_are_given(succeed: Run) -> None:
    planned("a.planc")
    weights("in.safetensors", seed=7)
    succeed("apply", "a.planc", MODEL, "--seed", "7", "-o", "seeded.safetensors")
    succeed("apply", "a.planc", "--weights", "in.safetensors", "-o", "stored.safetensors")
    seeded, stored = load_file("seeded.safetensors"), load_file("stored.safetensors")
    assert seeded.keys() == stored.keys()
    assert all(torch.equal(seeded[name], stored[name]) for name in seeded)


def test_verify_proves_a_plan_and_a_result(succeed: Run) -> None:
    planned("a.planc")
    weights("in.safetensors")
    assert "masked original" in succeed("verify", "a.planc", MODEL, "--weights", "in.safetensors")
    succeed("apply", "a.planc", "--weights", "in.safetensors", "-o", "out.safetensors")
    stored = ("--weights", "in.safetensors", "--result", "out.safetensors")
    assert "\N{CHECK MARK} " in succeed("verify", "a.planc", MODEL, *stored)


def test_verify_exits_with_4_when_two_rows_are_swapped(succeed: Run, fail: Run) -> None:
    planned("a.planc")
    weights("in.safetensors")
    succeed("apply", "a.planc", "--weights", "in.safetensors", "-o", "out.safetensors")
    tensors = load_file("out.safetensors")
    tensors["0.0.weight"] = tensors["0.0.weight"][[1, 0, *range(2, 8)]].contiguous()
    save_file(tensors, "swapped.safetensors")
    stored = ("--weights", "in.safetensors", "--result", "swapped.safetensors")
    fail("verify", "a.planc", MODEL, *stored, code=4)


def test_unknown_models_are_named_with_near_misses(fail: Run) -> None:
    assert "resnet50" in fail("plan", "torchvision:resnet55")
    assert "torchvision:resnet50" in fail("plan", "resnet50")
    assert "net" in fail("plan", "toy_models:nett")
    assert "'no_such_module'" in fail("plan", "no_such_module:net")
    assert "WIDTH" in fail("plan", "toy_models:WIDTH")
    assert "not an nn.Module" in fail("plan", "toy_models:word", *INPUT)
    assert "no such luck" in fail("plan", "toy_models:broken", *INPUT)
    assert "depth=3" in fail("plan", MODEL, *INPUT, "--set", "depth=3")


def test_a_command_line_that_makes_no_sense_exits_with_2(fail: Run) -> None:
    for ratio in ("1", "-0.1", "half"):
        assert "--ratio" in fail("plan", MODEL, "--ratio", ratio, code=2)
    assert "--input" in fail("plan", MODEL, "--input", "1x3xA", code=2)
    assert "--set" in fail("plan", MODEL, "--set", "width", code=2)
    assert "--kind" in fail("plan", MODEL, "--kind", "heads=many", code=2)
    assert "MODEL" in fail("apply", "a.planc", "-o", "out.safetensors", code=2)


def test_inputs_that_do_not_fit_are_an_error(fail: Run) -> None:
    assert "could not be traced" in fail("plan", MODEL, "--input", "1x4x8x8")
    assert "float23" in fail("plan", MODEL, "--input", "1x3x8x8:float23")


def test_patterns_that_match_nothing_are_an_error(fail: Run) -> None:
    assert "0.0.weihgt" in fail("plan", MODEL, *INPUT, "--keep", "0.0.weihgt:0")


@pytest.mark.parametrize("output", ["missing/a.planc", "toy_models.py/a.planc", "."])
def test_an_output_that_cannot_be_written_is_known_before_the_work(
    output: str, fail: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    import planc.cli.named

    monkeypatch.setattr(planc.cli.named, "load_model", None)
    assert f"cannot write {output}" in fail("plan", MODEL, *INPUT, "-o", output)


def test_files_that_are_no_plans_are_an_error(fail: Run) -> None:
    Path("a.planc").write_text("not a plan")
    assert "a.planc" in fail("show", "a.planc")
    assert "a.planc" in fail("diff", "a.planc", "a.planc", code=2)
    assert "a.planc" in fail("apply", "a.planc", MODEL, "-o", "out.safetensors")
    assert "missing.planc" in fail("verify", "missing.planc", MODEL)


def test_weights_that_do_not_fit_are_an_error(fail: Run) -> None:
    planned("a.planc")
    weights("wide.safetensors", width=32)
    Path("text.safetensors").write_text("not tensors")
    save_file({"0.0.weight": torch.zeros(16, 3, 3, 3)}, "few.safetensors")
    out = ("-o", "out.safetensors")
    wide = fail("apply", "a.planc", "--weights", "wide.safetensors", *out)
    assert "0.0.weight" in wide
    wide = fail("apply", "a.planc", MODEL, "--weights", "wide.safetensors", *out)
    assert "(32, 3, 3, 3)" in wide
    assert "0.0.bias" in fail("plan", MODEL, *INPUT, "--weights", "few.safetensors")
    assert "text.safetensors" in fail("plan", MODEL, *INPUT, "--weights", "text.safetensors")
    assert "gone.safetensors" in fail("plan", MODEL, *INPUT, "--weights", "gone.safetensors")


def test_a_plan_for_another_model_is_stale(fail: Run) -> None:
    planned("a.planc")
    stale = fail("apply", "a.planc", MODEL, "--set", "width=24", "-o", "out.safetensors")
    assert "0.0" in stale


def test_a_plan_comes_back_from_its_json(succeed: Run, fail: Run) -> None:
    planned("a.planc")
    Path("a.json").write_text(succeed("show", "a.planc", "--json"))
    succeed("plan", "--from-json", "a.json", "-o", "b.planc")
    assert Path("a.planc").read_bytes() == Path("b.planc").read_bytes()
    Path("a.json").write_text("[1")
    assert "a.json" in fail("plan", "--from-json", "a.json")
    assert "--from-json" in fail("plan", code=2)


def test_a_plan_without_the_weights_in_memory_is_the_same_plan(succeed: Run, fail: Run) -> None:
    weights("in.safetensors", seed=7)
    stored = ("--weights", "in.safetensors")
    planned("a.planc", *stored, "--criterion", "l1")
    planned("b.planc", *stored, "--criterion", "l1", "--meta")
    assert Path("a.planc").read_bytes() == Path("b.planc").read_bytes()
    assert "--weights" in fail("plan", MODEL, "--meta", code=2)
    weights("wide.safetensors", width=20)
    assert "0.0.weight" in fail("plan", MODEL, *INPUT, "--weights", "wide.safetensors", "--meta")


def test_a_directory_is_replaced_on_request(succeed: Run, fail: Run) -> None:
    planned("a.planc")
    weights("in.safetensors")
    for command in (
        ("apply", "a.planc", MODEL),
        ("apply", "a.planc", "--weights", "in.safetensors"),
    ):
        Path("out").mkdir(exist_ok=True)
        Path("out/mine").write_text("mine")
        assert "exists" in fail(*command, "-o", "out")
        succeed(*command, "-o", "out", "--overwrite")
        assert not Path("out/mine").exists()
        assert "0.0    " in succeed("inspect", "out")


def test_only_the_result_of_the_same_plan_is_applied_already(succeed: Run, fail: Run) -> None:
    planned("a.planc", "--criterion", "random", "--seed", "1")
    planned("b.planc", "--criterion", "random", "--seed", "2")
    weights("in.safetensors")
    for name in ("out.safetensors", "out"):
        succeed("apply", "a.planc", "--weights", "in.safetensors", "-o", name)
        again = fail("apply", "a.planc", "--weights", name, "-o", "more.safetensors")
        assert "these are the shapes of the plan's result" in again
        other = fail("apply", "b.planc", "--weights", name, "-o", "more.safetensors")
        assert "was pruned by another plan, to the same shapes" in other
    save_file(load_file("out.safetensors"), "plain.safetensors")  # without planc's record
    for plan in ("a.planc", "b.planc"):
        plain = fail("apply", plan, "--weights", "plain.safetensors", "-o", "more.safetensors")
        assert "these are the shapes of the plan's result" in plain


def test_restore_gives_the_original_file_back(succeed: Run) -> None:
    planned("a.planc")
    weights("in.safetensors")
    command = ("apply", "a.planc", "--weights", "in.safetensors", "--keep-removed", "kept")
    succeed(*command, "-o", "out.safetensors")
    succeed("restore", "out.safetensors", "--removed", "kept", "-o", "back.safetensors")
    assert Path("in.safetensors").read_bytes() == Path("back.safetensors").read_bytes()
    assert "0.0    " in succeed("inspect", "out.safetensors")
    assert json.loads(succeed("inspect", "out.safetensors", "--json"))["shards"]


def test_units_are_chosen_and_a_plan_is_edited(succeed: Run, fail: Run) -> None:
    plan = planned("a.planc", "--remove", "0.0:2,6-8", "--keep-units", "1:0-3")
    assert tuple(plan.groups[0].removed) == (2, 6, 7, 8)
    shown = succeed(
        "edit", "a.planc", MODEL, "--keep", "0.0.weight:0:6", "--remove", "1:4", "-o", "b.planc"
    )
    edited = planc.load_plan(Path("b.planc"))
    assert [tuple(group.removed) for group in edited.groups] == [(2, 7, 8), (4,)]
    assert "decision: remove 1.weight:0 4" in shown
    assert edited.provenance[-1].decisions[0] == "remove 0.0.weight:0 2,6-8"
    succeed("edit", "a.planc", MODEL, "--keep", "0.0.weight:0", "-o", "c.planc")
    assert not any(group.removed for group in planc.load_plan(Path("c.planc")).groups)
    assert "names no units: write NAME:UNITS" in fail("edit", "a.planc", MODEL, "--remove", "1")
    assert "no unit 99" in fail("plan", MODEL, *INPUT, "--remove", "0.0:99")


def test_an_edited_text_is_a_plan_for_its_model(succeed: Run, fail: Run) -> None:
    planned("a.planc", "--ratio", "0.5")
    plain = json.loads(succeed("show", "--json", "a.planc"))
    plain["groups"][0]["removed"] = [0, 15]
    Path("edited.json").write_text(json.dumps(plain))
    succeed("plan", MODEL, *INPUT, "--from-json", "edited.json", "-o", "b.planc")
    edited = planc.load_plan(Path("b.planc"))
    assert tuple(edited.groups[0].removed) == (0, 15)
    assert edited.provenance[0].decisions == ("removed units as in an edited text (6 units)",)
    Path("edited.json").write_text("{}")
    told = fail("plan", MODEL, *INPUT, "--from-json", "edited.json")
    assert "not the text of a plan: KeyError: 'groups'" in told


def test_outputs_are_named_on_the_command_line(succeed: Run, fail: Run) -> None:
    succeed("plan", MODEL, *INPUT, "--free-outputs", "", "-o", "a.planc")
    (output,) = planc.load_plan(Path("a.planc")).outputs
    assert (output.name, output.size, len(output.kept)) == ("", 5, 3)
    assert "the result, dimension 1: 5 → 3" in succeed("show", "a.planc")
    assert "'logits' is no output" in fail("plan", MODEL, *INPUT, "--outputs", "logits")


def test_slips_in_budgets_are_answered(fail: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert "for a share give macs=1.0 (--macs 100%)" in fail("plan", MODEL, *INPUT, "--macs", "1")
    assert run(["plan", MODEL, *INPUT, "--macs", "1.0"]) == 0
    assert "nothing is removed: every group stays whole" in capsys.readouterr().err
    assert amount("2e6") == 2_000_000
