"""What a module tree is made of, as plain data: its tensors with all their names, and the
structural attributes of its modules.

The recorder, the fingerprints and ``apply`` all see a model through these functions, so a model
that was traced and the same model at the time of applying give equal tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from inspect import signature
from typing import Any

import torch
from torch import nn

from planc.ir.graph import Module, Value


@dataclass(frozen=True, slots=True, eq=False)
class OwnedTensor:
    """A parameter or buffer with all the names that lead to it."""

    names: tuple[str, ...]
    tensor: torch.Tensor
    kind: str  # "parameter" or "buffer"


def owned_tensors(model: nn.Module) -> tuple[OwnedTensor, ...]:
    """The parameters, then the buffers of ``model``, tied names together."""
    names: dict[int, list[str]] = {}
    found: dict[int, tuple[torch.Tensor, str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
        found.setdefault(id(parameter), (parameter, "parameter"))
    for name, buffer in model.named_buffers(remove_duplicate=False):
        names.setdefault(id(buffer), []).append(name)
        found.setdefault(id(buffer), (buffer, "buffer"))
    return tuple(
        OwnedTensor(tuple(names[key]), tensor, kind) for key, (tensor, kind) in found.items()
    )


def structural(value: Any) -> Any:
    """``value`` as a structural attribute (lists and torch sizes as tuples), or None if it is not
    one: integers, booleans, strings and nested tuples of them are.
    """
    if type(value) in (int, bool, str):
        return value
    if type(value) in (tuple, list, torch.Size):
        items = tuple(structural(item) for item in value)
        return None if any(item is None for item in items) else items
    return None


def is_cached(module: nn.Module, name: str) -> bool:
    """Whether an attribute is the value of a cached property."""
    return isinstance(getattr(type(module), name, None), cached_property)


def structural_attributes(module: nn.Module) -> dict[str, Any]:
    """The structural attributes that ``module`` itself holds, in the order they were set."""
    attributes = {}
    for name, value in vars(module).items():
        if not name.startswith("_") and name != "training" and not is_cached(module, name):
            plain = structural(value)
            if plain is not None:
                attributes[name] = plain
    return attributes


def class_name(kind: type) -> str:
    """The name of a class, without the file or the function that defines it."""
    return kind.__qualname__.rpartition(".")[2]


def described(model: nn.Module) -> dict[str, Module]:
    """The modules of ``model`` by path: their types and structural attributes."""
    return {path: _described(path, module) for path, module in model.named_modules()}


def _described(path: str, module: nn.Module) -> Module:
    types = tuple(
        t.__name__
        if t.__module__.startswith("torch.nn.modules")
        else f"{t.__module__}.{t.__qualname__}"
        for t in type(module).__mro__
        if issubclass(t, nn.Module)
    )
    return Module(path, types, structural_attributes(module), settings(module))


def settings(module: nn.Module) -> tuple[str, ...]:
    """What torch.nn's own classes among those of a module are made with: names of parameters."""
    return _parameters(type(module).__mro__)


@cache
def _parameters(kinds: tuple[type, ...]) -> tuple[str, ...]:
    own = (kind for kind in kinds if kind.__module__.startswith("torch.nn.modules"))
    return tuple(dict.fromkeys(name for base in own for name in signature(base).parameters))


def described_value(tensor: torch.Tensor, number: int) -> Value:
    """The value with that number in a graph: its shape, dtype and storage."""
    storage = storage_of(tensor)
    dtype = str(tensor.dtype).removeprefix("torch.")
    shape = tuple(map(int, tensor.shape))
    return Value(shape, dtype, -1 - number if storage is None else storage)


def storage_of(tensor: torch.Tensor) -> int | None:
    """What tensors on one storage have in common, on the meta device too; None for sparse and
    other layouts, which have none.
    """
    try:
        with torch._C.DisableTorchFunction():
            return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):
        return None
