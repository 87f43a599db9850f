"""Structural copies of modules: everything but the tensors, supplied by the caller."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from planc.modules.closures import Bindings, Memo, attribute_values, inner_tensors, is_hooks
from planc.modules.deep import deep_copy
from planc.modules.forgetting import forget_properties
from planc.modules.hooks import compute_again

_OWNED = ("_parameters", "_buffers", "_modules")
_STATE = ("__getstate__", "__setstate__")


def clone(
    model: nn.Module, replace: Callable[[torch.Tensor], torch.Tensor], *, apart: bool = True
) -> nn.Module:
    """A deep copy of ``model`` with ``replace(t)`` for every tensor ``t``; tied tensors stay tied.

    Parameters, buffers and tensors in attributes of modules are replaced without being copied;
    tensors computed by pruning hooks are computed again. An object shared by modules, hooks and
    closures is copied once. With ``apart`` this includes objects of the caller written to by hooks
    alone; otherwise the copy goes on to write to these.
    """
    memo: Memo = {}
    modules = dict(model.named_modules())
    for module in modules.values():
        for value in attribute_values(module):
            for tensor in inner_tensors(value):
                if id(tensor) not in memo:
                    memo[id(tensor)] = replace(tensor)
    copied: nn.Module = deep_copy(model, memo)
    copies = dict(copied.named_modules())
    for path, module in modules.items():
        if copies.get(path, module) is not module:
            _complete(module, copies[path], memo)
    forget_properties(copies.values())
    if any(module._forward_pre_hooks for module in copies.values()):
        compute_again(model, copied)
    Bindings(memo, replace, apart).bind(copies.values())
    return copied


def _complete(old: nn.Module, new: nn.Module, memo: Memo) -> None:
    """Copy the parts dropped by a class's own way of copying.

    These are modes, hooks and flags, parts built anew, and parts unused by the code of a graph.
    """
    new.training = old.training
    whole = isinstance(old, fx.GraphModule) or type(old) is nn.Module
    if whole or any(getattr(type(old), name) is not getattr(nn.Module, name) for name in _STATE):
        for part in _OWNED:
            _complete_part(vars(new)[part], vars(old)[part], memo)
    new._non_persistent_buffers_set |= old._non_persistent_buffers_set & new._buffers.keys()
    for name, parameter in new._parameters.items():
        was = old._parameters.get(name)
        if parameter is not None and was is not None and parameter is not memo.get(id(was)):
            parameter.requires_grad_(was.requires_grad)
    for name, value in vars(old).items():
        hooks = is_hooks(name, value) and value
        if (hooks and not vars(new).get(name)) or (whole and name not in vars(new)):
            vars(new)[name] = deep_copy(value, memo)


def _complete_part(mine: dict[str, Any], others: dict[str, Any], memo: Memo) -> None:
    found = {name: deep_copy(value, memo) for name, value in others.items()}
    if list(mine) != list(found) or any(mine[name] is not found[name] for name in mine):
        mine.clear()
        mine.update(found)
