"""Calibration sums up what criteria need, and leaves the model as it was."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import planc
from planc.criteria import Fallback, Lamp, Magnitude, MeanActivation, Normalized, Taylor
from planc.errors import CalibrationError, PolicyError, StalePlan
from tests.criteria.calibrated import case, loss
from tests.support.small import contents

EVERYTHING = ["taylor_unit", "obd", "obd_c", "wanda"]


def bits(statistics: planc.criteria.Statistics) -> dict[str, bytes]:
    return {key: tensor.numpy().tobytes() for key, tensor in statistics.tensors.items()}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", ["residual", "vit", "tied", "shared"])
def test_the_model_is_left_as_it_was(name: str, training: bool) -> None:
    model, batches = case(name)
    model.train(training)
    called: list[str] = []
    model.register_forward_hook(lambda *_: called.append("hook"))
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 3.0)
    grads = {name: p.grad for name, p in model.named_parameters()}
    before, state = contents(model), torch.random.get_rng_state()
    fast_path = torch.backends.mha.get_fastpath_enabled()
    planc.calibrate(model, batches, EVERYTHING, loss)
    assert contents(model) == before
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.backends.mha.get_fastpath_enabled() == fast_path
    for name, parameter in model.named_parameters():
        assert parameter.grad is grads[name]
        assert (parameter.grad == 3).all()
    assert called  # the model's own hooks belong to what runs


def test_the_model_is_left_as_it_was_when_calibration_fails() -> None:
    model, batches = case("residual")
    model.train()
    before, state = contents(model), torch.random.get_rng_state()
    with pytest.raises(CalibrationError):
        planc.calibrate(model, [*batches, (torch.zeros(1),)], EVERYTHING, loss)
    assert contents(model) == before
    assert torch.equal(torch.random.get_rng_state(), state)


def test_equal_runs_give_equal_bits_and_equal_plans() -> None:
    model, batches = case("residual")
    first, again = (planc.calibrate(model, batches, EVERYTHING, loss) for _ in range(2))
    assert bits(first) == bits(again)
    assert first.batches == 3
    for name in EVERYTHING:
        plans = [
            planc.compile(model, batches[0], criterion=name, statistics=statistics)
            for statistics in (first, again)
            if name != "obd_c"
        ]
        assert len(set(plans)) <= 1


def test_sums_of_parts_are_the_sum_of_the_whole() -> None:
    model, batches = case("vit")
    parts = [planc.calibrate(model, [batch], EVERYTHING, loss) for batch in batches]
    whole = planc.calibrate(model, iter(batches), EVERYTHING, loss)
    for key, tensor in whole.tensors.items():
        total = sum(part.tensors[key] for part in parts)
        torch.testing.assert_close(tensor, total, rtol=1e-12, atol=1e-14)


def test_only_required_statistics_are_collected() -> None:
    model, batches = case("residual")
    composed = Normalized(Fallback(MeanActivation(), "l2"), "max")  # type: ignore[arg-type]
    statistics = planc.calibrate(model, batches, composed)
    assert statistics.quantities == ("inputs",)
    assert {key.partition("/")[0] for key in statistics.tensors} == {"inputs"}
    assert str(statistics) == "inputs over 3 batches"


def test_no_activation_outlives_its_batch() -> None:
    model, batches = case("residual")
    alive: list[Any] = []

    def watching(model: nn.Module, batch: Any) -> torch.Tensor:
        import weakref

        output = model(*batch)
        assert all(reference() is None for reference in alive)
        alive.append(weakref.ref(output))
        return (output**2).mean()

    planc.calibrate(model, batches, EVERYTHING, watching)
    assert len(alive) == 6  # one run for activations, one for gradients


def test_half_precision_is_summed_in_single_under_autocast_too() -> None:
    model, batches = case("residual")
    model.float()
    inputs = [tuple(x.float() for x in batch) for batch in batches]
    plain = planc.calibrate(model, inputs, ["wanda", "taylor_unit"], loss)
    with torch.autocast("cpu", torch.bfloat16):
        cast = planc.calibrate(model, inputs, ["wanda", "taylor_unit"], loss)
    assert cast.tensors.keys() == plain.tensors.keys()
    half = planc.calibrate(
        model.bfloat16(),
        [tuple(x.bfloat16() for x in b) for b in batches],
        ["wanda", "taylor_unit"],
        loss,
    )
    for other in (cast, half):
        for key, tensor in plain.tensors.items():
            assert other.tensors[key].dtype == tensor.dtype
            difference = (other.tensors[key] - tensor).norm()
            share = 0.3 if "changes" in key else 0.05  # where large numbers cancel
            assert difference < share * tensor.norm() + 1e-4, key


def test_a_criterion_without_its_statistics_is_refused() -> None:
    model, batches = case("residual")
    with pytest.raises(PolicyError, match=r"taylor.* needs statistics of changes, there are none"):
        planc.compile(model, batches[0], criterion="taylor_unit")
    statistics = planc.calibrate(model, batches, "wanda")
    with pytest.raises(
        PolicyError, match=r"obd|damage needs statistics of squared_gradient, these have inputs"
    ):
        planc.compile(model, batches[0], criterion="obd", statistics=statistics)
    analysis = planc.analyze(planc.trace(model, batches[0]))
    with pytest.raises(PolicyError, match="needs statistics of changes"):
        Normalized(Taylor("unit"))(analysis, model.state_dict())


def test_statistics_of_another_model_are_refused() -> None:
    model, batches = case("residual")
    other, others = case("dense")
    statistics = planc.calibrate(other, others, ["taylor_unit", "obd", "wanda"], loss)
    with pytest.raises(StalePlan, match=r"expected squared_gradient of shape .*; calibrate this"):
        planc.compile(model, batches[0], criterion="obd", statistics=statistics)
    with pytest.raises(
        StalePlan, match=r"changes of shape \(2, 8\) for stem\.0\.weight:0, found none"
    ):
        planc.compile(model, batches[0], criterion="taylor_unit", statistics=statistics)
    with pytest.raises(StalePlan, match=r"inputs of head\.weight are of 56 channels.* has 32"):
        planc.compile(model, batches[0], criterion="wanda", statistics=statistics)


def test_invalid_requests_are_refused() -> None:
    model, batches = case("residual")
    with pytest.raises(PolicyError, match="lamp needs no statistics"):
        planc.calibrate(model, batches, Lamp())
    with pytest.raises(PolicyError, match="no criterion needs no statistics"):
        planc.calibrate(model, batches, [])
    with pytest.raises(PolicyError, match="needs changes of a loss: pass loss="):
        planc.calibrate(model, batches, "taylor_unit")
    with pytest.raises(PolicyError, match="unknown criterion 'tailor'"):
        planc.calibrate(model, batches, "tailor", loss)
    with pytest.raises(CalibrationError, match="no batches: give at least one"):
        planc.calibrate(model, [], "taylor_unit", loss)
    with torch.device("meta"):
        empty = nn.Linear(3, 4)
    with pytest.raises(CalibrationError, match="weight is on the meta device"):
        planc.calibrate(empty, batches, "taylor_unit", loss)


def test_a_failing_batch_is_named() -> None:
    model, batches = case("residual")
    wrong = (torch.zeros(2, 4, 8, 8, dtype=torch.float64),)
    with pytest.raises(
        CalibrationError, match=r"batch 1: loss\(model, batch\) fails: RuntimeError"
    ):
        planc.calibrate(model, [batches[0], wrong], "taylor_unit", loss)
    with pytest.raises(CalibrationError, match=r"batch 0: Residual on the batch fails: Runtime"):
        planc.calibrate(model, [wrong], "wanda")
    with pytest.raises(CalibrationError, match=r"batch 0: Residual on the batch fails: TypeError"):
        planc.calibrate(model, ["images"], "wanda")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda y: y, r"the loss is a Tensor of shape \(2, 5\); return a tensor of one number"),
        (lambda y: float(y.sum().detach()), "the loss is a float; return a tensor of one number"),
        (lambda y: y.sum().detach(), "the loss does not depend on the parameters of the model"),
        (lambda y: y.sum() * float("nan"), "the loss is nan; check the batch"),
    ],
)
def test_an_invalid_loss_is_refused(answer: Any, said: str) -> None:
    model, batches = case("residual")
    with pytest.raises(CalibrationError, match=f"batch 0: {said}"):
        planc.calibrate(model, batches, "taylor_unit", lambda model, batch: answer(model(*batch)))


def test_a_non_finite_gradient_names_its_parameter() -> None:
    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(3, 4, bias=False)
            self.last = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last((self.first(x) * 0).abs().sqrt())  # whose slope at 0 is infinite

    said = r"gradient.*first\.weight has 12 values that are NaN or inf, the first at \(0, 0\)"
    for criterion in ("taylor_unit", "obd"):
        with pytest.raises(CalibrationError, match=said):
            planc.calibrate(
                Root(), [torch.ones(2, 3)], criterion, lambda model, x: (model(x) ** 2).mean()
            )


def test_batches_may_come_from_a_generator_with_random_numbers() -> None:
    model, _ = case("residual")

    def drawn() -> Iterator[tuple[torch.Tensor, ...]]:
        for _ in range(2):
            yield (torch.randn(2, 3, 8, 8, dtype=torch.float64),)

    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    first = planc.calibrate(model, drawn(), "taylor_unit", loss)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert bits(planc.calibrate(model, drawn(), "taylor_unit", loss)) == bits(first)


def test_scores_from_broken_statistics_name_the_parameter() -> None:
    model, batches = case("residual")
    statistics = planc.calibrate(model, batches, "obd", loss)
    statistics.tensors["squared_gradient/head.weight"][1, 2] = np.nan
    said = r"the statistics squared_gradient/head\.weight has 1 values that are NaN.*\(1, 2\)"
    with pytest.raises(PolicyError, match=said):
        planc.compile(model, batches[0], criterion="obd", statistics=statistics)


@pytest.mark.parametrize("name", ["residual", "grouped", "attention", "vit", "tied"])
def test_scores_are_the_same_to_the_bit_in_every_run(name: str) -> None:
    model, batches = case(name)
    analysis = planc.analyze(planc.trace(model, batches[0]))
    for criterion in (
        *("l1", "l2", "random", "lamp", "fpgm"),
        *("taylor", "taylor_unit", "obd", "wanda", "variance"),
    ):
        scorer = Fallback(planc.criteria.named(criterion), Magnitude(2))
        runs = []
        for _ in range(2):
            needs = scorer.needs
            statistics = planc.calibrate(model, batches, scorer, loss) if needs else None
            scores = planc.score(analysis, model, scorer, statistics)
            runs.append(b"".join(own.tobytes() for own in scores.units))
        assert runs[0] == runs[1], criterion


def test_weights_under_a_mask_are_seen() -> None:
    model, batches = case("residual")
    prune.l1_unstructured(model.head, "weight", 0.3)
    statistics = planc.calibrate(model, batches, ["wanda", "obd"], loss)
    assert "inputs/head.weight_orig" in statistics.tensors
    gradient = statistics.tensors["squared_gradient/head.weight_orig"]
    assert (gradient[model.head.weight_mask == 0] == 0).all()
    assert not prune.is_pruned(planc.bake(model))
    plan = planc.compile(model, batches[0], criterion="wanda", statistics=statistics)
    assert plan.cost_after.params < plan.cost_before.params


def test_progress_is_shown_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, batches = case("residual")
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes any stream for a terminal then
    planc.calibrate(model, batches, "taylor_unit", loss, progress=False)
    assert not capsys.readouterr().err
    planc.calibrate(model, batches, "taylor_unit", loss)
    shown = capsys.readouterr()
    assert "Calibrating" in shown.err
    assert not shown.out
    monkeypatch.delenv("FORCE_COLOR")
    planc.calibrate(model, batches, "taylor_unit", loss)
    assert not capsys.readouterr().err


def test_units_are_found_however_the_loss_calls_the_model() -> None:
    class Weighed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(3, 4)
            self.last = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor, *, scale: float) -> torch.Tensor:
            return self.last((self.first(x) * scale).relu())

    model, x = Weighed(), torch.ones(2, 3)

    def named_arguments(model: nn.Module, scale: float) -> torch.Tensor:
        return (model(x=x, scale=scale) ** 2).mean()

    statistics = planc.calibrate(model, [0.5, 1.0], "taylor_unit", named_arguments)
    assert "changes/first.weight:0" in statistics.tensors
    plan = planc.compile(
        model, kwargs={"x": x, "scale": 1.0}, criterion="taylor_unit", statistics=statistics
    )
    assert plan.cost_after.params < plan.cost_before.params
    with pytest.raises(CalibrationError, match="batch 0: the loss does not call the model"):
        planc.calibrate(
            model, [x], "taylor_unit", lambda model, x: (model.last(model.first(x)) ** 2).mean()
        )
