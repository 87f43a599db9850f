"""Numbers with provenance: they remember their origin while a model runs.

:class:`TrackedSize` is an ``int`` with an expression kept through arithmetic. On the traced clone
it replaces integer attributes of modules (:func:`track_attributes`). Comparisons are reported to a
listener (:func:`heard_comparisons`).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

import torch

from planc.ir.expressions import (
    OPERATORS,
    Apply,
    Attribute,
    Const,
    Expr,
    Number,
    Scalar,
    Size,
    expr_of,
    leaves,
)
from planc.ir.graph import AS_IT_IS

_given: ContextVar[list[Any] | None] = ContextVar("planc_tracked_numbers", default=None)


def tracked_number(value: Number, expr: Expr) -> Number:
    """A tracked number; a plain one outside of a trace, or if computed from literals alone."""
    given = _given.get()
    if given is None or (type(expr) is Apply and all(type(arg) is Const for arg in expr.args)):
        return value
    number = TrackedSize(value, expr) if isinstance(value, int) else TrackedScalar(value, expr)
    given.append(number)
    return number


def is_tracing() -> bool:
    return _given.get() is not None


@contextmanager
def tracked_numbers() -> Iterator[None]:
    """Context in which numbers are tracked.

    Numbers outliving it become literals: their expressions refer to values of this graph, unknown
    to a later trace.
    """
    given: list[Any] = []
    token = _given.set(given)
    try:
        yield
    finally:
        _given.reset(token)
        for number in given:
            number.expr = Const(plain_number(number))


def _binary(op: str, reflected: bool = False) -> Callable[[Any, Any], Any]:
    compute = OPERATORS[op]

    def method(self: Any, other: Any) -> Any:
        if type(other) is bool or not isinstance(other, int | float):
            return NotImplemented
        plain_self, plain_other = plain_number(self), plain_number(other)
        left, right = (plain_other, plain_self) if reflected else (plain_self, plain_other)
        exprs = (expr_of(other), self.expr) if reflected else (self.expr, expr_of(other))
        return tracked_number(compute(left, right), Apply(op, exprs))

    return method


def plain_number(number: Number) -> Number:
    """The plain number, without notifying the comparison listener."""
    return int.__int__(number) if isinstance(number, int) else float.__float__(number)


Listener = Callable[[Expr, str, Expr], None]
_listener: ContextVar[Listener | None] = ContextVar("planc_comparisons", default=None)


def _unary(op: str) -> Callable[[Any], Any]:
    compute = OPERATORS[op]

    def method(self: Any) -> Any:
        return tracked_number(compute(plain_number(self)), Apply(op, (self.expr,)))

    return method


def _converting(convert: Callable[..., Any]) -> Callable[..., Any]:
    """A conversion to a plain number.

    Later uses of the result are invisible, so every size it was computed from must stay fixed: each
    is reported as if compared with its current value.
    """

    def method(self: Any, *others: Any) -> Any:
        listener = _listener.get()
        if listener is not None:
            for leaf in leaves(self.expr):
                listener(leaf, AS_IT_IS, leaf)
        return convert(plain_number(self), *others)

    return method


def _comparing(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], Any]:
    def method(self: Any, other: Any) -> Any:
        if not isinstance(other, int | float):
            return NotImplemented
        left, right = plain_number(self), plain_number(other)
        listener = _listener.get()
        if listener is not None:
            exprs = (self.expr, expr_of(other))
            if type(exprs[0]) is type(exprs[1]) is Const:  # a number of an earlier trace
                return compare(left, right)
            listener(*_compared(compare, left, right, *exprs))
        return compare(left, right)

    return method


def _compared(
    compare: Callable[[Any, Any], bool], left: Number, right: Number, one: Expr, other: Expr
) -> tuple[Expr, str, Expr]:
    """The outcome of a comparison, in the form for listeners."""
    swapped, relation = _answer(compare, left, right)
    exprs = (one, other)
    return exprs[swapped], relation, exprs[not swapped]


def _answer(compare: Callable[[Any, Any], bool], left: Number, right: Number) -> tuple[bool, str]:
    """The weakest relation of two numbers implying the same answer of the comparison, and True if
    it reads from right to left.
    """
    if compare in (operator.eq, operator.ne):
        return (False, "==") if left == right else (left > right, "<")
    if compare in (operator.le, operator.gt):
        return (False, "<=") if left <= right else (True, "<")
    return (False, "<") if left < right else (True, "<=")


class _Arithmetic:
    __add__, __radd__ = _binary("+"), _binary("+", reflected=True)
    __sub__, __rsub__ = _binary("-"), _binary("-", reflected=True)
    __mul__, __rmul__ = _binary("*"), _binary("*", reflected=True)
    __floordiv__, __rfloordiv__ = _binary("//"), _binary("//", reflected=True)
    __mod__, __rmod__ = _binary("%"), _binary("%", reflected=True)
    __truediv__, __rtruediv__ = _binary("/"), _binary("/", reflected=True)
    __pow__, __rpow__ = _binary("**"), _binary("**", reflected=True)

    __neg__ = _unary("neg")
    __abs__, __trunc__ = _unary("abs"), _unary("trunc")
    __floor__, __ceil__ = _unary("floor"), _unary("ceil")
    __int__, __float__ = _converting(int), _converting(float)
    __round__ = _converting(round)
    __eq__, __ne__ = _comparing(operator.eq), _comparing(operator.ne)
    __lt__, __le__ = _comparing(operator.lt), _comparing(operator.le)
    __gt__, __ge__ = _comparing(operator.gt), _comparing(operator.ge)

    def __divmod__(self, other: Any) -> Any:
        me = cast(Any, self)
        return me // other, me % other

    def __rdivmod__(self, other: Any) -> Any:
        me = cast(Any, self)
        return other // me, other % me

    def __bool__(self) -> bool:
        """Treated as a comparison with 0."""
        me, listener = cast(Any, self), _listener.get()
        number = plain_number(me)
        if listener is not None and type(me.expr) is not Const:
            listener(*_compared(operator.ne, number, 0, me.expr, Const(0)))
        return number != 0


class TrackedSize(_Arithmetic, Size):  # type: ignore[misc]  # powers of int are narrower
    """An ``int`` with the expression it was computed by."""

    __hash__ = int.__hash__
    __and__, __rand__ = _converting(operator.and_), _converting(operator.and_)
    __or__, __ror__ = _converting(operator.or_), _converting(operator.or_)
    __lshift__, __rshift__ = _converting(operator.lshift), _converting(operator.rshift)


class TrackedScalar(_Arithmetic, Scalar):  # type: ignore[misc]
    """A ``float`` with the expression it was computed by."""

    __hash__ = float.__hash__


def _tracked_function(name: str, compute: Callable[..., float]) -> Callable[..., float]:
    """A function of one number with provenance; ``name`` is one of the operators."""

    def function(*numbers: Any) -> float:
        if len(numbers) == 1 and isinstance(numbers[0], Size | Scalar):
            number = numbers[0]
            return tracked_number(compute(plain_number(number)), Apply(name, (number.expr,)))
        return compute(*numbers)

    return function


def noted(argument: Any) -> Any:
    """A number in the form stored in graphs; other arguments unchanged."""
    if isinstance(argument, Size | Scalar):
        value, expr = plain_number(argument), argument.expr
        if type(expr) is Const:
            return value
        return Size(value, expr) if isinstance(value, int) else Scalar(value, expr)
    return argument


MATH = {
    name: _tracked_function(name, getattr(math, name)) for name in ("sqrt", "log", "log2", "log10")
}
tracked_float = _tracked_function("float", float)


def track_attributes(path: str, holder: Any, prefix: str = "", shared: Container[int] = ()) -> None:
    """Replace the public integer attributes of ``holder`` by tracked ones, in place.

    ``holder`` is a module of a clone, or an object held by it under the name ``prefix``. Lists keep
    their identity, because others may hold them, too. Lists with an ``id`` in ``shared`` belong to
    the original and stay unchanged.
    """

    def tracked(value: Any, name: str, index: tuple[int, ...]) -> Any:
        if type(value) is int:
            return tracked_number(value, Attribute(path, name, value, index))
        if type(value) not in (tuple, list, torch.Size) or id(value) in shared:
            return value
        items = [tracked(item, name, (*index, i)) for i, item in enumerate(value)]
        if type(value) is list:
            value[:] = items
            return value
        same = all(map(operator.is_, items, value))
        return value if same else type(value)(items)

    attributes = vars(holder)
    for name, value in attributes.items():
        if not name.startswith("_") and type(value) in (int, tuple, list, torch.Size):
            attributes[name] = tracked(value, f"{prefix}.{name}" if prefix else name, ())


@contextmanager
def heard_comparisons(listener: Listener) -> Iterator[None]:
    """Context in which ``listener`` is called with every comparison of a tracked size: left
    expression, relation ("==", "<", "<="), right expression.
    """
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
