"""Rows of a projection that a parameter of shape (heads, dim) scales are heads."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import planc
from planc.plan.plan import Plan


class GraphAttention(nn.Module):
    """Attention over nodes by a vector for each head."""

    def __init__(self, shape: tuple[int, ...], heads: int, dim: int) -> None:
        super().__init__()
        self.heads, self.dim = heads, dim
        self.lin, self.out = nn.Linear(8, heads * dim), nn.Linear(heads * dim, 3)
        self.att = nn.Parameter(torch.randn(shape))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.lin(x).view(-1, self.heads, self.dim)
        weights = (h * self.att).sum(-1).softmax(0)
        return self.out((h * weights.unsqueeze(-1)).view(-1, self.heads * self.dim).relu())


def lost(plan: Plan) -> dict[str, tuple[int, int]]:
    return {group.kind: (group.size, len(group.removed)) for group in plan.groups}


@pytest.mark.parametrize(
    ("shape", "heads", "dim"),
    [((1, 4, 16), 4, 16), ((4, 16), 4, 16), ((1, 3, 6), 3, 6), ((1, 1, 5, 4), 5, 4)],
)
def test_heads_go_on_request_only(shape: tuple[int, ...], heads: int, dim: int) -> None:
    model, x = GraphAttention(shape, heads, dim).eval(), torch.randn(6, 8)
    plan = planc.compile(model, x, ratio=0.5)
    assert lost(plan) == {"heads": (heads, 0), "head_dim": (dim, dim // 2)}
    plan = planc.compile(model, x, ratio=0.0, kinds={"heads": 0.5})
    assert lost(plan) == {"heads": (heads, heads // 2), "head_dim": (dim, 0)}
    planc.verify(plan, model, planc.apply(plan, model), x)
    plan = planc.compile(model, x, ratio=0.5, rows="heads")
    assert lost(plan) == {"heads": (heads, heads // 2), "head_dim": (dim, dim // 2)}


class Outer(nn.Module):
    """The product of two vectors, flattened: no side of it is a row of the other."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(4, 6), nn.Linear(4, 8), nn.Linear(48, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out((self.a(x)[:, :, None] * self.b(x)[:, None]).flatten(1))


def test_weights_of_their_own_make_features() -> None:
    plan = planc.compile(Outer().eval(), torch.randn(2, 4), ratio=0.5)
    assert [(g.kind, g.size, len(g.removed)) for g in plan.groups] == [
        ("features", 6, 3),
        ("features", 8, 4),
    ]
