"""The registry of rules: what each operator does to the labels of its operands.

A rule is a function ``rule(cx, ...)`` with the operator's own parameters after the :class:`Facts`
it writes to. Tensors arrive as :class:`Labelled`, numbers as they are; it returns the labelled
result, a tuple of them, or None where the operator returns nothing. Parameters that must follow a
width carry the name that the operator's schema gives them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeVar

from planc.facts import Facts
from planc.labels import Labelled, lift

Rule = Callable[..., Any]
AnyRule = TypeVar("AnyRule", bound=Rule)
_RULES: dict[str, Rule] = {}


def rule(*operators: str) -> Callable[[AnyRule], AnyRule]:
    """Registers a rule for operators named ``namespace.name.overload``, or ``namespace.name`` for
    all overloads. The in-place variant of an operator (``add_``) has the same rule.
    """

    def register(fn: AnyRule) -> AnyRule:
        for operator in operators:
            _RULES[operator] = fn
        return fn

    return register


def find(operator: str) -> Rule | None:
    """The rule for an operator: the exact overload's, else the operator's, else that of the
    operator it is the in-place variant of.
    """
    if operator in _RULES:
        return _RULES[operator]
    name = operator.rsplit(".", 1)[0]
    overload = operator[len(name) :]
    if overload.endswith((".out", "_out")):
        return None  # it writes into a tensor that the rule does not know
    for candidate in (name, name.removesuffix("_") + overload, name.removesuffix("_")):
        if candidate in _RULES:
            return _RULES[candidate]
    return None


@cache
def parameters(fn: Rule) -> tuple[str, ...]:
    """The names of a rule's parameters after the first."""
    return tuple(inspect.signature(fn).parameters)[1:]


# -- what many families need -----------------------------------------------------------------------


def operand(value: Any) -> Labelled:
    """A tensor operand; numbers are tensors without dimensions."""
    return value if isinstance(value, Labelled) else Labelled(())


def axis(x: Labelled, dim: int) -> int:
    """A dimension counted from the front."""
    return dim % x.rank if x.rank else 0


def axes(x: Labelled, dims: int | Sequence[int] | None) -> tuple[int, ...]:
    """Dimensions counted from the front; all of them for None or none."""
    if dims is None or dims == ():
        return tuple(range(x.rank))
    if isinstance(dims, int):
        return (axis(x, dims),)
    return tuple(axis(x, dim) for dim in dims)


def pin_dims(cx: Facts, x: Labelled, dims: Sequence[int], reason: str) -> Labelled:
    """``x`` without the layers that target ``dims``, which are pinned."""
    gone = set(dims)
    doomed = [layer for layer in x.layers if layer.target in gone]
    if not doomed:
        return x
    cx.pin(doomed, reason)
    return Labelled(x.shape, tuple(layer for layer in x.layers if layer.target not in gone))


def per_dim(value: Any, count: int) -> tuple[int, ...]:
    """One number for each of ``count`` dimensions; an operator may be given one for all."""
    given = (value,) if isinstance(value, int) else tuple(value)
    return given * count if len(given) == 1 else given


def looking_along(first: int, kernel: Any, stride: Any, *paddings: Any) -> list[int]:
    """The dimensions, from ``first`` on, in which a sliding window sees more than one position, or
    not every one: elsewhere it works on each coordinate by itself.
    """
    count = len(kernel)
    steps = per_dim(stride, count) if stride else kernel
    rims = [per_dim(padding, count) for padding in paddings]
    return [
        first + i
        for i in range(count)
        if kernel[i] != 1 or steps[i] != 1 or any(rim[i] != 0 for rim in rims)
    ]


def vector(x: Labelled, dim: int, rank: int) -> Labelled:
    """A vector placed along dimension ``dim`` of ``rank`` dimensions."""
    return lift(x, [0 if d == dim else None for d in range(rank)])
