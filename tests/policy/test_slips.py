"""Requests that remove nothing, or mean something else, are answered with what to do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import planc
from planc.criteria import BatchNormScale, Fallback, Magnitude
from planc.errors import InfeasibleBudget, PlancWarning, PolicyError
from planc.plan.plan import Plan
from tests.support.small import build

ALL_PINNED = {
    "one layer": nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()),
    "a linear layer": nn.Linear(3, 4),
    "no parameters": nn.Sequential(nn.ReLU()),
}


@pytest.mark.parametrize("name", ALL_PINNED)
def test_a_model_without_groups_points_to_explain(name: str) -> None:
    model, x = ALL_PINNED[name].eval(), torch.randn(1, 3, 8, 3)
    with pytest.warns(PlancWarning, match="nothing can be removed: planc explain MODEL"):
        plan = planc.compile(model, x, ratio=0.5)
    assert plan.cost_after == plan.cost_before
    if plan.cost_before.params:
        with pytest.raises(InfeasibleBudget, match="that nothing can be removed; planc explain"):
            planc.compile(model, x, params=0.5)


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ({"macs": 1}, r"macs=1 is a figure of 1 MAC: for a share give macs=1\.0 \(--macs 100%\)"),
        (
            {"macs": 50},
            r"macs=50 is a figure of 50 MACs: for a share give macs=0\.5 \(--macs 50%\)",
        ),
        (
            {"params": 30},
            r"params=30 is a figure of 30 parameters: .* params=0\.3 \(--params 30%\)",
        ),
        ({"bytes": 2, "macs": 0.9}, r"bytes=2 is a figure of 2 bytes: .* bytes=0\.02 "),
    ],
)
def test_a_small_figure_was_meant_as_a_share(budget: dict[str, Any], said: str) -> None:
    model, inputs = build("residual")
    with pytest.raises(InfeasibleBudget, match=said):
        planc.compile(model, inputs, **budget)


class Pinned(nn.Module):
    """A residual stream of which ``pinned`` coordinates are read by position."""

    def __init__(self, width: int = 64, pinned: int = 1) -> None:
        super().__init__()
        self.pinned = pinned
        self.embed, self.norm = nn.Embedding(32, width), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 96), nn.Linear(96, width)
        self.head = nn.Linear(width, 10)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        h = self.embed(tokens)
        h = h + 0 * h[:, :, -self.pinned :].shape[1] + self.down(self.up(h).relu())
        return self.head(self.norm(h))


def widths(plan: Plan) -> set[int]:
    return {len(kept) for cut in plan.cuts.values() for kept in cut.kept if kept is not None}


@pytest.mark.parametrize(
    ("width", "pinned", "to", "stay"),
    [
        (64, 1, 8, 40),
        (64, 3, 8, 40),
        (64, 8, 8, 40),
        (64, 1, 1, 33),
        (60, 2, 16, 32),
        (65, 1, 16, 48),
    ],
)
def test_a_dimension_with_pinned_coordinates_is_rounded_as_a_whole(
    width: int, pinned: int, to: int, stay: int
) -> None:
    model, tokens = Pinned(width, pinned).eval(), torch.randint(0, 32, (1, 7))
    plan = planc.compile(model, tokens, ratio=0.5, round_to=to)
    assert widths(plan) == {stay, 48}
    assert planc.apply(plan, model)(tokens).shape == (1, 7, 10)
    bounded = planc.compile(model, tokens, params=0.6, round_to=to)
    assert all(n % to == 0 for n in widths(bounded))


def test_a_criterion_may_say_nothing_of_a_group_that_stays_whole() -> None:
    model, inputs = build("depthwise")
    only = "norm"
    for ranking in ("uniform", "global", "per_cost"):
        plan = planc.compile(
            model, inputs, ratio=0.25, criterion="batch_norm", only=only, ranking=ranking
        )
        assert [group.name for group in plan.groups if group.removed] == ["expand.weight:0"]
    both = Fallback(BatchNormScale(), Magnitude(2))
    assert planc.compile(model, inputs, criterion=both, only=only).groups == (
        planc.compile(model, inputs, criterion="batch_norm", only=only).groups
    )
    with pytest.raises(
        PolicyError, match=r"says nothing of group squeeze.*keep='squeeze.weight:0'"
    ):
        planc.compile(model, inputs, criterion="batch_norm")
    plan = planc.compile(model, inputs, criterion="batch_norm", keep=["squeeze", "project", "head"])
    assert [group.name for group in plan.groups if group.removed] == ["expand.weight:0"]
