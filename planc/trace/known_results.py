"""Results known without running an operator, as new tensors on the meta device.

On meta tensors torch runs these operators through reference implementations in Python, taking
half of the time of a trace. Anything unusual (a mismatched size, mixed types, another memory
format) is left to torch and its errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

Result = torch.Tensor | None
Shape = tuple[int, ...]
_ACTIVATIONS = ("gelu", "hardsigmoid", "hardswish", "silu")
_ELEMENTWISE = (
    *("abs", "cos", "elu", "erf", "exp", "leaky_relu", "log", "mish", "neg", "reciprocal", "relu"),
    *("rsqrt", "sigmoid", "sin", "softplus", "sqrt", "square", "tanh"),
)
_PRECISIONS = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})
_NUMBERS = (int, float)
_new_empty = torch.ops.aten.new_empty.default


def known_result(func: Any, args: tuple[Any, ...]) -> Result:
    """The result of an operator on meta tensors, or None if torch has to compute it."""
    known = _KNOWN.get(str(func))
    if known is None:
        return None
    x = args[0]
    parts = x if type(x) in (list, tuple) else (x,)
    return known(*args) if parts and all(map(_is_plain, parts)) else None


def _batch_norm(
    x: torch.Tensor,
    weight: Result,
    bias: Result,
    mean: Result,
    variance: Result,
    training: bool,
    *rest: Any,
) -> Result:
    if training or mean is None or variance is None or x.dim() < 2:
        return None
    fit = all(_fits(x, t, x.shape[1:2]) for t in (weight, bias, mean, variance))
    return _like(x) if fit else None


def _layer_norm(
    x: torch.Tensor,
    normalized_shape: list[int],
    weight: Result = None,
    bias: Result = None,
    *rest: Any,
) -> Result:
    shape = tuple(normalized_shape)
    fit = bool(shape) and x.shape[-len(shape) :] == shape
    return _like(x) if fit and _fits(x, weight, shape) and _fits(x, bias, shape) else None


def _linear(x: torch.Tensor, weight: torch.Tensor, bias: Result = None) -> Result:
    if not x.dim() or not _fits(x, weight, (*weight.shape[:1], x.shape[-1])):
        return None
    if not _fits(x, bias, tuple(weight.shape[:1])):
        return None
    return _new(x, (*x.shape[:-1], weight.shape[0]))


def _convolution(
    spatial: int,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: Result = None,
    stride: Sequence[int] = (1,),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    groups: int = 1,
) -> Result:
    steps, pads, gaps = (_each(setting, spatial) for setting in (stride, padding, dilation))
    if not x.dim() == weight.dim() == spatial + 2 or not x.numel():
        return None
    if steps is None or pads is None or gaps is None:
        return None
    (out, per_group), kernel = weight.shape[:2], weight.shape[2:]
    if groups < 1 or per_group * groups != x.shape[1] or out % groups or not out:
        return None
    if not _fits(x, weight, tuple(weight.shape)) or not _fits(x, bias, (out,)):
        return None
    if min(*kernel, *steps, *gaps) < 1 or min(pads) < 0:
        return None
    dimensions = zip(x.shape[2:], kernel, steps, pads, gaps, strict=True)
    sizes = [(n + 2 * pad - gap * (k - 1) - 1) // step + 1 for n, k, step, pad, gap in dimensions]
    return _new(x, (x.shape[0], out, *sizes)) if min(sizes) > 0 else None


def _adaptive_pooling(x: torch.Tensor, output_size: Sequence[int]) -> Result:
    sizes = _each(output_size, 2)
    if x.dim() not in (3, 4) or sizes is None or min(sizes) < 1 or not x.numel():
        return None
    return _new(x, (*x.shape[:-2], *sizes))


def _mean(x: torch.Tensor, dim: Sequence[int] | None, keepdim: bool = False) -> Result:
    if not dim or not x.numel() or not all(-x.dim() <= d < x.dim() for d in dim):
        return None
    over = {int(d) % x.dim() for d in dim}
    if len(over) < len(dim):
        return None
    sizes = enumerate(x.shape)
    return _new(x, [1 if d in over else n for d, n in sizes if keepdim or d not in over])


def _concatenation(parts: Sequence[torch.Tensor], dim: int = 0) -> Result:
    x = parts[0]
    if not -x.dim() <= dim < x.dim() or not all(part.numel() for part in parts):
        return None
    at = int(dim) % x.dim()
    rest = {(part.dtype, *part.shape[:at], None, *part.shape[at + 1 :]) for part in parts}
    total = sum(part.shape[at] for part in parts if part.dim() == x.dim())
    return _new(x, (*x.shape[:at], total, *x.shape[at + 1 :])) if len(rest) == 1 else None


def _stack(parts: Sequence[torch.Tensor], dim: int = 0) -> Result:
    x = parts[0]
    if not -x.dim() - 1 <= dim <= x.dim() or len({(p.dtype, p.shape) for p in parts}) > 1:
        return None
    at = int(dim) % (x.dim() + 1)
    return _new(x, (*x.shape[:at], len(parts), *x.shape[at:]))


def _roll(x: torch.Tensor, shifts: Sequence[int], dims: Sequence[int] = ()) -> Result:
    fit = dims and len(dims) == len(shifts) and all(-x.dim() <= d < x.dim() for d in dims)
    return _new(x, x.shape) if fit and x.numel() else None


def _binary(x: torch.Tensor, y: Any) -> Result:
    if isinstance(y, _NUMBERS):
        return _new(x, x.shape)
    if not _is_plain(y, nn.Parameter) or y.dtype != x.dtype:
        return None
    shape = _broadcast(tuple(x.shape), tuple(y.shape))
    return None if shape is None else _new(x, shape)


def _broadcast(one: Shape, other: Shape) -> Shape | None:
    """The common shape of two operands, None if there is none."""
    if one == other:
        return one
    rank = max(len(one), len(other))
    pairs = zip((1,) * (rank - len(one)) + one, (1,) * (rank - len(other)) + other, strict=True)
    sizes = tuple(m if n == 1 else n if m in (1, n) else -1 for n, m in pairs)
    return None if -1 in sizes else sizes


def _softmax(x: torch.Tensor, dim: int, dtype: Any = None) -> Result:
    fit = dtype is None and -x.dim() <= dim < x.dim() and x.numel()
    return _new(x, x.shape) if fit else None


def _like(x: torch.Tensor, *numbers: Any) -> Result:
    return _new(x, x.shape) if all(isinstance(n, _NUMBERS) for n in numbers) else None


def _bounded(x: torch.Tensor, low: float = -1.0, high: float = 1.0) -> Result:
    return _new(x, x.shape) if low < high else None


def _bounded_in_place(x: torch.Tensor, low: float = -1.0, high: float = 1.0) -> Result:
    return x if low < high else None


def _activation(x: torch.Tensor) -> torch.Tensor:
    return _new(x, x.shape)


def _itself(x: torch.Tensor) -> torch.Tensor:
    return x


def _new(x: torch.Tensor, shape: Iterable[int]) -> torch.Tensor:
    result: torch.Tensor = _new_empty(x, [int(n) for n in shape])
    return result


def _is_plain(x: Any, *kinds: type) -> bool:
    """True for a meta tensor of real numbers, or one of other ``kinds``, with the strides of a new
    tensor of its shape.
    """
    if type(x) not in (torch.Tensor, *kinds) or not x.is_meta or x.dtype not in _PRECISIONS:
        return False
    expected = 1
    for size, stride in zip(reversed(x.shape), reversed(x.stride()), strict=True):
        if stride != expected:
            return False
        expected *= max(size, 1)
    return True


def _each(setting: Any, count: int) -> list[int] | None:
    """A setting for each of some dimensions, from one for all or one for each."""
    if type(setting) not in (list, tuple) or len(setting) not in (1, count):
        return None
    return [int(n) for n in setting] * (count if len(setting) == 1 else 1)


def _fits(x: torch.Tensor, parameter: Result, shape: tuple[int, ...]) -> bool:
    """True if a parameter is absent, or on meta with the type of ``x`` and with ``shape``."""
    if parameter is None:
        return True
    return parameter.is_meta and parameter.dtype == x.dtype and parameter.shape == shape


_KNOWN: dict[str, Callable[..., Result]] = {
    "aten.batch_norm.default": _batch_norm,
    "aten.layer_norm.default": _layer_norm,
    "aten.linear.default": _linear,
    "aten.adaptive_avg_pool2d.default": _adaptive_pooling,
    "aten.mean.dim": _mean,
    "aten.cat.default": _concatenation,
    "aten.stack.default": _stack,
    "aten.roll.default": _roll,
    "aten.hardtanh.default": _bounded,
    "aten.hardtanh_.default": _bounded_in_place,
    "aten.clamp_min.default": _like,
    "aten.pow.Tensor_Scalar": _like,
    **{f"aten.{name}.int": _softmax for name in ("softmax", "log_softmax")},
    **{f"aten.conv{n}d.default": partial(_convolution, n) for n in (1, 2, 3)},
    **{f"aten.{name}.Tensor": _binary for name in ("add", "sub", "mul", "div")},
    **{f"aten.{name}.default": _like for name in _ELEMENTWISE},
    **{f"aten.{name}.default": _activation for name in _ACTIVATIONS},
    **{f"aten.{name}_.default": _itself for name in _ACTIVATIONS},
}
