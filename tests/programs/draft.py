"""A model being written, line by line: what a line of ``forward`` computes is known at once, so
that the next can be made to fit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

T = TypeVar("T")
NAMESPACE = {"torch": torch, "nn": nn, "functional": functional, "math": math}
_RECENT = 4  # how far back a step looks for what it works on


class Draft:
    """Lines of ``__init__`` and ``forward``, and the tensors they have made.

    Values are images [batch, channels, height, width] or tokens [batch, positions, features].
    """

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.setup: list[str] = []
        self.lines: list[str] = []
        self.finished: list[str] = []
        self.numbers: dict[int, list[str]] = {}
        self.model = nn.Module()
        self.values: dict[str, Any] = dict(NAMESPACE) | {"self": self.model}

    # -- chance --------------------------------------------------------------------------------

    def choice(self, options: Sequence[T]) -> T:
        return options[int(self.rng.integers(len(options)))]

    def between(self, low: int, high: int) -> int:
        """An integer, ``high`` included."""
        return int(self.rng.integers(low, high + 1))

    def divisor(self, n: int, least: int = 2) -> int | None:
        """A divisor of n that is at least ``least`` and below n, if there is one."""
        found = [d for d in range(least, n) if n % d == 0]
        return self.choice(found) if found else None

    # -- what is there -------------------------------------------------------------------------

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.values[name].shape)

    def channels(self, name: str) -> int:
        """The number of channels of images, or of features of tokens."""
        shape = self.shape(name)
        return shape[1] if len(shape) == 4 else shape[2]

    def recent(self) -> str:
        """One of the latest values."""
        return self.choice(self.finished[-_RECENT:])

    def like(self, name: str) -> str:
        """A value of the same shape, perhaps itself."""
        return self.choice([n for n in self.finished if self.shape(n) == self.shape(name)])

    # -- what a line is made of ----------------------------------------------------------------

    def member(self, kind: str, made_by: str) -> str:
        """A new attribute of the model."""
        name = f"self.{kind}{len(self.setup)}"
        self.setup.append(f"{name} = {made_by}")
        exec(self.setup[-1], self.values)
        return name

    def layer(self, made_by: str) -> str:
        return self.member("layer", made_by)

    def parameter(self, *shape: int) -> str:
        return self.member("weight", f"nn.Parameter(torch.randn({', '.join(map(str, shape))}))")

    def number(self, n: int) -> str:
        """A literal, or an attribute, which may be one that something else uses."""
        if self.rng.random() < 0.4:
            return str(n)
        known = self.numbers.setdefault(n, [])
        if not known or self.rng.random() < 0.7:
            known.append(self.member("number", str(n)))
        return self.choice(known)

    def size(self, name: str, dim: int, over: int = 1) -> str:
        """The size of a dimension, or a part of it, in one of the ways that models say it."""
        n = self.shape(name)[dim] // over
        part = f" // {over}" if over > 1 else ""
        kind = self.between(0, 3)
        if kind == 0:
            return f"{name}.shape[{dim}]{part}"
        if kind == 1:
            return f"{name}.size({dim}){part}"
        return self.number(n)

    # -- lines ---------------------------------------------------------------------------------

    def let(self, made_by: str) -> str:
        """A new value, for use within a step."""
        name = f"v{len(self.lines)}"
        self.do(f"{name} = {made_by}")
        return name

    def give(self, made_by: str) -> str:
        """A new value that later steps may use."""
        name = self.let(made_by)
        assert isinstance(self.values[name], Tensor)
        self.finished.append(name)
        return name

    def do(self, line: str) -> None:
        """A line of ``forward``."""
        self.lines.append(line)
        with torch.no_grad():
            exec(line, self.values)
