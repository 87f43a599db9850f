"""What a report says, number by number: what was compared with what, and how far it was apart."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import fx, nn

import planc
from planc.ir.graph import CAPTURED
from planc.modules.tree import tensors_by_name
from planc.verify import Report, sizes
from planc.verify.outputs import run
from tests.support.proving import randomise
from tests.verify.test_ways import Mirrored, X, threshold

VERIFY = importlib.import_module("planc.verify")  # planc.verify is its function


def plain(*more: nn.Module) -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), *more, nn.Linear(8, 2))
    randomise(model, seed=0)
    return model.eval()


def told(errors: list[float], compared: list[tuple[Any, ...]]) -> Callable[..., float]:
    """Stands for a comparison: notes what it is given, and says one of ``errors`` each time."""
    rest = iter(errors)

    def compare(*given: Any) -> float:
        compared.append(given)
        return next(rest)

    return compare


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What outputs are compared, the errors being 0.125, 0.25, 0.5."""
    found: list[tuple[Any, ...]] = []
    monkeypatch.setattr(VERIFY, "difference", told([0.125, 0.25, 0.5], found))
    return found


class Ran(NamedTuple):
    model: nn.Module
    replay: Any
    outputs: list[torch.Tensor]


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[Ran]:
    """The runs that are made."""
    runs: list[Ran] = []

    def noted(model: nn.Module, call: Any, seed: int = 0, replay: Any = None) -> Any:
        runs.append(Ran(model, replay, run(model, call, seed, replay)))
        return runs[-1].outputs

    monkeypatch.setattr(VERIFY, "run", noted)
    return runs


def verified(model: nn.Module, **options: Any) -> tuple[Report, nn.Module, planc.Plan]:
    plan = planc.compile(model, X, ratio=0.5)
    smaller = planc.apply(plan, model)
    return planc.verify(plan, model, smaller, X, **options), smaller, plan


def test_outputs_are_compared_with_the_graphs_then_with_the_masked_originals(
    compared: list[tuple[Any, ...]], ran: list[Ran]
) -> None:
    model = plain()
    report, smaller, plan = verified(model)
    assert (report.graph_error, report.error, report.mixing) == (0.125, 0.25, ())
    assert "outputs equal the rewritten graph's: 1.2e-01 relative" in report.checks
    assert "outputs equal the masked original's: 2.5e-01 relative" in report.checks
    pruned, graph, masked = ran
    assert pruned.model is smaller
    assert isinstance(graph.model, fx.GraphModule)
    assert torch.equal(masked.outputs[0], planc.mask(plan, model)(X))
    first, second = compared
    assert first[0] is second[0] is pruned.outputs
    assert first[1:] == (graph.outputs, 1e-4, "the rewritten graph")
    assert second[1:] == (masked.outputs, 1e-4, "the masked original")


@pytest.mark.parametrize(("given", "allowed"), [(None, 1e-4), (0.5, 0.5), (1e-30, 1e-30)])
def test_a_tolerance_that_is_given_is_what_is_allowed(
    given: float | None, allowed: float, compared: list[tuple[Any, ...]]
) -> None:
    verified(plain(), tolerance=given, other_sizes=False)
    assert [each[2] for each in compared] == [allowed, allowed]


def test_where_groups_mix_the_report_has_their_names_and_no_error_of_the_masked_original(
    compared: list[tuple[Any, ...]],
) -> None:
    report, _, plan = verified(plain(nn.LayerNorm(8)))
    assert report.mixing == (plan.groups[0].name,)
    assert (report.graph_error, report.error) == (0.125, None)
    told = "not compared with the masked original: 1 pruned groups mix (layer norm over it)"
    assert told in report.checks
    assert "the rewritten graph with inputs of 1x4, too" in report.checks[-1]
    assert len(compared) == 1


def test_groups_that_mix_and_stay_whole_do_not_count() -> None:
    model = plain(nn.LayerNorm(8))
    plan = planc.compile(model, X, ratio=0.0)
    report = planc.verify(plan, model, planc.apply(plan, model), X)
    assert plan.groups[0].mixing
    assert report.mixing == ()
    assert report.error is not None


@pytest.mark.parametrize("others", [True, False])
@pytest.mark.parametrize("random", [True, False])
def test_random_outputs_of_mixing_groups_are_not_compared_at_other_sizes(
    random: bool, others: bool
) -> None:
    model = plain(nn.LayerNorm(8), nn.Dropout(0.5 if random else 0.0)).train()
    report, _, _ = verified(model, other_sizes=others)
    assert ("with inputs of 1x4, too" in str(report)) == (others and not random)


def test_outputs_that_differ_from_the_masked_originals_are_an_error_unless_they_are_random(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def differs(outputs: Any, expected: Any, allowed: float, what: str) -> float:
        if what == "the masked original":
            raise planc.VerificationError("they differ")
        return 0.0

    def refuses(failure: planc.VerificationError, *_: Any) -> Any:
        raise failure

    monkeypatch.setattr(VERIFY, "difference", differs)
    monkeypatch.setattr(VERIFY, "settled", refuses)
    with pytest.raises(planc.VerificationError, match="they differ"):
        verified(plain())
    report, _, _ = verified(plain(nn.Dropout(0.5)).train())
    assert (report.graph_error, report.error, report.mixing) == (0.0, None, ())
    assert report.checks[-1] == "not compared with the masked original: its outputs are random"


@pytest.mark.parametrize("target", ["module", "graph"])
@pytest.mark.parametrize("words", ["it describes it", ""])
def test_what_is_said_of_a_configuration_is_said_of_modules(
    target: Any, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VERIFY, "check_configurations", lambda *_: [words] if words else [])
    model = plain()
    plan = planc.compile(model, X, ratio=0.5, target=target)
    checks = planc.verify(plan, model, planc.apply(plan, model), X, other_sizes=False).checks
    assert ("it describes it" in checks) == bool(target == "module" and words)
    assert "" not in checks
    assert len(checks) == 7 + (target == "module" and bool(words))


def test_on_the_meta_device_there_is_no_error() -> None:
    model = plain(nn.LayerNorm(8))
    plan = planc.compile(model, X, ratio=0.5)
    smaller = planc.apply(plan, model).to("meta")
    report = planc.verify(plan, model.to("meta"), smaller)
    assert (report.error, report.graph_error, report.mixing) == (None, 0.0, (plan.groups[0].name,))
    assert report.checks[-1] == "outputs not compared: on the meta device there are no numbers"


def test_outputs_are_not_compared_where_one_tensor_has_no_values() -> None:
    model = plain()
    model.register_buffer("unused", torch.zeros(3, device="meta"))
    report, _, _ = verified(model)
    assert report.checks[-1] == "outputs not compared: on the meta device there are no numbers"


def test_what_differs_in_a_graph_is_said_of_the_result() -> None:
    model = plain()
    plan = planc.compile(model, X, ratio=0.5, target="graph")
    smaller = planc.apply(plan, model)
    smaller.train()
    with pytest.raises(planc.VerificationError, match="training is True, was False"):
        planc.verify(plan, model, smaller, X)


class Shifted(nn.Module):
    """Adds what is neither a parameter nor a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 2)
        self.shift = [torch.arange(8.0)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.last(torch.relu(self.first(x)) + self.shift[0])
        return y


def test_what_a_graph_has_captured_is_no_tensor_too_many() -> None:
    model = Shifted().eval()
    plan = planc.compile(model, X, ratio=0.5, target="graph")
    smaller = planc.apply(plan, model)
    assert any(name.startswith(CAPTURED) for name in tensors_by_name(smaller))
    assert planc.verify(plan, model, smaller, X).graph_error < 1e-6


def test_a_plan_that_was_applied_is_not_verified_again() -> None:
    model = plain()
    plan = planc.compile(model, X, ratio=0.5)
    smaller = planc.apply(plan, model)
    with pytest.raises(planc.AlreadyApplied):
        planc.verify(plan, smaller, smaller, X)


# -- decisions by values --------------------------------------------------------------------------


@pytest.mark.parametrize("errors", [[0.125, 0.25, 0.5], [0.125, 0.5, 0.25]])
def test_where_decisions_are_by_values_the_larger_error_of_two_ways_counts(
    errors: list[float], ran: list[Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[Any, ...]] = []
    operands: list[tuple[Any, ...]] = []
    monkeypatch.setattr(VERIFY, "difference", told(errors, compared))
    monkeypatch.setattr(VERIFY, "compare_operands", told([1.0, 2.0, 4.0], operands))
    report, smaller, _ = verified(threshold())
    assert (report.graph_error, report.error, report.mixing) == (0.125, 0.5, ())
    first, second = (f"{error:.1e}" for error in errors[1:])
    assert "\n".join(report.checks[5:]) == (
        "outputs equal the rewritten graph's where both decide as the original: 1.2e-01 relative, "
        "the values behind 1 decisions 1.0e+00\n"
        "2 tensors were not reached and stay whole (little.weight, little.bias): what runs on "
        "inputs that reach them is not known\n"
        f"so do they equal the masked original's: {first} relative, the values 2.0e+00\n"
        f"the same where both decide as the masked original: {second} relative, the values 4.0e+00"
    )
    pairs = [ran[:2], ran[3:5], ran[5:]]
    names = ["the rewritten graph", "the masked original", "the masked original"]
    for (pruned, other), name, outputs, operand in zip(
        pairs, names, compared, operands, strict=True
    ):
        assert pruned.model is smaller
        assert other.model is not smaller
        assert outputs[0] is pruned.outputs
        assert outputs[1] is other.outputs
        assert operand[:2] == (pruned.replay, other.replay)
        assert outputs[2:] == operand[2:] == (1e-4, name)
    assert ran[2].model is smaller  # by its own decisions
    assert [each.replay is None for each in ran] == [False, False, True, False, False, False, False]


def test_where_decisions_are_by_values_double_precision_settles_what_rounding_sets_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def differs(*_: Any) -> float:
        raise planc.VerificationError("they differ")

    monkeypatch.setattr(VERIFY, "difference", differs)
    report, _, _ = verified(threshold())
    assert report.error is not None
    assert max(report.error, report.graph_error) < 1e-9
    remark = "; compared in float64, because in the model's own precision they differ"
    assert sum(check.endswith(remark) for check in report.checks) == 3


def test_where_decisions_are_by_values_groups_that_mix_end_the_report(
    compared: list[tuple[Any, ...]],
) -> None:
    report, _, plan = verified(threshold(norm=True))
    mixing = tuple(group.name for group in plan.groups if group.mixing)
    assert (report.graph_error, report.error, report.mixing) == (0.125, None, mixing)
    assert len(mixing) == len(compared) == 1


def test_where_the_masked_original_takes_another_way_the_error_is_that_of_the_first(
    compared: list[tuple[Any, ...]],
) -> None:
    model = Mirrored().eval()
    randomise(model, seed=0)
    plan = planc.compile(model, X, ratio=0.5)
    with torch.no_grad():
        whole = torch.relu(model.first(X)).sum()
        left = torch.relu(planc.mask(plan, model).first(X)).sum()
    model.limit = float(whole + left) / 2
    report, _, _ = verified(model)
    assert (report.graph_error, report.error, report.mixing) == (0.125, 0.25, ())


# -- other sizes ----------------------------------------------------------------------------------


def test_outputs_at_other_sizes_are_compared_with_the_masked_originals(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found: list[tuple[Any, ...]] = []
    runs: list[tuple[nn.Module, list[torch.Tensor]]] = []

    def noted(model: nn.Module, call: Any) -> list[torch.Tensor]:
        runs.append((model, run(model, call)))
        return runs[-1][1]

    monkeypatch.setattr(sizes, "difference", told([0.25], found))
    monkeypatch.setattr(sizes, "run", noted)
    model = plain()
    report, smaller, plan = verified(model)
    what = "the masked original with inputs of 1x4"
    assert report.checks[-1] == f"outputs equal those of {what}, too: 2.5e-01 relative"
    (masked, expected), (pruned, outputs) = runs
    assert pruned is smaller
    assert torch.equal(masked(X), planc.mask(plan, model)(X))
    ((first, second, *rest),) = found
    assert first is outputs
    assert second is expected
    assert rest == [1e-4, what]
