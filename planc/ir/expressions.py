"""Integer expressions with provenance: where a size that a model computed came from.

While a model is traced, sizes are followed from module attributes and tensor shapes through
Python arithmetic. What flows out is a small expression tree, kept beside the plain number in the
arguments of a node (:class:`Size`, :class:`Scalar`). Pure data: evaluating one needs a valuation
of its leaves and nothing else.
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
    """A literal number."""

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
        """What identifies the attribute, whatever its value."""
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


_NO_NUMBER = -(1 << 62)  # what two numbers that must be the same are when they are not
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
    """An integer argument of a node that remembers the expression it was computed by."""

    expr: Expr

    def __new__(cls, value: int, expr: Expr) -> Size:
        self = super().__new__(cls, value)
        self.expr = expr
        return self

    def __reduce__(self) -> Any:  # models copy what holds their attributes
        return type(self), (int(self), self.expr)


class Scalar(float):
    """A float argument of a node that remembers the expression it was computed by."""

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
    """The number an expression stands for when its leaves have the values ``leaf`` gives them."""
    if isinstance(expr, Const):
        return expr.value
    if isinstance(expr, Apply):
        return OPERATORS[expr.op](*(evaluate(arg, leaf) for arg in expr.args))
    return leaf(expr)


def leaves(expr: Expr) -> Iterator[Attribute | SizeOf]:
    """The attributes and tensor sizes that an expression depends on, left to right."""
    if isinstance(expr, Apply):
        for arg in expr.args:
            yield from leaves(arg)
    elif not isinstance(expr, Const):
        yield expr
