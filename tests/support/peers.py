"""Models pruned by Torch-Pruning, with the histories it writes."""

from __future__ import annotations

import copy
import json
import warnings
from typing import Any

import pytest
import torch
from torch import nn


def pruned(
    model: nn.Module, last: str, images: torch.Tensor, steps: int = 1, **options: Any
) -> tuple[nn.Module, Any]:
    """The model with half of its channels, and the history as JSON holds it."""
    tp = pytest.importorskip("torch_pruning")
    smaller = copy.deepcopy(model)
    for option in ("channel_groups", "num_heads"):
        if option in options:
            heads = options[option]
            options[option] = {smaller.get_submodule(name): n for name, n in heads.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pruner = tp.pruner.BasePruner(
            smaller,
            images,
            importance=tp.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=0.5,
            iterative_steps=steps,
            ignored_layers=[smaller.get_submodule(last)],
            **options,
        )
        for _ in range(steps):
            pruner.step()
    return smaller, json.loads(json.dumps(pruner.pruning_history()))
