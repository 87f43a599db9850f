"""Hugging Face transformers models: small random configurations of many types, with inputs.

One table for each family, each a mapping from the name of a type to its :class:`Entry`.
"""

from __future__ import annotations

import torch
from torch import nn

from tests.zoo.transformers.decoders import DECODERS
from tests.zoo.transformers.encoders import ENCODERS
from tests.zoo.transformers.entry import Entry
from tests.zoo.transformers.images import IMAGES
from tests.zoo.transformers.others import OTHERS
from tests.zoo.transformers.weights import randomise

TABLE: dict[str, Entry] = DECODERS | ENCODERS | IMAGES | OTHERS


def names() -> list[str]:
    """All types, in the order of the tables."""
    return list(TABLE)


def build(name: str, seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A small model of that type in eval mode, all of whose parameters are random."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = TABLE[name].model()
    randomise(model, seed)
    return model.eval().to(dtype)


def example_inputs(name: str, batch: int = 1, seed: int = 0) -> dict[str, torch.Tensor]:
    """The keyword arguments of one call, as a tokenizer or image processor would give them."""
    return TABLE[name].inputs(batch, torch.Generator().manual_seed(seed))
