"""Models with a few batches and a loss, for criteria that need statistics."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tests.support.small import build

Batch = tuple[torch.Tensor, ...]


def loss(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Half the mean squared output, over the batch."""
    output = model(*batch)
    return (output.double() ** 2).mean().to(output.dtype) / 2


def case(name: str, count: int = 3) -> tuple[nn.Module, list[Batch]]:
    """A model in double precision and batches like its example inputs."""
    model, inputs = build(name, torch.float64)
    drawn = torch.Generator().manual_seed(2)
    return model, [tuple(_other(x, drawn) for x in inputs) for _ in range(count)]


def _other(x: torch.Tensor, drawn: torch.Generator) -> Any:
    if x.is_floating_point():
        return torch.randn(x.shape, generator=drawn, dtype=x.dtype)
    return torch.randint(0, 7, x.shape, generator=drawn)
