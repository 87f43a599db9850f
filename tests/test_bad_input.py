"""Bad input is refused by name, with both values and what to do, and nothing is changed by it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import planc
from planc.cli.named import load_model
from planc.cli.weights import check_weights
from planc.errors import (
    CalibrationError,
    FileError,
    NotAPlancFile,
    PlancError,
    PolicyError,
    StalePlan,
    TraceError,
    TruncatedFile,
    VerificationError,
)
from planc.plan.plan import Plan
from tests.support import small
from tests.support.small import Inputs, build, contents

Case = tuple[nn.Module, Inputs, Plan]


@pytest.fixture
def case() -> Iterator[Case]:
    """A model, its inputs and a plan, of which nothing may have changed afterwards."""
    model, inputs = build("residual")
    plan = planc.compile(model, inputs)
    before, copies, state = contents(model), [x.clone() for x in inputs], torch.get_rng_state()
    sqrt = math.sqrt
    yield model, inputs, plan
    assert contents(model) == before
    assert all(map(torch.equal, inputs, copies))
    assert torch.equal(torch.get_rng_state(), state)
    assert math.sqrt is sqrt
    assert plan == planc.compile(model, inputs)


# -- the model and its inputs ----------------------------------------------------------------


class Picky(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = small.Residual()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[-1] != 8:
            raise ValueError(f"images must be 8 pixels wide, not {x.shape[-1]}")
        return self.body(x)


def test_a_model_that_cannot_be_traced_names_module_line_and_reason() -> None:
    model = nn.Sequential(Picky()).eval()
    before = contents(model)
    with pytest.raises(TraceError) as refusal:
        planc.compile(model, small.images(2, 12))
    said = str(refusal.value)
    line = (
        Path(__file__)
        .read_text()
        .splitlines()
        .index('            raise ValueError(f"images must be 8 pixels wide, not {x.shape[-1]}")')
    )
    assert f"Sequential could not be traced: in 0 (Picky, {__file__}:{line + 1})" in said
    assert "ValueError: images must be 8 pixels wide, not 12" in said
    assert "check that the example inputs" in said
    assert contents(model) == before


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((torch.zeros(2, 4, 8, 8),), "in stem.0 (Conv2d"),
        ((torch.zeros(2, 3),), "in stem.0 (Conv2d"),
        ((torch.zeros(2, 3, 8, 8).double(),), "in stem.0 (Conv2d"),
        ((torch.zeros(2, 3, 8, 8, dtype=torch.uint8),), "in stem.0 (Conv2d"),
        (([1.0, 2.0],), "in stem.0 (Conv2d"),
        ((), "missing 1 required positional argument: 'images'"),
        ((torch.zeros(2, 3, 8, 8), 3), "takes 2 positional arguments but 3 were given"),
    ],
)
def test_wrong_example_inputs_are_refused(case: Case, args: Any, said: str) -> None:
    model, _, plan = case
    for call in (
        lambda: planc.trace(model, args),
        lambda: planc.compile(model, args),
        lambda: planc.verify(plan, model, planc.apply(plan, model), args),
    ):
        with pytest.raises(TraceError) as refusal:
            call()
        assert said in str(refusal.value)
        assert "Residual could not be traced" in str(refusal.value)


def test_wrong_inputs_for_the_validation_are_refused(case: Case) -> None:
    model, _, plan = case
    with pytest.raises(VerificationError, match=r"the pruned model does not run: .*stem\.0"):
        planc.apply(plan, model, args=(torch.zeros(2, 4, 8, 8),))


@pytest.mark.parametrize("model", [None, "resnet18", small.Residual, {"weight": 3}])
def test_what_is_no_model_is_refused(model: Any) -> None:
    with pytest.raises(TraceError, match=rf"expected an nn\.Module, got {type(model).__name__}"):
        planc.compile(model, (torch.zeros(1),))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "resnet50",
            "'resnet50' is no model: write torchvision:resnet50 or package.module:factory",
        ),
        ("torchvision:resnet5", "torchvision has no model 'resnet5'; did you mean resnet50"),
        ("tests.smal:vit", "there is no module 'tests.smal'"),
        (
            "tests.support.small:vitt",
            "module 'tests.support.small' has no factory 'vitt'; did you mean vit",
        ),
        ("tests.support.small:MIXING", "module 'tests.support.small' cannot call 'MIXING'"),
        ("tests.support.small:contents", "tests.support.small:contents() failed: TypeError: "),
        (
            "tests.support.small:images",
            "tests.support.small:images returned tuple, not an nn.Module",
        ),
    ],
)
def test_an_unknown_model_or_factory_is_named_with_near_misses(name: str, said: str) -> None:
    with pytest.raises(PlancError) as refusal:
        load_model(name)
    assert said in str(refusal.value)


# -- the request -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ratio", [1, 1.0, -0.1, 2, float("nan"), float("inf"), "0.5", True, 0.5j, [0.5]]
)
def test_a_ratio_outside_0_1_is_refused(case: Case, ratio: Any) -> None:
    model, inputs, _ = case
    for options in ({"ratio": ratio}, {"ratio": ratio, "global_ranking": True}):
        with pytest.raises(PolicyError) as refusal:
            planc.compile(model, inputs, **options)
        assert f"ratio {ratio!r} is not in [0, 1)" in str(refusal.value)
        assert "0.5 for half" in str(refusal.value)
    with pytest.raises(PolicyError, match=r"kinds\['channels'\] .* is not in \[0, 1\)"):
        planc.compile(model, inputs, kinds={"channels": ratio})


def test_a_pattern_that_matches_nothing_names_the_near_misses(case: Case) -> None:
    model, inputs, _ = case
    for options in ({"keep": ["stem.0.wieght"]}, {"only": ("stem.0.wieght",)}):
        with pytest.raises(PolicyError) as refusal:
            planc.compile(model, inputs, **options)  # type: ignore[arg-type]
        assert "pattern 'stem.0.wieght' matches no group" in str(refusal.value)
        assert "stem.0.weight" in str(refusal.value)


@pytest.mark.parametrize("option", ["keep", "only"])
def test_a_pattern_given_as_a_string_is_one_pattern(case: Case, option: str) -> None:
    model, inputs, _ = case
    options: Any = {option: "blocks.0*"}
    assert planc.compile(model, inputs, **options) == planc.compile(
        model, inputs, **{option: ["blocks.0*"]}
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"criterion": "l3"}, "unknown criterion 'l3': choose one of activation, apoz"),
        ({"criterion": "tailor"}, "variance, wanda; did you mean taylor?"),
        ({"criterion": 3}, "criterion 3 is of type int: give a function, or one of the names"),
        ({"keep": "9.*"}, "pattern '9.*' matches no group; there are"),
        ({"rows": "channels"}, "groups of kind 'channels' are no whole rows"),
        ({"keep": "stem*", "only": "stem.0*"}, "keep=['stem*'] leaves whole all that only=['stem"),
        ({"global_ranking": True, "ranking": "isomorphic"}, "give one of them"),
        ({"latency_table": object()}, "of type object: give what planc.measure_l"),
        ({"machine": "abacus"}, "machine='abacus' is given, but no latency_table"),
        ({"latency": 0.5, "latency_table": "a.latency"}, "of type str: give what planc.measure_l"),
        ({"kinds": {"heads": 0.5}}, "no group is of kind 'heads': this model has channels"),
        ({"round_to": 0}, "round_to 0 is below 1"),
        ({"round_to": 2.5}, "round_to 2.5 is not a whole number"),
        ({"floor": 0}, "floor 0 is below 1"),
        ({"floor": "2"}, "floor '2' is not a whole number"),
        ({"target": "onnx"}, 'target \'onnx\': choose "module" or "graph"'),
        ({"seed": -1, "criterion": "random"}, "seed -1"),
        ({"seed": "x", "criterion": "random"}, "seed 'x'"),
    ],
)
def test_a_request_that_means_nothing_is_refused(
    case: Case, options: dict[str, Any], said: str
) -> None:
    model, inputs, _ = case
    with pytest.raises(PolicyError) as refusal:
        planc.compile(model, inputs, **options)
    assert said in str(refusal.value)


# -- calibration -----------------------------------------------------------------------------


def no_loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = model(batch).square().mean()
    return result


@pytest.mark.parametrize(
    ("batches", "said"),
    [
        (3, "batches is of type int: give a data loader"),
        ([], "there are no batches: give at least one"),
        ([torch.zeros(0, 3, 8, 8)], "batch 0: is empty, its tensors have shapes (0, 3, 8, 8)"),
        ([torch.zeros(2, 3, 8, 8), torch.zeros(2, 4, 8, 8)], "batch 1: "),
        ([torch.full((2, 3, 8, 8), float("nan"))], "NaN or inf"),
    ],
)
def test_batches_that_cannot_be_calibrated_with_are_refused(
    case: Case, batches: Any, said: str
) -> None:
    model, _, _ = case
    with pytest.raises(CalibrationError) as refusal:
        planc.calibrate(model, batches, "wanda")
    assert said in str(refusal.value)
    if isinstance(batches, list) and batches and "NaN" not in said:
        with pytest.raises(CalibrationError) as refusal:
            planc.calibrate(model, batches, "taylor_unit", no_loss)
        assert said in str(refusal.value)


# -- stale plans and weights -----------------------------------------------------------------


def test_a_plan_for_another_version_of_the_model_names_the_first_difference(case: Case) -> None:
    _, inputs, plan = case
    with torch.random.fork_rng():
        newer = small.randomised(small.Residual())
        newer.blocks[1][0] = nn.Conv2d(8, 4, 5, padding=2, bias=False)
    for call in (
        lambda: planc.apply(plan, newer),
        lambda: planc.apply(plan, newer.state_dict()),
        lambda: planc.mask(plan, newer),
        lambda: planc.verify(plan, newer, newer, inputs),
    ):
        before = contents(newer)
        with pytest.raises(StalePlan) as refusal:
            call()
        said = str(refusal.value)
        assert "blocks.1.0.weight: expected shape (4, 8, 3, 3), found (4, 8, 5, 5)" in said
        assert "compile a plan for this model" in said
        assert contents(newer) == before


def test_weights_whose_shapes_do_not_match_are_refused(case: Case) -> None:
    model, _, plan = case
    state = dict(model.state_dict())
    state["head.weight"] = torch.zeros(5, 33)
    for call in (planc.apply, planc.mask):
        with pytest.raises(StalePlan) as refusal:
            call(plan, state)
        assert "head.weight: expected shape (5, 32), found (5, 33)" in str(refusal.value)
    with pytest.raises(PlancError) as error:
        check_weights(model, state, "weights.safetensors")
    assert "weights.safetensors: head.weight has shape (5, 33), the model's has (5, 32)" in str(
        error.value
    )


def test_what_no_plan_applies_to_is_refused_by_type(case: Case) -> None:
    _, _, plan = case
    for target in (None, 3, "model.pt", small.Residual):
        for call in (planc.apply, planc.mask):
            with pytest.raises(PlancError, match=f"not to {type(target).__name__}: pass the model"):
                call(plan, target)


# -- files -----------------------------------------------------------------------------------


def test_a_file_that_is_no_plan_is_refused(case: Case, tmp_path: Path) -> None:
    _, _, plan = case
    good = tmp_path / "good.planc"
    planc.save_plan(plan, good)
    for content, kind in (
        (b"", FileError),
        (b"hello, this is no plan at all", NotAPlancFile),
        (good.read_bytes()[:-3], TruncatedFile),
        (good.read_bytes()[:-3] + b"abc", FileError),
        (good.read_bytes() + b"more", FileError),
    ):
        path = tmp_path / "bad.planc"
        path.write_bytes(content)
        with pytest.raises(kind) as refusal:
            planc.load_plan(path)
        assert str(path) in str(refusal.value)
        assert path.read_bytes() == content
    with pytest.raises(FileNotFoundError):
        planc.load_plan(tmp_path / "missing.planc")
    with pytest.raises((FileError, OSError)):
        planc.load_plan(tmp_path)


def test_weights_that_are_no_safetensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"not at all")
    with pytest.raises(FileError, match=r"weights\.safetensors: .*safetensors"):
        planc.StoredWeights(path)
    with pytest.raises(FileNotFoundError):
        planc.StoredWeights(tmp_path / "missing.safetensors")


def test_an_output_that_cannot_be_written_leaves_nothing_behind(case: Case, tmp_path: Path) -> None:
    _, _, plan = case
    (tmp_path / "file").write_bytes(b"old")
    for path in (tmp_path / "no" / "where.planc", tmp_path / "file" / "x.planc", tmp_path):
        with pytest.raises(OSError):  # noqa: PT011  each has its own kind
            planc.save_plan(plan, path)
    assert sorted(tmp_path.iterdir()) == [tmp_path / "file"]
    assert (tmp_path / "file").read_bytes() == b"old"


def test_every_refusal_is_a_planc_error() -> None:
    for kind in (TraceError, PolicyError, FileError, StalePlan, VerificationError):
        assert issubclass(kind, PlancError)
