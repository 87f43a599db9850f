"""Zero divided by a value above zero is zero: the group is not called mixing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import planc
from planc.analysis.signs import positive
from tests.support.proving import prove

TOKENS = torch.randn(2, 3, 6)


class Divided(nn.Module):
    """Features divided by something, and summed: zeros alone do not count in the sum."""

    def __init__(self, run: Callable[[Any, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.run = run
        self.a, self.b = nn.Linear(6, 4), nn.Linear(6, 4)
        self.w = nn.Parameter(torch.ones(4))
        self.register_buffer("s", torch.rand(4) + 0.1)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, self.a(x), self.b(x)).sum(-1)


ABOVE: dict[str, Callable[[Any, Tensor, Tensor], Tensor]] = {
    "a buffer": lambda m, x, y: x / (m.s.abs() + 0.5),
    "a parameter": lambda m, x, y: x / (m.w.abs() + 0.5),
    "a square": lambda m, x, y: x / (m.w.square() + 1e-3),
    "a root": lambda m, x, y: x / torch.sqrt(m.w.pow(2) + 1e-5),
    "clamped": lambda m, x, y: x / m.s.clamp(min=1e-3),
    "clamped from below": lambda m, x, y: x / m.s.clamp_min(1e-3),
    "another activation": lambda m, x, y: x / (1 + y.abs()),
    "an exponential": lambda m, x, y: x / (1 + torch.exp(-y)),
    "softsign": lambda m, x, y: x / (x.abs() + 1),
    "in place": lambda m, x, y: x.div(y.abs_().add_(1.0)),
    "twice": lambda m, x, y: x / (2 * (y.relu() + 1)),
    "a sum with ones": lambda m, x, y: x / (y.abs() + torch.ones_like(y)),
}
UNSURE: dict[str, Callable[[Any, Tensor, Tensor], Tensor]] = {
    "any number": lambda m, x, y: x / m.s,
    "a shift": lambda m, x, y: x / (y + 3),
    "less": lambda m, x, y: x / (y.abs() - 9),
    "less in place": lambda m, x, y: x / (y.abs() + 1).sub_(9),
    "a multiple": lambda m, x, y: x / torch.add(y.abs(), 1.0, alpha=-9),
    "an exponential that may vanish": lambda m, x, y: x / torch.exp(y),
    "a product that may vanish": lambda m, x, y: x / ((y.abs() + 1) * 1e-9),
    "a whole number": lambda m, x, y: x / (y.abs() + 0.5).int().add(0),
    "a number too small": lambda m, x, y: x / (y.abs() + 1e-310),
}


@pytest.mark.long
@pytest.mark.parametrize("name", ABOVE)
def test_zero_divided_by_a_value_above_zero_stays_zero(name: str) -> None:
    found = prove(Divided(ABOVE[name]), TOKENS)
    mixing = {group.name: group.mixing for group in found.groups}
    assert mixing[next(g.name for g in found.groups if "a.weight" in str(g.members))] == ""


@pytest.mark.parametrize("name", UNSURE)
def test_values_that_may_be_zero_are_not_above_it(name: str) -> None:
    model = Divided(UNSURE[name]).eval().double()
    graph = planc.trace(model, TOKENS.double())
    (division,) = (node for node in graph.nodes if node.op.startswith("aten.div"))
    assert division.args[1].id not in positive(graph)
