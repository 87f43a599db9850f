"""Integers that remember where they came from while a model runs.

:class:`TrackedSize` is an ``int`` that keeps its expression through arithmetic; integer attributes
of modules are replaced by it on the traced clone (:func:`track_attributes`), and
:class:`SizeTracking`, a torch function mode, hands it out for the sizes of traced tensors and
notes, for each call, which size arguments came from what.
"""

from __future__ import annotations

import math
import operator
import types
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

import numpy as np
import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from planc.ir.expressions import (
    OPERATORS,
    Apply,
    Attribute,
    Const,
    Expr,
    Number,
    Scalar,
    Size,
    SizeOf,
    expr_of,
    leaves,
)
from planc.ir.graph import AS_IT_IS
from planc.trace.indexing import Pieces, pieces, sized_slices

_given: ContextVar[list[Any] | None] = ContextVar("planc_tracked_numbers", default=None)


def _tracked(value: Number, expr: Expr) -> Number:
    """A tracked number; a plain one outside of a trace and where only literals are behind it."""
    given = _given.get()
    if given is None or (type(expr) is Apply and all(type(arg) is Const for arg in expr.args)):
        return value
    number = TrackedSize(value, expr) if isinstance(value, int) else TrackedScalar(value, expr)
    given.append(number)
    return number


@contextmanager
def tracked_numbers() -> Iterator[None]:
    """While it lasts, numbers are tracked. Those that outlive it are literals ever after: they
    speak of values of a graph that a later trace does not have.
    """
    given: list[Any] = []
    token = _given.set(given)
    try:
        yield
    finally:
        _given.reset(token)
        for number in given:
            number.expr = Const(_plain(number))


def _binary(op: str, reflected: bool = False) -> Callable[[Any, Any], Any]:
    compute = OPERATORS[op]

    def method(self: Any, other: Any) -> Any:
        if type(other) is bool or not isinstance(other, int | float):
            return NotImplemented
        plain_self, plain_other = _plain(self), _plain(other)
        left, right = (plain_other, plain_self) if reflected else (plain_self, plain_other)
        exprs = (expr_of(other), self.expr) if reflected else (self.expr, expr_of(other))
        return _tracked(compute(left, right), Apply(op, exprs))

    return method


def _plain(number: Number) -> Number:
    """The number itself, of which no listener hears."""
    return int.__int__(number) if isinstance(number, int) else float.__float__(number)


Listener = Callable[[Expr, str, Expr], None]
_listener: ContextVar[Listener | None] = ContextVar("planc_comparisons", default=None)


def _unary(op: str) -> Callable[[Any], Any]:
    compute = OPERATORS[op]

    def method(self: Any) -> Any:
        return _tracked(compute(_plain(self)), Apply(op, (self.expr,)))

    return method


def _converting(convert: Callable[..., Any]) -> Callable[..., Any]:
    """A conversion to a plain number. What the model makes of that is not seen, so everything that
    it was computed from must stay as it is: as if each had been compared with what it is.
    """

    def method(self: Any, *others: Any) -> Any:
        listener = _listener.get()
        if listener is not None:
            for leaf in leaves(self.expr):
                listener(leaf, AS_IT_IS, leaf)
        return convert(_plain(self), *others)

    return method


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

    def __divmod__(self, other: Any) -> Any:
        me = cast(Any, self)
        return me // other, me % other

    def __rdivmod__(self, other: Any) -> Any:
        me = cast(Any, self)
        return other // me, other % me

    def __bool__(self) -> bool:
        """As if compared with 0."""
        me, listener = cast(Any, self), _listener.get()
        number = _plain(me)
        if listener is not None and type(me.expr) is not Const:
            listener(*_compared(operator.ne, number, 0, me.expr, Const(0)))
        return number != 0


def _comparing(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], Any]:
    def method(self: Any, other: Any) -> Any:
        if not isinstance(other, int | float):
            return NotImplemented
        left, right = _plain(self), _plain(other)
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
    """The answer of a comparison, as listeners are told it."""
    swapped, relation = _answer(compare, left, right)
    exprs = (one, other)
    return exprs[swapped], relation, exprs[not swapped]


def _answer(compare: Callable[[Any, Any], bool], left: Number, right: Number) -> tuple[bool, str]:
    """The least that must hold of two numbers for the comparison to give the same answer again, and
    whether it is to be read from right to left.
    """
    if compare in (operator.eq, operator.ne):
        return (False, "==") if left == right else (left > right, "<")
    if compare in (operator.le, operator.gt):
        return (False, "<=") if left <= right else (True, "<")
    return (False, "<") if left < right else (True, "<=")


class TrackedSize(_Arithmetic, Size):  # type: ignore[misc]  # powers of int are narrower
    """An ``int`` that carries the expression it was computed by."""

    __hash__ = int.__hash__
    __eq__, __ne__ = _comparing(operator.eq), _comparing(operator.ne)
    __lt__, __le__ = _comparing(operator.lt), _comparing(operator.le)
    __gt__, __ge__ = _comparing(operator.gt), _comparing(operator.ge)
    __and__, __rand__ = _converting(operator.and_), _converting(operator.and_)
    __or__, __ror__ = _converting(operator.or_), _converting(operator.or_)
    __lshift__, __rshift__ = _converting(operator.lshift), _converting(operator.rshift)


class TrackedScalar(_Arithmetic, Scalar):  # type: ignore[misc]
    """A ``float`` that carries the expression it was computed by."""

    __hash__ = float.__hash__
    __eq__, __ne__ = _comparing(operator.eq), _comparing(operator.ne)
    __lt__, __le__ = _comparing(operator.lt), _comparing(operator.le)
    __gt__, __ge__ = _comparing(operator.gt), _comparing(operator.ge)


def _tracked_function(name: str, compute: Callable[..., float]) -> Callable[..., float]:
    """A function of one number that keeps where it came from; ``name`` is one of the operators."""

    def function(*numbers: Any) -> float:
        if len(numbers) == 1 and isinstance(numbers[0], Size | Scalar):
            number = numbers[0]
            return _tracked(compute(_plain(number)), Apply(name, (number.expr,)))
        return compute(*numbers)

    return function


def noted(argument: Any) -> Any:
    """A number as graphs keep it; other arguments as they are."""
    if isinstance(argument, Size | Scalar):
        value, expr = _plain(argument), argument.expr
        if type(expr) is Const:
            return value
        return Size(value, expr) if isinstance(value, int) else Scalar(value, expr)
    return argument


_FUNCTIONS = {
    name: _tracked_function(name, getattr(math, name)) for name in ("sqrt", "log", "log2", "log10")
}
_tracked_float = _tracked_function("float", float)


def track_attributes(path: str, holder: Any, prefix: str = "", shared: Container[int] = ()) -> None:
    """Replaces the public integer attributes of ``holder``, a module of a clone or an object that
    it holds under the name ``prefix``, by tracked ones. Lists stay the same objects, because others
    may hold them, too; those with an ``id`` in ``shared`` belong to the original and stay.
    """

    def tracked(value: Any, name: str, index: tuple[int, ...]) -> Any:
        if type(value) is int:
            return _tracked(value, Attribute(path, name, value, index))
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


# Functions written in Python hand over to a function mode before they look at their arguments.
# These compute sizes inside, so they run with the hand-over cut out and their inside is seen.
_TRANSPARENT = frozenset(
    {
        functional.multi_head_attention_forward,
        functional.embedding_bag,
        functional.adaptive_avg_pool2d,
        functional.adaptive_avg_pool3d,
        functional.adaptive_max_pool2d_with_indices,
        functional.adaptive_max_pool3d_with_indices,
        functional.fractional_max_pool2d_with_indices,
        functional.fractional_max_pool3d_with_indices,
    }
)
_HAND_OVERS = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")
_transparent_copies: dict[Any, Callable[..., Any]] = {}


def _seen_through(fn: types.FunctionType) -> Callable[..., Any]:
    if fn not in _transparent_copies:
        inside = dict(fn.__globals__)
        inside |= dict.fromkeys(_HAND_OVERS, lambda *_: False)
        inside["float"] = _tracked_float
        copied = types.FunctionType(
            fn.__code__, inside, fn.__name__, fn.__defaults__, fn.__closure__
        )
        copied.__kwdefaults__ = fn.__kwdefaults__
        _transparent_copies[fn] = copied
    return _transparent_copies[fn]


def is_seen_through(code: types.CodeType) -> bool:
    """Whether it is the code of a function of torch whose inside is seen."""
    return any(code is fn.__code__ for fn in _TRANSPARENT)


_SHAPE = torch.Tensor.shape.__get__  # type: ignore[attr-defined]
_SIZE = torch.Tensor.size
_LENGTH: Any = torch.Tensor.__len__
_COUNTS = frozenset({torch.Tensor.numel, torch.Tensor.nelement, torch.numel})
_PLACES: dict[Any, Callable[[torch.device], Any]] = {
    torch.Tensor.device.__get__: lambda device: device,
    torch.Tensor.is_cuda.__get__: lambda device: device.type == "cuda",  # type: ignore[attr-defined]
    torch.Tensor.is_cpu.__get__: lambda device: device.type == "cpu",  # type: ignore[attr-defined]
    torch.Tensor.is_meta.__get__: lambda device: False,  # type: ignore[attr-defined]
}
_PLAIN_META = torch.Tensor.is_meta.__get__  # type: ignore[attr-defined]


def _copied(tensor: torch.Tensor, memo: dict[int, Any]) -> torch.Tensor:
    """What ``copy.deepcopy`` makes of a traced tensor."""
    if id(tensor) not in memo:
        memo[id(tensor)] = tensor.clone()
    copied: torch.Tensor = memo[id(tensor)]
    return copied


def _copy(tensor: torch.Tensor) -> Any:
    """``copy.copy`` of a tensor: in a trace an operator, elsewhere what it would be without."""
    if _given.get() is not None:
        return tensor.detach()
    make, args = tensor.__reduce_ex__(4)[:2]  # type: ignore[no-untyped-call]
    return make(*args)


_INDEXING = frozenset({torch.Tensor.__getitem__, torch.Tensor.__setitem__})
_NO_SIZES = frozenset(
    {
        torch.Tensor.dtype.__get__,  # type: ignore[attr-defined]
        torch.Tensor.device.__get__,
        torch.Tensor.ndim.__get__,  # type: ignore[attr-defined]
        torch.Tensor.dim,
    }
)


class SizeTracking(TorchFunctionMode):
    """Gives out tracked sizes, and keeps the numbers of the call being made in ``numbers``.

    ``value_of`` finds the graph's value for a tensor, or None when it is not traced. ``device`` is
    what meta tensors say they are on, that the model takes the branches it takes there. ``leaving``
    hears of tensors that leave torch by one of the functions ``exits``.
    """

    def __init__(
        self,
        value_of: Callable[[torch.Tensor], int | None],
        device: torch.device | None = None,
        exits: Container[Any] = (),
        leaving: Callable[[torch.Tensor, Any], None] = lambda tensor, func: None,
    ) -> None:
        super().__init__()
        self.exits, self.leaving = exits, leaving
        self.value_of = value_of
        self.device = device
        self.numbers: list[Number] | None = None
        self.pieces: Pieces = []  # those of the operators that an indexing still has to call
        self.assigning = False  # whether a part of a tensor is being overwritten
        self.autocast = False  # whether it was on in any call
        self.plain: list[SizeOf] = []  # what was made a plain number by ``len``

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in self.exits:
            self.leaving(args[0], func)
        if func in _PLACES and self.device is not None and _PLAIN_META(args[0]):
            return _PLACES[func](self.device)
        if func in _NO_SIZES:
            return func(*args, **kwargs)
        if func == _SHAPE or func is _SIZE:
            return self._sizes(func(*args, **kwargs), args, kwargs)
        if func is torch.ops.aten.sym_size.int:
            return self._sizes(int(func(*args, **kwargs)), args, kwargs)
        if func is _LENGTH:
            return self._length(func(*args, **kwargs), args[0])
        if func in _COUNTS:
            return self._count(func(*args, **kwargs), args)
        if func is torch.Tensor.__deepcopy__:
            with self:
                return _copied(*args)
        if func in _TRANSPARENT:
            with self:
                return _seen_through(func)(*args, **kwargs)
        self.autocast = self.autocast or torch._C._is_any_autocast_enabled()
        before = self.numbers, self.pieces, self.assigning
        try:
            self.assigning = func is torch.Tensor.__setitem__
            if func in _INDEXING:
                x, index = self._sliced(args[0], _index(args[1]))
                if index is ... and x is not args[0] and not self.assigning:
                    return x
                args, self.pieces = (x, index, *args[2:]), pieces(index)
            self.numbers = _numbers(args, kwargs)
            return func(*args, **kwargs)
        finally:
            self.numbers, self.pieces, self.assigning = before

    def _sliced(self, x: torch.Tensor, index: Any) -> tuple[torch.Tensor, Any]:
        """What is indexed and the index, once the slices are taken that sizes are in."""
        slices, index = sized_slices(x, index)
        for dim, start, stop in slices:
            self.numbers, self.pieces = [start, stop], []
            x = torch.ops.aten.slice.Tensor(x, dim, start, stop)
        return x, index

    def _length(self, result: int, tensor: torch.Tensor) -> int:
        """What ``len`` is given, which takes plain integers only: see :func:`_converting`."""
        value = self.value_of(tensor)
        if value is not None:
            self.plain.append(SizeOf(value, 0))
        return result

    def _count(self, result: int, args: tuple[Any, ...]) -> int:
        value = self.value_of(args[0])
        if value is None:
            return result
        expr: Expr = Const(1)
        for dim in range(args[0].dim()):
            size = SizeOf(value, dim)
            expr = Apply("*", (expr, size)) if dim else size
        return cast(int, _tracked(result, expr))

    def _sizes(self, result: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        value = self.value_of(args[0])
        if value is None:
            return result
        if isinstance(result, int):
            dim = args[1] if len(args) > 1 else kwargs["dim"]
            return _tracked(result, SizeOf(value, int(dim) % args[0].dim()))
        sizes = [cast(int, _tracked(n, SizeOf(value, i))) for i, n in enumerate(result)]
        return torch.Size(sizes)


def _index(index: Any) -> Any:
    """An index with its lists of positions as tensors. Left to torch, they become tensors on the
    device of what is indexed, which has no content where that is meta.
    """
    if isinstance(index, tuple):
        return tuple(_index(item) for item in index)
    if isinstance(index, np.ndarray) or (isinstance(index, list) and _positions(index)):
        return torch.from_numpy(np.array(index))
    return index


def _positions(index: list[Any]) -> bool:
    return all(_positions(i) if isinstance(i, list) else isinstance(i, int) for i in index)


def _numbers(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Number] | None:
    """The numbers in the arguments in order, or None when none of them is tracked."""
    found: list[Number] = []
    tracked = False
    stack: list[Any] = [*reversed(kwargs.values()), *reversed(args)]
    while stack:
        item = stack.pop()
        if isinstance(item, int | float):
            alive = isinstance(item, Size | Scalar) and type(item.expr) is not Const
            found.append(item if alive or not isinstance(item, Size | Scalar) else _plain(item))
            tracked = tracked or alive
        elif isinstance(item, tuple | list):
            stack.extend(reversed(item))
        elif isinstance(item, slice):
            stack.extend((item.step, item.stop, item.start))
    return found if tracked else None


@contextmanager
def heard_comparisons(listener: Listener) -> Iterator[None]:
    """While it lasts, ``listener`` hears of every comparison of a tracked size: the left
    expression, what holds ("==", "<", "<="), the right one.
    """
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def tracked_math() -> Iterator[None]:
    """While it lasts, functions of ``math`` keep provenance, and copies of tensors are seen."""
    originals = {name: getattr(math, name) for name in _FUNCTIONS}
    vars(math).update(_FUNCTIONS)
    torch.Tensor.__copy__ = _copy  # type: ignore[attr-defined]
    try:
        yield
    finally:
        vars(math).update(originals)
        del torch.Tensor.__copy__  # type: ignore[attr-defined]
