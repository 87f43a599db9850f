"""A module that holds what a graph refers to: tensors and modules in, a tree of plain modules out,
in which each has its dotted name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn


def holder(tensors: Mapping[str, torch.Tensor], leaves: Mapping[str, nn.Module]) -> nn.Module:
    """A module that has the tensors and modules under their dotted names."""
    root = nn.Module()
    for path, leaf in leaves.items():
        *outer, last = path.split(".")
        _inner(root, outer).add_module(last, leaf)
    for name, tensor in tensors.items():
        assign(root, name, tensor)
    return root


def assign(module: nn.Module, name: str, tensor: torch.Tensor) -> None:
    """Registers a tensor under a dotted name, with modules on the way where there are none."""
    *path, last = name.split(".")
    module = _inner(module, path)
    if isinstance(tensor, nn.Parameter):
        module.register_parameter(last, tensor)
    elif last not in module._buffers:
        module.register_buffer(last, tensor)
    else:
        module._buffers[last] = tensor


def _inner(module: nn.Module, path: Sequence[str]) -> nn.Module:
    """The module at a path inside another; plain ones are made where there are none."""
    for part in path:
        if part not in module._modules:
            module.add_module(part, nn.Module())
        inner = module._modules[part]
        assert inner is not None
        module = inner
    return module
