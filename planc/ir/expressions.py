"""Integer expressions with provenance: the origin of sizes computed by a model.

Tracing follows sizes from module attributes and tensor shapes through Python arithmetic. The result
is a small expression tree, kept beside the plain number in the arguments of a node (:class:`Size`,
:class:`Scalar`). Pure data: evaluation needs only the values of the leaves.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Number = int | float


@dataclass(frozen=True, slots=True)
class Const:
    value: Number

    def __str__(self) -> str:
        return str(self.value)


@dataclass(frozen=True, slots=True)
class Attribute:
    """An integer attribute of a module; ``index`` reaches into nested tuples and lists."""

    module: str
    name: str
    value: int
    index: tuple[int, ...] = ()

    def __str__(self) -> str:
        path = f"{self.module}.{self.name}" if self.module else self.name
        return path + "".join(f"[{i}]" for i in self.index)

    @property
    def key(self) -> tuple[str, str, tuple[int, ...]]:
        """The attribute's identity, independent of its value."""
        return (self.module, self.name, self.index)


@dataclass(frozen=True, slots=True)
class SizeOf:
    """The size of dimension ``dim`` of value ``value`` of the graph."""

    value: int
    dim: int

    def __str__(self) -> str:
        return f"size(%{self.value}, {self.dim})"


@dataclass(frozen=True, slots=True)
class Apply:
    """An arithmetic operator on expressions; ``op`` is one of :data:`OPERATORS`."""

    op: str
    args: tuple[Expr, ...]

    def __str__(self) -> str:
        if len(self.args) == 2:
            return f"({self.args[0]} {self.op} {self.args[1]})"
        return f"{self.op}({', '.join(map(str, self.args))})"


_NO_NUMBER = -(1 << 62)  # the value of "same" for unequal numbers
Expr = Const | Attribute | SizeOf | Apply

OPERATORS: dict[str, Callable[..., Number]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "//": operator.floordiv,
    "%": operator.mod,
    "/": operator.truediv,
    "**": operator.pow,
    "neg": operator.neg,
    "sqrt": math.sqrt,
    "log": math.log,
    "log2": math.log2,
    "log10": math.log10,
    "float": float,
    "abs": abs,
    "ceil": math.ceil,
    "floor": math.floor,
    "trunc": math.trunc,
    "same": lambda first, *others: first if set(others) <= {first} else _NO_NUMBER,
}


class Size(int):
    """An integer argument of a node, with the expression behind it."""

    expr: Expr

    def __new__(cls, value: int, expr: Expr) -> Size:
        self = super().__new__(cls, value)
        self.expr = expr
        return self

    def __reduce__(self) -> Any:  # models copy objects with attributes of this type
        return type(self), (int(self), self.expr)


class Scalar(float):
    """A float argument of a node, with the expression behind it."""

    expr: Expr

    def __new__(cls, value: float, expr: Expr) -> Scalar:
        self = super().__new__(cls, value)
        self.expr = expr
        return self

    def __reduce__(self) -> Any:
        return type(self), (float(self), self.expr)


def expr_of(number: Number) -> Expr:
    """The expression behind an argument; a plain number is a literal."""
    if isinstance(number, Size | Scalar):
        return number.expr
    return Const(number)


def evaluate(expr: Expr, leaf: Callable[[Attribute | SizeOf], Number]) -> Number:
    """The value of an expression with the leaf values ``leaf``."""
    if isinstance(expr, Const):
        return expr.value
    if isinstance(expr, Apply):
        return OPERATORS[expr.op](*(evaluate(arg, leaf) for arg in expr.args))
    return leaf(expr)


def leaves(expr: Expr) -> Iterator[Attribute | SizeOf]:
    """The attributes and tensor sizes in an expression, left to right."""
    if isinstance(expr, Apply):
        for arg in expr.args:
            yield from leaves(arg)
    elif not isinstance(expr, Const):
        yield expr
