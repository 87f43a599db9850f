"""Constants through operators: coordinates whose value is the same for all inputs.

A :class:`Known` value is a tensor with a mask of the coordinates that are known. In: an operator
and known operands. Out: the known result; what is not understood is unknown. Arithmetic is that of
the model, with one licence: what is finite times zero is zero, and activations are finite.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """``value`` where ``known``, zero elsewhere. Both have the shape of the tensor in the model."""

    value: Tensor
    known: Tensor

    @property
    def maybe(self) -> Tensor:
        """Where the value may be other than zero."""
        return ~self.known | (self.value != 0)


def constant(value: Tensor) -> Known:
    """A tensor that is known all over."""
    return Known(value, torch.ones_like(value, dtype=torch.bool))


def unknown(shape: tuple[int, ...], like: Tensor) -> Known:
    """A tensor of which nothing is known."""
    value = like.new_zeros(shape)
    return Known(value, torch.zeros_like(value, dtype=torch.bool))


Operator = Callable[..., Any]
Transfer = Callable[[Operator, tuple[Any, ...], Mapping[str, Any]], Any]


def transfer(name: str) -> Transfer | None:
    """What an operator makes of known operands, by its name without overload and last ``_``,
    None where that is not known. The result may be None too: nothing is known of it.
    """
    return _TRANSFERS.get(name)


def values(argument: Any) -> Any:
    """An argument with the values of known operands."""
    return _mapped(argument, lambda known: known.value)


def masks(argument: Any) -> Any:
    """An argument with the masks of known operands as ones and zeros, for any operator."""
    return _mapped(argument, lambda known: known.known.float())


def _mapped(argument: Any, of: Callable[[Known], Tensor]) -> Any:
    if isinstance(argument, Known):
        return of(argument)
    if isinstance(argument, tuple):
        return tuple(_mapped(item, of) for item in argument)
    return argument


def _known(value: Tensor, known: Tensor) -> Known:
    known = known.expand(value.shape)
    return Known(torch.where(known, value, torch.zeros_like(value)), known)


# -- families ------------------------------------------------------------------------------------


def _moved(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Coordinates move: the mask moves with them."""
    value, moved = operator(*values(args), **kwargs), operator(*masks(args), **kwargs)
    if isinstance(value, Tensor):
        return Known(value, moved > 0.5)
    return tuple(Known(v, m > 0.5) for v, m in zip(value, moved, strict=True))


def _dropped(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Dropout, which does nothing where it is not training."""
    return args[0] if args[2:] == (False,) and not kwargs else None


def _padded(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Known | None:
    """What is padded with a constant is known there."""
    x, widths, *rest = args
    if kwargs or (operator is torch.ops.aten.pad.default and rest[:1] not in ([], ["constant"])):
        return None
    known = torch.nn.functional.pad(x.known.float(), widths, value=1.0) > 0.5
    return _known(operator(*values(args)), known)


def _pointwise(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Known:
    """A coordinate of the result is made of the same coordinate of each operand."""
    value = operator(*values(args), **{name: values(arg) for name, arg in kwargs.items()})
    known = torch.ones((), dtype=torch.bool, device=value.device)
    for operand in (*args, *kwargs.values()):
        if isinstance(operand, Known):
            known = known & operand.known
    return _known(value, known)


def _product(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Known:
    """Pointwise, and zero where a factor is zero."""
    value = operator(*values(args), **kwargs)
    known = torch.ones((), dtype=torch.bool, device=value.device)
    zero = torch.zeros((), dtype=torch.bool, device=value.device)
    for operand in args:
        if isinstance(operand, Known):
            known, zero = known & operand.known, zero | ~operand.maybe
        elif operand == 0:
            zero = ~zero
    return _known(value, known | zero)


def _pooled(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Known | None:
    """A coordinate of the result is made of a window: known where the window is."""
    value = operator(*values(args), **kwargs)
    x = args[0]
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return None
    doubt = operator((~x.known).to(x.value.dtype), *values(args[1:]), **kwargs)
    return _known(value, doubt == 0)


def _sampled(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Known | None:
    """Interpolation, whose weights may be negative: known where all of a channel is."""
    value = operator(*values(args), **kwargs)
    known = args[0].known.flatten(2).all(dim=2)
    return _known(value, known.reshape(*known.shape, *(1,) * (value.dim() - 2)))


def _linear(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Known:
    """x @ weight.T + bias."""
    x, weight, bias = (*args, None)[:3]
    known = _terms(lambda a, b: operator(a, b), x, weight)
    value = operator(*values(args), **kwargs)
    return _known(value, known if bias is None else known & bias.known)


def _conv(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Known:
    """A convolution, its padding of zeros known like everything else."""
    x, weight, bias, *rest = (*args, None)[: max(3, len(args))]
    known = _terms(lambda a, b: operator(a, b, None, *rest, **kwargs), x, weight)
    value = operator(*values(args), **kwargs)
    if bias is not None:
        known = known & bias.known.reshape(-1, *(1,) * (weight.value.dim() - 2))
    return _known(value, known)


def _matmul(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Known:
    """left @ right."""
    return _known(operator(*values(args)), _terms(operator, *args))


def _addmm(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Known:
    """added + left @ right."""
    added, left, right = args
    known = _terms(torch.matmul, left, right) & added.known
    return _known(operator(*values(args), **kwargs), known)


def _terms(product: Callable[[Tensor, Tensor], Tensor], left: Known, right: Known) -> Tensor:
    """Where every term of a product is known: both of its factors are, or one of them is zero."""
    doubts = None
    for a, b in ((~left.known, right.maybe), (left.maybe, ~right.known)):
        if bool(a.any()) and bool(b.any()):
            count = product(a.float(), b.float())
            doubts = count if doubts is None else doubts + count
    if doubts is None:
        return torch.ones((), dtype=torch.bool, device=left.value.device)
    return doubts < 0.5  # how many terms are in doubt, to rounding


def _batch_norm(
    operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Known | None:
    """By running statistics a channel is scaled and shifted; a scale of zero leaves the shift."""
    x, weight, bias, mean, var, training, *_ = args
    if training is not False or mean is None or kwargs:
        return None
    shape = (-1, *(1,) * (x.value.dim() - 2))
    known = x.known
    if weight is not None:
        known = known | ~weight.maybe.reshape(shape)
    for vector in (weight, bias, mean, var):
        if vector is not None:
            known = known & vector.known.reshape(shape)
    return _known(operator(*values(args)), known)


_MOVED = """
    alias channel_shuffle chunk clone contiguous detach expand flatten flip movedim mT narrow
    permute pixel_shuffle pixel_unshuffle ravel repeat reshape roll select slice split
    split_with_sizes squeeze swapaxes swapdims t tensor_split tile transpose unbind unflatten
    unsafe_chunk unsafe_split unsqueeze view _unsafe_view
"""
_JOINED = "cat concat concatenate stack hstack vstack"
_POINTWISE = """
    abs add celu clamp clamp_max clamp_min elu erf exp expm1 gelu hardshrink hardsigmoid hardswish
    hardtanh leaky_relu log1p maximum minimum mish neg negative relu relu6 selu sigmoid silu
    softplus softshrink softsign sqrt square sub rsub div tanh threshold to _to_copy type_as
"""
_POOLS = " ".join(f"{kind}_pool{d}d" for kind in ("max", "avg", "adaptive_avg") for d in (1, 2, 3))
_SAMPLED = "upsample_nearest2d upsample_bilinear2d upsample_bicubic2d _upsample_nearest_exact2d"
_TRANSFERS: dict[str, Transfer] = {
    **dict.fromkeys((_MOVED + _JOINED).split(), _moved),
    **dict.fromkeys(_POINTWISE.split(), _pointwise),
    **dict.fromkeys(_POOLS.split(), _pooled),
    **dict.fromkeys(("sum", "mean"), _pooled),
    **dict.fromkeys(_SAMPLED.split(), _sampled),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _conv),
    **dict.fromkeys(("matmul", "mm", "bmm"), _matmul),
    **dict.fromkeys(("dropout", "feature_dropout"), _dropped),
    **dict.fromkeys(("constant_pad_nd", "pad"), _padded),
    "mul": _product,
    "multiply": _product,
    "linear": _linear,
    "addmm": _addmm,
    "batch_norm": _batch_norm,
}

COORDINATEWISE = frozenset((_MOVED + _JOINED + _POINTWISE + _POOLS + _SAMPLED).split()) | {
    "mul",
    "multiply",
    "dropout",
    "feature_dropout",
    "batch_norm",
    "constant_pad_nd",
    "pad",
}
"""Operators whose results at the coordinates of a unit are all that depends on the unit."""
