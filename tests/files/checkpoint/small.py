"""The small model of the tests in this folder, its plan, and what the plan makes of it."""

from __future__ import annotations

import torch
from torch import nn

import planc

INPUT = torch.zeros(1, 3)


class Small(nn.Module):
    """Two layers and a counter that no state dict has."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(3, width), nn.Linear(width, 2)
        self.register_buffer("steps", torch.ones(()), persistent=False)
        self.register_buffer("empty", torch.zeros(0, 2))
        self.mode, self.sizes, self.rates = "x", [1, (2,)], {"a": 0.5}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.down(torch.relu(self.up(x)) * self.steps)
        return y


def small(seed: int = 0) -> Small:
    torch.manual_seed(seed)
    return Small().eval()


PLAN = planc.compile(small(), INPUT, ratio=0.5)


def pruned(seed: int = 0) -> nn.Module:
    return planc.apply(PLAN, small(seed))
