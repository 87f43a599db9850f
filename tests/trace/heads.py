"""A small classifier whose ten scores leave it in a way of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import planc
from planc.plan.plan import Plan
from tests.support.proving import randomise

X = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
CLASSES = 10


class Head(nn.Module):
    """``leave(self, h)`` says what becomes of the hidden features."""

    def __init__(self, leave: Callable[[Any, torch.Tensor], Any]) -> None:
        super().__init__()
        self.leave = leave
        self.first, self.scores, self.value = nn.Linear(8, 16), nn.Linear(16, 10), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> Any:
        return self.leave(self, torch.tanh(self.first(x)))


def head(leave: Callable[[Any, torch.Tensor], Any]) -> Head:
    model = Head(leave)
    randomise(model, seed=0)
    return model.eval()


def pruned(model: nn.Module, **options: Any) -> tuple[Plan, nn.Module, planc.Report]:
    """A plan for half of a model, the result, and the report of its verification."""
    plan = planc.compile(model, X, ratio=0.5, **options)
    smaller = planc.apply(plan, model, args=X)
    return plan, smaller, planc.verify(plan, model, smaller, X)


def width(module: nn.Module, name: str) -> int:
    return int(module.get_parameter(f"{name}.weight").shape[0])


def reason(model: nn.Module, name: str = "scores.weight") -> str:
    """Why rows of a weight stay; empty where none does."""
    found = planc.analyze(planc.trace(model, X)).pins
    return "; ".join(pin.reason for pin in found if (pin.tensor, pin.dim) == (name, 0))
