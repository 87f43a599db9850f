"""A module tree as plain data: its tensors with all their names, and the structural attributes of
its modules.

The recorder, the fingerprints and ``apply`` use these functions, so a traced model and the same
model at the time of applying have equal tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from inspect import signature
from typing import Any

import torch
from torch import nn

from planc.ir.graph import Module, Value
from planc.modules.constructed import plain_tensors


@dataclass(frozen=True, slots=True, eq=False)
class OwnedTensor:
    """A parameter or buffer with all its names. A tensor in a plain attribute counts as a buffer
    outside the state dict, if the constructor has set it.
    """

    names: tuple[str, ...]
    tensor: torch.Tensor
    kind: str  # "parameter" or "buffer"


def owned_tensors(model: nn.Module) -> tuple[OwnedTensor, ...]:
    """The parameters, then the buffers of ``model``, tied names together; then its tensors in plain
    attributes.
    """
    names: dict[int, list[str]] = {}
    found: dict[int, tuple[torch.Tensor, str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
        found.setdefault(id(parameter), (parameter, "parameter"))
    for name, buffer in model.named_buffers(remove_duplicate=False):
        names.setdefault(id(buffer), []).append(name)
        found.setdefault(id(buffer), (buffer, "buffer"))
    plain = list(plain_tensors(model))
    registered = {storage_of(tensor) for tensor, _ in found.values()} if plain else set()
    for name, tensor in plain:
        if storage_of(tensor) not in registered:  # a view of a parameter follows it
            names.setdefault(id(tensor), []).append(name)
            found.setdefault(id(tensor), (tensor, "buffer"))
    return tuple(
        OwnedTensor(tuple(names[key]), tensor, kind) for key, (tensor, kind) in found.items()
    )


def tensors_by_name(model: nn.Module) -> dict[str, torch.Tensor]:
    """The parameters and buffers by all their names."""
    return {name: owned.tensor for owned in owned_tensors(model) for name in owned.names}


def plain(value: Any, kinds: tuple[type, ...], *, empty: bool = True) -> Any:
    """``value`` if its class is one of ``kinds``, or a tuple of such values, nested ones included.

    Lists and torch sizes become tuples. None for other values, and unless ``empty`` for empty
    tuples.
    """
    if type(value) in kinds:
        return value
    if type(value) in (tuple, list, torch.Size) and (empty or value):
        items = tuple(plain(item, kinds, empty=empty) for item in value)
        return None if any(item is None for item in items) else items
    return None


def structural(value: Any) -> Any:
    """``value`` as a structural attribute: an integer, boolean, string, or nested tuples of these.

    Lists and torch sizes become tuples; None for other values.
    """
    return plain(value, (int, bool, str))


def is_cached(module: nn.Module, name: str) -> bool:
    """True if an attribute is the value of a cached property."""
    return isinstance(getattr(type(module), name, None), cached_property)


def structural_attributes(module: nn.Module) -> dict[str, Any]:
    """The structural attributes of ``module`` itself, in the order of their assignment."""
    attributes = {}
    for name, value in vars(module).items():
        if not name.startswith("_") and name != "training" and not is_cached(module, name):
            held = structural(value)
            if held is not None:
                attributes[name] = held
    return attributes


def class_name(kind: type) -> str:
    """The name of a class, without its module and enclosing scopes."""
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
    """The names of constructor parameters of torch.nn's own classes among a module's bases."""
    return _parameters(type(module).__mro__)


@cache
def _parameters(kinds: tuple[type, ...]) -> tuple[str, ...]:
    own = (kind for kind in kinds if kind.__module__.startswith("torch.nn.modules"))
    return tuple(dict.fromkeys(name for base in own for name in signature(base).parameters))


def described_value(tensor: torch.Tensor, number: int) -> Value:
    """The value with this number in a graph: its shape, dtype, storage and order."""
    storage = storage_of(tensor)
    dtype = str(tensor.dtype).removeprefix("torch.")
    shape = tuple(map(int, tensor.shape))
    return Value(shape, dtype, -1 - number if storage is None else storage, is_in_order(tensor))


def is_in_order(tensor: torch.Tensor) -> bool:
    """True if the elements of a tensor stand in row-major order from the start of its storage."""
    with torch._C.DisableTorchFunction():
        strided = tensor.layout is torch.strided
        return strided and bool(tensor.is_contiguous()) and int(tensor.storage_offset()) == 0


def storage_of(tensor: torch.Tensor) -> int | None:
    """An identifier of a tensor's storage, on the meta device too; None for layouts without one
    (sparse and others).
    """
    try:
        with torch._C.DisableTorchFunction():
            return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):
        return None
