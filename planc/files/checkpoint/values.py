"""Plain data in the form of the record: encoded attributes of live modules, and their decoding.

A number of 64 bits, a string, a boolean or None stands for itself. Any other value is a tuple, its
kind first ::

    ("tuple", item, ...)    ("list", item, ...)    ("size", n, ...)    ("dict", (key, item), ...)
    ("float", "inf")        ("dtype", "bfloat16")  ("device", "cuda:0")    ("type", "module.Name")

The last form stands for a value too large or not plain: only its type is recorded, for messages.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from planc.errors import MalformedFile
from planc.files.disk.limits import DEFAULT
from planc.files.formats.checkpoint import StoredModule, plan_value
from planc.modules.held import object_attributes
from planc.modules.tree import is_cached

_DEPTH = 5
_INTEGERS = range(-(1 << 63), 1 << 63)
_SEQUENCES: dict[type, str] = {tuple: "tuple", list: "list", torch.Size: "size"}
_NAMES = {name: kind for kind, name in _SEQUENCES.items()}


def modules_of(model: nn.Module) -> tuple[StoredModule, ...]:
    """Return the modules of a model with their own public attributes, sorted by name.

    Parameters, buffers, submodules, tensors, functions and the training flag are left out. An
    object of plain data, such as a configuration, gives its numbers under dotted names.
    """
    held = object_attributes(model)
    return tuple(
        StoredModule(path, type_name(type(module)), _attributes(module, held.get(path, {})))
        for path, module in model.named_modules()
    )


def _attributes(module: nn.Module, held: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    found = {name: plan_value(value) for name, value in held.items()}
    for name, value in vars(module).items():
        if name.startswith("_") or name in ("training", "T_destination") or is_cached(module, name):
            continue
        if not isinstance(value, torch.Tensor) and not callable(value):
            found[name] = encoded(value)
    return tuple(sorted(found.items()))


def encoded(value: Any) -> Any:
    """Return ``value`` in the form of the record."""
    plain, leaves = _encoded(value, _DEPTH)
    return plain if leaves <= DEFAULT.leaves else _type(value)


def decoded(value: Any, named: Mapping[str, Any] = MappingProxyType({})) -> Any:
    """Return the value encoded as ``value`` by :func:`encoded`.

    Args:
        named: objects to take the place of the types with these names.

    Raises:
        MalformedFile: it has none of the forms, or one without a value.
    """
    if not isinstance(value, tuple):
        return value
    match value:
        case ("tuple" | "list" as name, *items):
            return _NAMES[name](decoded(item, named) for item in items)
        case ("size", *items) if all(type(n) is int and n in _INTEGERS for n in items):
            return torch.Size(items)
        case ("dict", *items):
            return {decoded(key): decoded(item, named) for key, item in map(_pair, items)}
        case ("type", str(name)) if name in named:
            return named[name]
        case ("float", "inf" | "-inf" | "nan" as text):
            return float(text)
        case ("device", str(text)):
            return text
        case ("dtype", str(text)) if isinstance(getattr(torch, text, None), torch.dtype):
            return getattr(torch, text)
    raise _no_value(value)


def _pair(value: Any) -> tuple[Any, Any]:
    """Return the key and the value of an encoded dict's item, both still encoded."""
    match value:
        case (None | int() | float() | str() as key, item):
            return key, item
        case (("float" | "dtype" | "device" | "type", str()) as key, item):
            return key, item
    raise _no_value(value)


def _no_value(value: Any) -> MalformedFile:
    shown = str(value)[:60]
    return MalformedFile(f"{shown} is no value of the record; save the checkpoint again")


def comparable(value: Any) -> Any:
    """Return a structural attribute with its type; a list counts as a tuple, as in plans."""
    match value:
        case (kind, *items) if kind in _NAMES:
            return ("tuple", *map(comparable, items))
    return type(value).__name__, value


def _encoded(value: Any, depth: int) -> tuple[Any, int]:
    """Return the form of a value and its number of leaves."""
    kind = type(value)
    if value is None or kind is bool:
        return value, 1
    if kind is int and value in _INTEGERS:
        return value, 1
    if kind is str and _length(value) <= DEFAULT.string:
        return value, 1
    if kind is float:
        return (value if math.isfinite(value) else ("float", str(value))), 1
    if kind is torch.dtype:
        return ("dtype", str(value).removeprefix("torch.")), 1
    if kind is torch.device:
        return ("device", str(value)), 1
    if depth and kind in _SEQUENCES:
        items = [_encoded(item, depth - 1) for item in value]
        plain = (_SEQUENCES[kind], *(item for item, _ in items))
        return plain, 1 + sum(leaves for _, leaves in items)
    if depth and kind is dict:
        pairs = [(_encoded(k, 0), _encoded(v, depth - 1)) for k, v in value.items()]
        plain = ("dict", *((k, v) for (k, _), (v, _) in pairs))
        return plain, 1 + sum(1 + leaves for _, (_, leaves) in pairs)
    return _type(value), 1


def _type(value: Any) -> tuple[str, str]:
    return ("type", type_name(type(value)))


def type_name(kind: type) -> str:
    """Return the full name of a type, cut to the length allowed in a record."""
    return f"{kind.__module__}.{kind.__qualname__}"[:200]


def _length(text: str) -> float:
    """Return the length in bytes of UTF-8, infinity for text without an encoding."""
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        return math.inf
