"""Small residual models whose blocks can be removed, or cannot for one reason each."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    """A residual block: pre-norm, post-norm, or behind a rectifier."""

    def __init__(self, width: int, inner: int, number: int, kind: str = "pre") -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)
        self.kind, self.layer_idx = kind, number

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.kind == "pre":
            return x + self.down(functional.gelu(self.up(self.norm(x))))
        x = x + self.down(functional.relu(self.up(x)))
        return self.norm(x) if self.kind == "post" else functional.relu(x)


class Stack(nn.Module):
    """An embedding, a list of blocks, and a head."""

    def __init__(self, count: int = 4, kind: str = "pre", inner: int = 6, by_count: bool = False):
        super().__init__()
        self.stem, self.head = nn.Linear(3, 4), nn.Linear(4, 2)
        self.blocks = nn.ModuleList(Block(4, inner, i, kind) for i in range(count))
        self.depth, self.by_count = count, by_count

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.stem(x))
        for i in range(self.depth if self.by_count else len(self.blocks)):
            x = self.blocks[i](x)
        return self.head(x)


class Taps(Stack):
    """Returns the values between the blocks, too."""

    def forward(self, x: torch.Tensor) -> Any:
        x, states = functional.relu(self.stem(x)), []
        for block in self.blocks:
            x = block(x)
            states.append(x)
        return self.head(x), states


class Choosy(Stack):
    """Treats its third block in another way, by its number."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.stem(x))
        for i, block in enumerate(self.blocks):
            x = block(x) if i != 2 else torch.tanh(block(x))
        return self.head(x)


class Scaled(Stack):
    """Scales what leaves each block by its number."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.stem(x))
        for block in self.blocks:
            x = block(x) * (1 / (1 + block.layer_idx))
        return self.head(x)


class Outside(Stack):
    """Adds the stream outside the blocks, so that a block alone is no residual."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.stem(x))
        for block in self.blocks:
            x = x + block.down(functional.relu(block.up(x)))
        return self.head(x)


def sequential(count: int = 4, kind: str = "pre") -> nn.Sequential:
    """A model that is itself a list of blocks, with other parts at both ends."""
    blocks = (Block(4, 5, i, kind) for i in range(count))
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), *blocks, nn.Linear(4, 2))


def inputs() -> tuple[torch.Tensor]:
    return (torch.randn(2, 3, generator=torch.Generator().manual_seed(1)),)
