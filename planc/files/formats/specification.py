"""Validation of the specification of example inputs in a plan.

The forms are those of :mod:`planc.plan.specification`.
"""

from __future__ import annotations

import math
from typing import Any

from planc.errors import MalformedFile
from planc.files.disk.limits import Limits
from planc.plan.specification import INTEGERS, MOST_OF_ALL, is_value, kept_values


def check_specification(spec: Any, limits: Limits) -> None:
    """Check that ``spec`` has one of the forms at every level.

    Raises:
        MalformedFile: it has not; names the place.
        LimitExceeded: a string or a shape in it is too large.
    """
    _check(spec, limits, "inputs")
    if (values := sum(map(len, kept_values(spec)))) > MOST_OF_ALL:
        raise MalformedFile(
            f"inputs: {values} values, at most {MOST_OF_ALL} are kept; compile the plan again"
        )


def _check(spec: Any, limits: Limits, where: str) -> None:
    match spec:
        case ("tensor", tuple(shape), str(dtype)) if all(map(_is_size, shape)):
            limits.check_shape(shape, where)
            limits.check_name(dtype, where)
        case ("tensor", tuple(shape), str(dtype), tuple(values)) if dtype in INTEGERS:
            _check(("tensor", shape, dtype), limits, where)
            kind, allowed = bool if dtype == "bool" else int, INTEGERS[dtype]
            fit = all(type(value) is kind and value in allowed for value in values)
            if not fit or len(values) != math.prod(shape):
                raise MalformedFile(
                    f"{where}: {len(values)} values are not those of {dtype}{list(shape)}; "
                    "compile the plan again"
                )
        case ("tuple" | "list", *items):
            for i, item in enumerate(items):
                _check(item, limits, f"{where}[{i}]")
        case ("dict", *items) if all(map(_is_item, items)):
            if len({key for key, _ in items}) < len(items):
                raise MalformedFile(f"{where}: a key is there twice; compile the plan again")
            for key, item in items:
                limits.check_string(key, where)
                _check(item, limits, f"{where}[{key!r}]")
        case ("value", value) if is_value(value):
            if isinstance(value, str):
                limits.check_string(value, where)
        case ("opaque", str(name)):
            limits.check_name(name, where)
        case _:
            text = repr(spec)
            raise MalformedFile(
                f"{where}: {text[:60]}{'...' if len(text) > 60 else ''} does not specify an "
                "input; compile the plan again"
            )


def _is_size(size: Any) -> bool:
    return type(size) is int and size >= 0


def _is_item(item: Any) -> bool:
    return isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str)
