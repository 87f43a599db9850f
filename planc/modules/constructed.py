"""Tensors in plain attributes, set by the constructor of a module's class and by no other method.

They are part of a model like non-persistent buffers. Tensors set by other code may be caches.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from planc.modules.reach import stored_attributes

_KINDS = (torch.Tensor, FakeTensor)
_ORIGINS = ("_orig", "_g", "_v")
_names: WeakKeyDictionary[type, frozenset[str]] = WeakKeyDictionary()


def plain_tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """The floating-point tensors of several elements in plain attributes, by full name."""
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if type(value) in _KINDS and _counts(module, name, value):
                yield f"{path}.{name}" if path else name, value


def _counts(module: nn.Module, name: str, value: torch.Tensor) -> bool:
    """True for a tensor of the constructor, and False for one computed by a hook."""
    own = {**module._parameters, **module._buffers}
    return (
        (value.is_floating_point() or value.is_complex())
        and value.layout is torch.strided
        and value.dim() > 0
        and value.numel() > 1
        and not any(name + ending in own for ending in _ORIGINS)
        and name in _constructed(type(module))
    )


def _constructed(kind: type) -> frozenset[str]:
    """The attributes stored by the constructors of a class or by methods that constructors alone
    call, and by no other method of it.
    """
    if kind not in _names:
        methods = list(_methods(kind))
        called = {n for name, code in methods if name == "__init__" for n in code.co_names}
        others = [code for name, code in methods if name != "__init__" and name not in called]
        shared = called.intersection(n for code in others for n in code.co_names)
        made: set[str] = set()
        stored: set[str] = set()
        for name, code in methods:
            first = name == "__init__" or (name in called and name not in shared)
            (made if first else stored).update(stored_attributes(code))
        _names[kind] = frozenset(made - stored)
    return _names[kind]


def _methods(kind: type) -> Iterator[tuple[str, types.CodeType]]:
    """The methods of a class and its bases, as far as they are not torch's."""
    for base in kind.__mro__:
        if base.__module__.startswith("torch.nn.modules"):
            return
        for name, function in vars(base).items():
            if isinstance(function, types.FunctionType):
                yield name, function.__code__
