"""Structural copies of modules: everything but the tensors, which the caller supplies."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from planc.reparametrised import compute_again

_OWNED = ("_parameters", "_buffers", "_modules")


def clone(model: nn.Module, replace: Callable[[torch.Tensor], torch.Tensor]) -> nn.Module:
    """A deep copy of ``model`` in which every tensor ``t`` is ``replace(t)``; tied ones stay tied.

    Parameters, buffers and tensors that are plain attributes of modules are replaced, without
    ever being copied; what pruning hooks compute from them is computed again.
    """
    memo: dict[int, Any] = {}
    for module in model.modules():
        for owned in (module._parameters, module._buffers, vars(module)):
            for tensor in owned.values():
                if isinstance(tensor, torch.Tensor) and id(tensor) not in memo:
                    memo[id(tensor)] = replace(tensor)
    copied: nn.Module = copy.deepcopy(model, memo)
    for path, module in model.named_modules():
        if isinstance(module, fx.GraphModule):
            _complete(module, copied.get_submodule(path), memo)
    compute_again(model, copied)
    return copied


def _complete(old: nn.Module, new: nn.Module, memo: dict[int, Any]) -> None:
    """Gives the copy of a graph module, and of what it holds, all that its own way of copying
    leaves behind: what its code does not use, hooks, and the modes of its parts.
    """
    new.training = old.training
    for part in _OWNED:
        mine, others = vars(new)[part], vars(old)[part]
        found = {
            name: mine[name] if name in mine else copy.deepcopy(value, memo)
            for name, value in others.items()
        }
        mine.clear()
        mine.update(found)
    new._non_persistent_buffers_set |= old._non_persistent_buffers_set
    for name, value in vars(old).items():
        hooks = "_hooks" in name and isinstance(value, dict)
        if name not in vars(new) or (hooks and not vars(new)[name]):
            vars(new)[name] = copy.deepcopy(value, memo)
    for name, module in old._modules.items():
        other = new._modules[name]
        if module is not None and other is not None and type(module) is nn.Module:
            _complete(module, other, memo)
