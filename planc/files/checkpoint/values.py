"""Plain data in the form of the record: attributes of live modules in, nested tuples out, and back.

A number of 64 bits, a string, a boolean or None stands for itself; everything else is a tuple whose
first item says what it is ::

    ("tuple", item, ...)    ("list", item, ...)    ("size", n, ...)    ("dict", (key, item), ...)
    ("float", "inf")        ("dtype", "bfloat16")  ("device", "cuda:0")    ("type", "module.Name")

The last one is what is not plain data, or too large: only its type is known, for messages.
"""

from __future__ import annotations

import math
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
    """The modules of a model with the public attributes that each itself holds, sorted by name.

    Parameters, buffers, submodules, tensors and functions are left out, and so is the training
    flag. Of an object of plain data (a configuration) there are the numbers, under dotted names.
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
    """``value`` in the form of the record."""
    plain, leaves = _encoded(value, _DEPTH)
    return plain if leaves <= DEFAULT.leaves else _type(value)


def decoded(value: Any) -> Any:
    """The value of which :func:`encoded` made this.

    Raises:
        MalformedFile: it is of none of the forms, or of one that cannot be made again.
    """
    if not isinstance(value, tuple):
        return value
    match value:
        case ("tuple" | "list" as name, *items):
            return _NAMES[name](map(decoded, items))
        case ("size", *items) if all(type(n) is int and n in _INTEGERS for n in items):
            return torch.Size(items)
        case ("dict", *items):
            return {decoded(key): decoded(item) for key, item in map(pair, items)}
        case ("float", "inf" | "-inf" | "nan" as text):
            return float(text)
        case ("device", str(text)):
            return text
        case ("dtype", str(text)) if isinstance(getattr(torch, text, None), torch.dtype):
            return getattr(torch, text)
    raise _no_value(value)


def pair(value: Any) -> tuple[Any, Any]:
    """A key of a dict and what stands under it, both still in the form of the record.

    Raises:
        MalformedFile: there are no two of them, or the first is a container.
    """
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
    """A structural attribute with its type; a list counts as a tuple, as in plans."""
    match value:
        case (kind, *items) if kind in _NAMES:
            return ("tuple", *map(comparable, items))
    return type(value).__name__, value


def _encoded(value: Any, depth: int) -> tuple[Any, int]:
    """The form of a value, and how many leaves it has."""
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
    """The full name of a type, cut to what a record may hold."""
    return f"{kind.__module__}.{kind.__qualname__}"[:200]


def _length(text: str) -> float:
    """Bytes of UTF-8; without end where a text has none."""
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        return math.inf
