"""Specifications of example inputs as plain data, without torch.

The forms are nested tuples ::

    ("tensor", shape, dtype)            ("value", None | bool | int | float | str)
    ("tensor", shape, dtype, values)    ("tuple", item, ...)
    ("dict", (key, item), ...)          ("list", item, ...)
    ("opaque", type name)

and at the top ``("tuple", ("tuple", *args), ("dict", *kwargs))``. Small integer tensors include
their values in row-major order, because lengths, ids and masks steer a run.
:mod:`planc.modules.inputs` converts between specifications and tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

Spec = tuple[Any, ...]

INPUT_VALUES = "input values"
"""The feature required of a reader if a specification holds values."""

MOST_OF_ONE = 1 << 10
"""Most elements of a tensor stored by value."""

MOST_OF_ALL = 1 << 11
"""Most elements stored by value in one specification."""

INTEGERS = {
    "bool": range(2),
    **{f"uint{bits}": range(1 << bits) for bits in (8, 16, 32, 64)},
    **{f"int{bits}": range(-(1 << bits - 1), 1 << bits - 1) for bits in (8, 16, 32, 64)},
}
"""The values of each integer type, by name."""


def is_value(value: Any) -> bool:
    """True if a plan file can hold ``value`` and return an equal one."""
    if type(value) is float:
        return math.isfinite(value)
    if type(value) is int:
        return value in INTEGERS["int64"]
    return value is None or type(value) in (bool, str)


def without_values(spec: Any) -> Any:
    """The specification reduced to shapes and types: the part a plan depends on."""
    return _reduced(spec, lambda dtype: dtype)


def without_precision(spec: Any) -> Any:
    """The specification reduced to shapes and kinds of types.

    Models may be converted to another precision after a plan was made.
    """
    return _reduced(spec, lambda dtype: "float" if "float" in dtype else dtype)


def _reduced(spec: Any, kind: Callable[[str], str]) -> Any:
    match spec:
        case ("tensor", shape, str(dtype), *_):
            return ("tensor", shape, kind(dtype))
        case ("tuple" | "list" as form, *items):
            return (form, *(_reduced(item, kind) for item in items))
        case ("dict", *items):
            return ("dict", *((key, _reduced(item, kind)) for key, item in items))
    return spec


def kept_values(spec: Any) -> Iterator[tuple[Any, ...]]:
    """The values of each tensor stored by value."""
    match spec:
        case ("tensor", _, _, values):
            yield values
        case ("tuple" | "list", *items):
            for item in items:
                yield from kept_values(item)
        case ("dict", *items):
            for _, item in items:
                yield from kept_values(item)


def features(spec: Any) -> tuple[str, ...]:
    """The features required of a reader of the specification."""
    return (INPUT_VALUES,) if any(True for _ in kept_values(spec)) else ()


def inputs_text(spec: Any) -> str:
    """A specification in call notation, such as ``float32[1, 3, 224, 224]``."""
    match spec:
        case ("tuple", ("tuple", *args), ("dict", *kwargs)):
            named = [f"{key}={inputs_text(item)}" for key, item in kwargs]
            return ", ".join([*map(inputs_text, args), *named]) or "none"
        case ("tensor", tuple(shape), str(dtype), *_):
            return f"{dtype}[{', '.join(map(str, shape))}]"
        case ("tuple", *items):
            return f"({', '.join(map(inputs_text, items))})"
        case ("list", *items):
            return f"[{', '.join(map(inputs_text, items))}]"
        case ("dict", *items):
            return f"{{{', '.join(f'{key}: {inputs_text(item)}' for key, item in items)}}}"
        case ("value", value):
            return repr(value)
        case ("opaque", str(name)):
            return f"<{name}>"
    return repr(spec)
