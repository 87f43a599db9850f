"""Root module of a graph: a tree of plain modules with tensors and leaf modules by dotted name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn


def holder(tensors: Mapping[str, torch.Tensor], leaves: Mapping[str, nn.Module]) -> nn.Module:
    """Return a module with the tensors and modules under their dotted names."""
    root = nn.Module()
    for path, leaf in leaves.items():
        *outer, last = path.split(".")
        _inner(root, outer).add_module(last, leaf)
    for name, tensor in tensors.items():
        assign(root, name, tensor)
    return root


def assign(module: nn.Module, name: str, tensor: torch.Tensor) -> None:
    """Register a tensor under a dotted name; missing modules on the path are created."""
    *path, last = name.split(".")
    module = _inner(module, path)
    if isinstance(tensor, nn.Parameter):
        module.register_parameter(last, tensor)
    elif last not in module._buffers:
        module.register_buffer(last, tensor)
    else:
        module._buffers[last] = tensor


def _inner(module: nn.Module, path: Sequence[str]) -> nn.Module:
    """Return the module at a path inside another; missing modules are created."""
    for part in path:
        if part not in module._modules:
            module.add_module(part, nn.Module())
        inner = module._modules[part]
        assert inner is not None
        module = inner
    return module
