"""Sizes with provenance: a torch function mode gives them out for traced tensors.

:class:`SizeTracking` returns a tracked number for every size of a traced tensor, and notes the
provenance of each call's size arguments.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager
from functools import reduce
from typing import Any, cast

import numpy as np
import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from planc.ir.expressions import Apply, Const, Expr, Number, Scalar, Size, SizeOf
from planc.modules.tree import is_in_order
from planc.trace.indexing import Pieces, pieces, sized_slices
from planc.trace.numbers import MATH, is_tracing, plain_number, tracked_float, tracked_number

# Functions written in Python defer to a function mode before reading their arguments. These compute
# sizes inside, so they run without the deferral, and the mode observes their inside.
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
        inside["float"] = tracked_float
        copied = types.FunctionType(
            fn.__code__, inside, fn.__name__, fn.__defaults__, fn.__closure__
        )
        copied.__kwdefaults__ = fn.__kwdefaults__
        _transparent_copies[fn] = copied
    return _transparent_copies[fn]


def is_seen_through(code: types.CodeType) -> bool:
    """True for the code of a torch function traced into."""
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
    """The result of ``copy.deepcopy`` for a traced tensor."""
    if id(tensor) not in memo:
        memo[id(tensor)] = tensor.clone()
    copied: torch.Tensor = memo[id(tensor)]
    return copied


def _copy(tensor: torch.Tensor) -> Any:
    """``copy.copy`` of a tensor: an operator in a trace, the default behaviour elsewhere."""
    if is_tracing():
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
    """Returns tracked sizes, and keeps the numbers of the current call in ``numbers``.

    Args:
        value_of: the graph's value for a tensor, or None for an untraced one.
        device: the device reported by meta tensors, to steer the model's branches.
        exits: functions taking tensors out of torch.
        leaving: called with the tensor and the function in ``exits``.
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
        self.pieces: Pieces = []  # numbers of the pending operators of an indexing
        self.assigning = False  # a part of a tensor is being overwritten
        self.autocast = False  # autocast was on in some call
        self.plain: list[SizeOf] = []  # sizes converted to plain numbers by ``len``

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
        if func is torch.Tensor.stride:
            return self._strides(func(*args, **kwargs), args, kwargs)
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
        """The indexed tensor and the index, after slices with sizes in their bounds are taken."""
        slices, index = sized_slices(x, index)
        for dim, start, stop in slices:
            self.numbers, self.pieces = [start, stop], []
            x = torch.ops.aten.slice.Tensor(x, dim, start, stop)
        return x, index

    def _length(self, result: int, tensor: torch.Tensor) -> int:
        """Note a ``len``, restricted to plain integers by Python: see :func:`_converting`."""
        value = self.value_of(tensor)
        if value is not None:
            self.plain.append(SizeOf(value, 0))
        return result

    def _count(self, result: int, args: tuple[Any, ...]) -> int:
        value = self.value_of(args[0])
        return result if value is None else _product(result, value, range(args[0].dim()))

    def _strides(self, result: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The strides of a tensor in row-major order are products of its sizes."""
        value, rank = self.value_of(args[0]), args[0].dim()
        if value is None or not is_in_order(args[0]):
            return result
        if isinstance(result, int):
            dim = args[1] if len(args) > 1 else kwargs["dim"]
            return _product(result, value, range(int(dim) % rank + 1, rank))
        return tuple(_product(n, value, range(d + 1, rank)) for d, n in enumerate(result))

    def _sizes(self, result: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        value = self.value_of(args[0])
        if value is None:
            return result
        if isinstance(result, int):
            dim = args[1] if len(args) > 1 else kwargs["dim"]
            return tracked_number(result, SizeOf(value, int(dim) % args[0].dim()))
        sizes = [cast(int, tracked_number(n, SizeOf(value, i))) for i, n in enumerate(result)]
        return torch.Size(sizes)


def _product(result: int, value: int, dims: Iterable[int]) -> int:
    """The product of the sizes of a value along ``dims``; plain without any."""
    sizes: list[Expr] = [SizeOf(value, dim) for dim in dims]
    if not sizes:
        return result
    return cast(int, tracked_number(result, reduce(lambda a, b: Apply("*", (a, b)), sizes)))


def _index(index: Any) -> Any:
    """An index with its lists of positions converted to tensors.

    Torch itself would convert them on the device of the indexed tensor: without content on meta.
    """
    if isinstance(index, tuple):
        return tuple(_index(item) for item in index)
    if isinstance(index, np.ndarray) or (isinstance(index, list) and _positions(index)):
        return torch.from_numpy(np.array(index))
    return index


def _positions(index: list[Any]) -> bool:
    return all(_positions(i) if isinstance(i, list) else isinstance(i, int) for i in index)


def _numbers(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Number] | None:
    """The numbers in the arguments in order, or None without a tracked one."""
    found: list[Number] = []
    tracked = False
    stack: list[Any] = [*reversed(kwargs.values()), *reversed(args)]
    while stack:
        item = stack.pop()
        if isinstance(item, int | float):
            alive = isinstance(item, Size | Scalar) and type(item.expr) is not Const
            found.append(
                item if alive or not isinstance(item, Size | Scalar) else plain_number(item)
            )
            tracked = tracked or alive
        elif isinstance(item, tuple | list):
            stack.extend(reversed(item))
        elif isinstance(item, slice):
            stack.extend((item.step, item.stop, item.start))
    return found if tracked else None


@contextmanager
def tracked_math() -> Iterator[None]:
    """Context in which functions of ``math`` keep provenance, and copies of tensors are recorded.

    The functions are replaced for the whole process.
    """
    originals = {name: getattr(math, name) for name in MATH}
    vars(math).update(MATH)
    torch.Tensor.__copy__ = _copy  # type: ignore[attr-defined]
    try:
        yield
    finally:
        vars(math).update(originals)
        del torch.Tensor.__copy__  # type: ignore[attr-defined]
