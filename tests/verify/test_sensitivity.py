"""Claims of sensitivity: a proof by outputs that no input changes is called empty."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import planc
from planc.verify import Report
from planc.verify.sensitivity import sensitivity
from tests.support.proving import randomise

X = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
EMPTY = "the proof by outputs is empty"


def net(*more: nn.Module) -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2), *more)
    randomise(model, seed=0)
    return model.eval()


class Part(nn.Module):
    """A module of one function."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any) -> Any:
        return self.function(*args)


def verified(model: nn.Module, *args: Any) -> Report:
    plan = planc.compile(model, args, ratio=0.5)
    return planc.verify(plan, model, planc.apply(plan, model), args)


def test_outputs_that_follow_the_inputs_prove_something() -> None:
    report = verified(net(), X)
    assert report.sensitivity is not None
    assert report.sensitivity > 0.1
    assert report.not_shown == ()
    assert f"other inputs change the outputs by {report.sensitivity:.1e} relative" in str(report)
    assert all(line[0] == "\N{CHECK MARK}" for line in str(report).splitlines())


@pytest.mark.parametrize("scale", [0.0, 1e-9])
def test_outputs_that_no_input_changes_prove_nothing(scale: float) -> None:
    model = net()
    with torch.no_grad():
        model[2].weight.mul_(scale)
        model[2].bias.fill_(1.0)
    report = verified(model, X)
    assert report.sensitivity is not None
    assert report.sensitivity < 1e-6
    assert any(check.startswith(EMPTY) for check in report.not_shown)
    assert any("outputs equal" in check for check in report.not_shown)
    for line in str(report).splitlines():
        assert (line[0] == "\N{EN DASH}") == ("output" in line or "other inputs" in line), line


def test_a_comparison_left_out_is_not_shown() -> None:
    mixed = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 2))
    report = verified(mixed, X)
    [left] = report.not_shown
    assert left.startswith("not compared with the masked original: 1 pruned groups mix")
    assert f"\N{EN DASH} {left}" in str(report)


def test_without_numbers_nothing_is_said_of_sensitivity() -> None:
    model = net().to("meta")
    plan = planc.compile(net(), X, ratio=0.5)
    report = planc.verify(plan, model, planc.apply(plan, model), X.to("meta"))
    assert report.sensitivity is None
    assert report.not_shown == ("outputs not compared: on the meta device there are no numbers",)


@pytest.mark.parametrize(
    ("function", "args", "least"),
    [
        (lambda x: x.sum(), (torch.ones(3),), 0.1),  # equal numbers
        (lambda x: x.sum(), (torch.zeros(3),), 0.1),
        (lambda x: x.abs().sum(), (torch.randn(3, dtype=torch.complex64),), 1e-3),
        (lambda i: i + 0.5, (torch.zeros(1, 6, dtype=torch.int64),), 0.1),
        (lambda i: i + 0.5, (torch.tensor([3]),), 0.1),
        (lambda i: i + 0.5, (torch.tensor([3, 0, 7, 1]),), 0.1),
        (lambda i, x: x[:, i], (torch.tensor([0]), torch.randn(2, 1)), 0.01),  # 1 is no index
        (lambda x: x[x > 0.5], (torch.arange(8.0) / 7,), float("inf")),  # another shape
        (lambda x: x * 0, (torch.randn(3),), 0.0),
        (lambda x: x / 0, (torch.rand(3),), 0.0),
        (lambda x: x[:0], (torch.randn(3),), 0.0),
    ],
)
def test_other_inputs_are_of_the_same_range(function: Any, args: Any, least: float) -> None:
    found = sensitivity(Part(function), (args, {}))
    assert found is not None
    assert found >= least
    assert (found == 0) == (least == 0)


@pytest.mark.parametrize(
    ("function", "args"),
    [
        (lambda mask: mask.float(), (torch.ones(3, dtype=torch.bool),)),
        (lambda n: torch.ones(n), (3,)),
        (lambda x: x * 1.0, (torch.zeros(0, dtype=torch.int64),)),
        (lambda x: x * 1.0, (torch.zeros(0),)),
        (lambda x: x[torch.zeros(1)[x[0].long()].long()], (torch.zeros(1, dtype=torch.int32),)),
        (lambda: torch.ones(3), ()),
    ],
)
def test_without_other_inputs_there_is_no_sensitivity(function: Any, args: Any) -> None:
    assert sensitivity(Part(function), (args, {})) is None


def test_other_inputs_that_are_refused_leave_it_open() -> None:
    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.last = nn.Embedding(1, 8), nn.Linear(8, 2)

        def forward(self, index: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.last(self.embedding(index))
            return out

    model = Table().eval()
    randomise(model, seed=0)
    report = verified(model, torch.zeros(2, 3, dtype=torch.int64))
    assert report.sensitivity is None
    assert "other inputs were not tried: the model accepts none of these shapes" in report.not_shown
    assert not any("outputs equal" in check for check in report.not_shown)
