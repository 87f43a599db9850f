"""Specifications of example inputs as plain data: what they say, without torch.

The forms are nested tuples ::

    ("tensor", shape, dtype)            ("value", None | bool | int | float | str)
    ("tensor", shape, dtype, values)    ("tuple", item, ...)
    ("dict", (key, item), ...)          ("list", item, ...)
    ("opaque", type name)

and at the top ``("tuple", ("tuple", *args), ("dict", *kwargs))``. Small integer tensors have their
values, in row-major order: lengths, ids and masks decide what a run does. :mod:`planc.inputs` makes
specifications and tensors of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Spec = tuple[Any, ...]

INPUT_VALUES = "input values"
"""The feature that a plan requires of its reader where a specification holds values."""

MOST_OF_ONE = 1 << 10
"""The largest number of elements of a tensor that is kept by value."""

MOST_OF_ALL = 1 << 11
"""The largest number of elements that one specification keeps by value."""

INTEGERS = {
    "bool": range(2),
    **{f"uint{bits}": range(1 << bits) for bits in (8, 16, 32, 64)},
    **{f"int{bits}": range(-(1 << bits - 1), 1 << bits - 1) for bits in (8, 16, 32, 64)},
}
"""The values of each integer type, by name."""


def without_values(spec: Any) -> Any:
    """The same specification with shapes and types alone: what a plan depends on."""
    match spec:
        case ("tensor", shape, dtype, _):
            return ("tensor", shape, dtype)
        case ("tuple" | "list" as form, *items):
            return (form, *map(without_values, items))
        case ("dict", *items):
            return ("dict", *((key, without_values(item)) for key, item in items))
    return spec


def without_precision(spec: Any) -> Any:
    """The same specification with shapes alone, and the kind of each type: models may be converted
    after a plan was made.
    """
    match without_values(spec):
        case ("tensor", shape, str(dtype)) if "float" in dtype:
            return ("tensor", shape, "float")
        case ("tuple" | "list" as form, *items):
            return (form, *map(without_precision, items))
        case ("dict", *items):
            return ("dict", *((key, without_precision(item)) for key, item in items))
        case other:
            return other


def kept_values(spec: Any) -> Iterator[tuple[Any, ...]]:
    """The values of each tensor that is kept by value."""
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
    """The features that a reader of the specification must know."""
    return (INPUT_VALUES,) if any(True for _ in kept_values(spec)) else ()


def inputs_text(spec: Any) -> str:
    """A specification of inputs in the notation of a call, as ``float32[1, 3, 224, 224]``."""
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
