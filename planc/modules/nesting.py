"""Tensors inside nested arguments and results: tuples, lists, dicts, named tuples, dataclasses."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from planc.ir.graph import Ref


def map_leaves(fn: Callable[[Any], Any], nested: Any) -> Any:
    """``nested`` with every leaf replaced by ``fn(leaf)``; containers keep their types."""
    if isinstance(nested, Ref):
        return fn(nested)
    if isinstance(nested, tuple) and hasattr(nested, "_fields"):
        return type(nested)(*(map_leaves(fn, item) for item in nested))
    if type(nested) in (tuple, list):
        return type(nested)(map_leaves(fn, item) for item in nested)
    if isinstance(nested, Mapping):
        if type(nested) is dict:
            return {key: map_leaves(fn, item) for key, item in nested.items()}
        changed: Any = copy.copy(nested)
        for key in nested:
            changed[key] = map_leaves(fn, nested[key])
        return changed
    if dataclasses.is_dataclass(nested) and not isinstance(nested, type):
        result: Any = copy.copy(nested)
        for item in dataclasses.fields(nested):
            if hasattr(nested, item.name):
                mapped = map_leaves(fn, getattr(nested, item.name))
                object.__setattr__(result, item.name, mapped)
        return result
    return fn(nested)


def as_sequence(result: Any) -> tuple[Any, ...] | list[Any]:
    """The results of an operator: its tuple or list, or its single result in a tuple."""
    return result if isinstance(result, tuple | list) else (result,)


def leaves(nested: Any) -> Iterator[Any]:
    """The leaves of ``nested`` in the order of :func:`map_leaves`."""
    if isinstance(nested, tuple | list) and (
        type(nested) in (tuple, list) or hasattr(nested, "_fields")
    ):
        for item in nested:
            yield from leaves(item)
    elif isinstance(nested, Mapping):
        for key in nested:
            yield from leaves(nested[key])
    elif dataclasses.is_dataclass(nested) and not isinstance(nested, type | Ref):
        for field in dataclasses.fields(nested):
            if hasattr(nested, field.name):
                yield from leaves(getattr(nested, field.name))
    else:
        yield nested


def named_leaves(nested: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves with their places, such as ``hidden_states.0``, in the order of :func:`leaves`."""
    inside = f"{name}." if name else ""
    if isinstance(nested, tuple) and hasattr(nested, "_fields"):
        for field, item in zip(nested._fields, nested, strict=True):
            yield from named_leaves(item, f"{inside}{field}")
    elif type(nested) in (tuple, list):
        for i, item in enumerate(nested):
            yield from named_leaves(item, f"{inside}{i}")
    elif isinstance(nested, Mapping):
        for key in nested:
            yield from named_leaves(nested[key], f"{inside}{key}")
    elif dataclasses.is_dataclass(nested) and not isinstance(nested, type | Ref):
        for item in dataclasses.fields(nested):
            if hasattr(nested, item.name):
                yield from named_leaves(getattr(nested, item.name), f"{inside}{item.name}")
    else:
        yield name, nested
