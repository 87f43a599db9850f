"""Models that no graph can hold: verified beside the masked original alone."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import planc
from planc.errors import TraceError
from planc.verify.outputs import run
from tests.support.proving import randomise

X = torch.randn(2, 6, generator=torch.Generator().manual_seed(0))
Finish = Callable[[Any, torch.Tensor], Any]


class Finished(nn.Module):
    def __init__(self, finish: Finish, norm: bool) -> None:
        super().__init__()
        self.finish = finish
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)
        self.norm = nn.LayerNorm(8) if norm else nn.Identity()

    def forward(self, x: torch.Tensor) -> Any:
        return self.finish(self, self.last(torch.relu(self.norm(self.first(x)))))


def model_of(finish: Finish, norm: bool = False) -> nn.Module:
    model = Finished(finish, norm)
    randomise(model, seed=0)
    return model.eval()


def checked(model: nn.Module) -> planc.Report:
    plan = planc.compile(model, X, ratio=0.5)
    assert plan.cuts["first.weight"].shape == (4, 6)
    return planc.verify(plan, model, planc.apply(plan, model, args=X), X)


def with_itself(self: Any, y: torch.Tensor) -> Any:
    return y, functools.partial(self.first, 0)


def as_array(self: Any, y: torch.Tensor) -> Any:
    return y, y.detach().numpy()


REASONS = {
    with_itself: "not compared with the rewritten graph: result[1].<Linear> is a Linear of the",
    as_array: "not compared with the rewritten graph: a value leaves torch by numpy() in the model",
}


@pytest.mark.parametrize("finish", REASONS)
def test_it_is_compared_with_the_masked_original(finish: Finish) -> None:
    report = checked(model_of(finish))
    assert REASONS[finish] in str(report)
    assert "outputs equal the masked original's" in str(report)
    assert report.graph_error == 0.0
    assert report.error is not None
    assert report.error < 1e-5


@pytest.mark.parametrize("finish", REASONS)
def test_where_groups_mix_nothing_is_left_to_compare_with(finish: Finish) -> None:
    report = checked(model_of(finish, norm=True))
    assert report.error is None
    assert "not compared with the masked original" in str(report)
    assert not any("outputs equal" in check for check in report.checks)


def test_at_other_sizes_it_is_compared_with_the_masked_original() -> None:
    assert "the masked original with inputs of 1x6" in str(checked(model_of(with_itself)))
    said = str(checked(model_of(with_itself, norm=True)))
    assert "with inputs of 1x6 not compared with the rewritten graph: result[1]" in said


def test_an_iterator_that_never_ends_is_named() -> None:
    with pytest.raises(TraceError, match=r"result\[1\] is a count that has not ended"):
        run(model_of(lambda self, y: (y, itertools.count())), ((X,), {}))
