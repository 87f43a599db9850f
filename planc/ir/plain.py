"""Plain values: numbers and texts in nested sequences, as attributes, fields and arguments are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def leaves(value: Any) -> Iterator[Any]:
    """The leaves of nested tuples, in order."""
    if isinstance(value, tuple):
        for item in value:
            yield from leaves(item)
    else:
        yield value


def with_leaf(value: Any, index: Any, leaf: Any) -> Any:
    """Nested tuples with the leaf at ``index`` replaced."""
    if not index:
        return leaf
    return tuple(
        with_leaf(item, index[1:], leaf) if i == index[0] else item for i, item in enumerate(value)
    )


def as_tuples(value: Any) -> Any:
    """Nested sequences as nested tuples."""
    return tuple(map(as_tuples, value)) if isinstance(value, tuple | list) else value


def same_types(left: Any, right: Any) -> bool:
    """True if two values have leaves of the same exact types; sequences are as long."""
    if isinstance(left, tuple | list) and isinstance(right, tuple | list):
        return len(left) == len(right) and all(map(same_types, left, right))
    return type(left) is type(right)


def in_containers_of(current: Any, value: Any) -> Any:
    """``value`` in the container types of ``current``, lists and tuples.

    Entries of a sequence of another length have no counterpart, and keep their types.
    """
    if isinstance(current, tuple | list):
        if len(current) != len(value):
            return type(current)(value)
        return type(current)(map(in_containers_of, current, value))
    return value
