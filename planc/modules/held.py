"""Objects of plain data held by modules, such as a configuration: their integers are structural
attributes, too, under dotted names (``config.hidden_size``).

An object held by several modules belongs to the first of them.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from enum import Enum
from typing import Any

import torch
from torch import nn

from planc.modules.tree import plain

_DEPTH = 4  # names in a dotted name
_SCALARS = (int, float, bool, str, type(None), Enum, torch.dtype, torch.device, torch.Size)
_CONTAINERS = (tuple, list, set, frozenset)
_NOT_DATA = (nn.Module, torch.Tensor, type, types.ModuleType, *_SCALARS, *_CONTAINERS, dict)


def held_objects(model: nn.Module) -> Iterator[tuple[str, str, Any]]:
    """The objects of plain data in the attributes of ``model``'s modules, nested ones included:
    module path, name inside the module, object. Each object appears once.
    """
    seen: set[int] = set()
    for path, module in model.named_modules():
        for name, value in public(module):
            for dotted, found in _objects(name, value, _DEPTH - 1):
                if id(found) not in seen:
                    seen.add(id(found))
                    yield path, dotted, found


def _objects(name: str, value: Any, depth: int) -> Iterator[tuple[str, Any]]:
    if depth > 0 and is_data(value):
        yield name, value
        for inner, held in public(value):
            yield from _objects(f"{name}.{inner}", held, depth - 1)


def is_data(value: Any, depth: int = _DEPTH) -> bool:
    """True if all public attributes of an object are plain data.

    Plain data are numbers, strings, booleans, None, torch dtypes and devices, containers of these,
    and again such objects.
    """
    if (
        isinstance(value, _NOT_DATA)
        or callable(value)
        or type(getattr(value, "__dict__", 0)) is not dict
    ):
        return False
    return all(_is_plain(held, depth - 1) for _, held in public(value))


def _is_plain(value: Any, depth: int) -> bool:
    if isinstance(value, _SCALARS):
        return True
    if depth < 1:
        return False
    if isinstance(value, dict):
        return all(_is_plain(key, 1) and _is_plain(held, depth - 1) for key, held in value.items())
    if isinstance(value, _CONTAINERS):
        return all(_is_plain(item, depth - 1) for item in value)
    return is_data(value, depth)


def public(holder: Any) -> Iterator[tuple[str, Any]]:
    for name, value in vars(holder).items():
        if isinstance(name, str) and not name.startswith("_"):
            yield name, value


def integers(value: Any) -> Any:
    """``value`` as a structural attribute of an object: an integer or nested tuples of integers.

    Lists and torch sizes become tuples; None for other values.
    """
    return plain(value, (int,), empty=False)


def object_attributes(model: nn.Module) -> dict[str, dict[str, Any]]:
    """The integers of held objects by dotted names, for the first module holding each."""
    found: dict[str, dict[str, Any]] = {}
    for path, name, held in held_objects(model):
        for field, value in public(held):
            numbers = integers(value)
            if numbers is not None:
                found.setdefault(path, {})[f"{name}.{field}"] = numbers
    return found
