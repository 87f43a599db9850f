"""Structural copies of modules: everything but the tensors, which the caller supplies."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import nn

from planc.reparametrised import compute_again


def clone(model: nn.Module, replace: Callable[[torch.Tensor], torch.Tensor]) -> nn.Module:
    """A deep copy of ``model`` in which every tensor ``t`` is ``replace(t)``; tied ones stay tied.

    Parameters, buffers and tensors that are plain attributes of modules are replaced, without
    ever being copied; what pruning hooks compute from them is computed again.
    """
    memo: dict[int, object] = {}
    for module in model.modules():
        for owned in (module._parameters, module._buffers, vars(module)):
            for tensor in owned.values():
                if isinstance(tensor, torch.Tensor) and id(tensor) not in memo:
                    memo[id(tensor)] = replace(tensor)
    copied = copy.deepcopy(model, memo)
    compute_again(model, copied)
    return copied
