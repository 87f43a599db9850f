"""Results known without running an operator, as new tensors on the meta device.

On meta tensors torch runs these operators through reference implementations in Python, taking
half of the time of a trace. Anything unusual (a mismatched size, mixed types, another memory
format) is left to torch and its errors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Result = torch.Tensor | None
_ACTIVATIONS = ("gelu", "hardsigmoid", "hardswish", "silu")
_empty_like = torch.ops.aten.empty_like.default
_new_empty = torch.ops.aten.new_empty.default


def known_result(func: Any, args: tuple[Any, ...]) -> Result:
    """The result of an operator on meta tensors, or None if torch has to compute it."""
    known = _KNOWN.get(str(func))
    if known is None:
        return None
    x = args[0]
    plain = type(x) is torch.Tensor and x.is_meta and x.is_floating_point() and x.is_contiguous()
    return known(*args) if plain else None


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
    result: torch.Tensor = _new_empty(x, [*x.shape[:-1], weight.shape[0]])
    return result


def _like(x: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = _empty_like(x)
    return result


def _itself(x: torch.Tensor) -> torch.Tensor:
    return x


def _fits(x: torch.Tensor, parameter: Result, shape: tuple[int, ...]) -> bool:
    """True if a parameter is absent, or on meta with the type of ``x`` and with ``shape``."""
    if parameter is None:
        return True
    return parameter.is_meta and parameter.dtype == x.dtype and parameter.shape == shape


_KNOWN: dict[str, Callable[..., Result]] = {
    "aten.batch_norm.default": _batch_norm,
    "aten.layer_norm.default": _layer_norm,
    "aten.linear.default": _linear,
    **{f"aten.{name}.default": _like for name in _ACTIVATIONS},
    **{f"aten.{name}_.default": _itself for name in _ACTIVATIONS},
}
