"""One type of model in the tables: its class, its small configuration, the inputs it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

VOCABULARY = 96
LENGTH = 12  # tokens of an example


@dataclass(frozen=True)
class Entry:
    """``architecture`` and ``configuration`` are names of classes of the library, ``options`` what
    the configuration is made with; ``inputs`` makes the arguments for a batch.
    """

    architecture: str
    configuration: str
    options: Mapping[str, Any] = field(default_factory=dict)
    inputs: Callable[[int, torch.Generator], dict[str, torch.Tensor]] = field(
        default_factory=lambda: text
    )

    def model(self) -> nn.Module:
        """A model of the type, as the library initialises it."""
        import transformers

        configuration = getattr(transformers, self.configuration)(**self.options)
        return getattr(transformers, self.architecture)(configuration)  # type: ignore[no-any-return]


def text(batch: int, generator: torch.Generator, length: int = LENGTH) -> dict[str, torch.Tensor]:
    """Token numbers and a mask that hides none of them."""
    shape = (batch, length)
    tokens = torch.randint(3, VOCABULARY, shape, generator=generator)  # 0 to 2 may be special
    return {"input_ids": tokens, "attention_mask": torch.ones(shape, dtype=torch.int64)}
