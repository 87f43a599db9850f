"""Constants through operators: what each makes of operands of which something is known.

In: an operator and known operands. Out: the known result; what is not understood is unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from planc.analysis.constants.known import Known, constant, known, masks, operands, values
from planc.analysis.constants.recurrent import RECURRENT, recurrent
from planc.rules.registry import per_dim

Operator = Callable[..., Any]
Transfer = Callable[[Operator, tuple[Any, ...], Mapping[str, Any]], Any]


def transferred(
    name: str, operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    """What an operator, by its name without overload and last ``_``, makes of known operands: a
    :class:`Known`, a tuple of them and of None, or None where nothing is known of the result.
    """
    given = operands((args, tuple(kwargs.values())))
    random = torch.Tag.nondeterministic_seeded in operator.tags  # type: ignore[attr-defined]
    if given and not random and all(operand.everywhere for operand in given):
        return _computed(operator, args, kwargs)
    if name not in _TRANSFERS:
        return None
    result = _TRANSFERS[name](operator, args, kwargs)
    lines = given and given[0].weighs and name in _LINES.split()
    if lines and isinstance(result, Known) and _as_long(result, given[0]):
        return replace(result, weighs=True)
    return result


def steady(operator: Operator, args: tuple[Any, ...]) -> bool:
    """Whether a convolution makes the same of a constant everywhere, in images of all sizes: it has
    no rim, and a transposed one lays its kernels side by side. The kernel may still have a pattern.
    """
    count = args[1].value.dim() - 2

    def each(at: int, default: int) -> tuple[int, ...]:
        return per_dim(args[at] if len(args) > at else default, count)

    rim = () if args[4:5] == ("valid",) else (1,) if args[4:5] == ("same",) else each(4, 0)
    if any(rim):
        return False
    if "transpose" not in str(operator):
        return True
    apart = each(3, 1) == tuple(args[1].value.shape[2:])
    return apart and not any(each(5, 0)) and each(7, 1) == (1,) * count


def _computed(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """What is made of constants alone is one."""
    result = operator(*values(args), **{name: values(arg) for name, arg in kwargs.items()})
    if isinstance(result, Tensor):
        return constant(result)
    if isinstance(result, tuple | list):
        return tuple(constant(r) if isinstance(r, Tensor) else None for r in result)
    return None


def _as_long(result: Known, operand: Known) -> bool:
    """Whether lines along the last dimension are still those of the operand."""
    return result.value.shape[-1:] == operand.value.shape[-1:]


# -- coordinates -----------------------------------------------------------------------------------


def _moved(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Coordinates move: the mask moves with them."""
    rest = values(args[1:])
    if any(not operand.everywhere for operand in _positions(args[1:])):
        return None
    value = operator(values(args[0]), *rest, **kwargs)
    moved = operator(masks(args[0]), *rest, **kwargs)
    if isinstance(value, Tensor):
        return Known(value, moved > 0.5)
    return tuple(Known(v, m > 0.5) for v, m in zip(value, moved, strict=True))


def _positions(args: tuple[Any, ...]) -> list[Known]:
    """The operands that say where, not what."""
    return [operand for operand in operands(args) if not operand.value.is_floating_point()]


def _dropped(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Dropout, which does nothing where it is not training."""
    return args[0] if args[2:] == (False,) and not kwargs else None


def _padded(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Known | None:
    """What is padded with a constant is known there."""
    x, widths, *rest = args
    if kwargs or (operator is torch.ops.aten.pad.default and rest[:1] not in ([], ["constant"])):
        return None
    where = torch.nn.functional.pad(x.known.float(), widths, value=1.0) > 0.5
    return known(operator(*values(args)), where)


def _picked(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Known | None:
    """Coordinates picked by positions; where these are not known, by what is the same at all."""
    x, *others = args
    positions = values(tuple(others))
    if not all(operand.everywhere for operand in operands(tuple(others))):
        given = others[0]
        if not isinstance(given, tuple):
            given = (*(None,) * (given % x.value.dim()), others[1])
        if any(at is not None and at.value.dtype == torch.bool for at in given):
            return None  # how many it picks is not known
        for dim, at in enumerate(given):
            if at is not None:
                same, value = _alike(x, dim)
                x = Known(value.expand_as(x.value), same.expand_as(x.known))
    picked = operator(x.value, *positions, **kwargs)
    return Known(picked, operator(x.known.float(), *positions, **kwargs) > 0.5)


def _embedding(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Known:
    """Rows of a table: a feature is known where it is the same in all of them."""
    table = args[0]
    same, value = _alike(table, 0)
    shape = operator(*values(args), **kwargs)
    return known(value.expand_as(shape), same.expand_as(shape))


def _alike(x: Known, dim: int) -> tuple[Tensor, Tensor]:
    """Where all coordinates along a dimension are known to be the same one, and which."""
    if not x.value.shape[dim]:
        none = x.known.sum(dim, keepdim=True)
        return none > 0, none.to(x.value.dtype)
    first = x.value.narrow(dim, 0, 1)
    return (x.known & (x.value == first)).all(dim, keepdim=True), first


# -- elementwise -----------------------------------------------------------------------------------


def _pointwise(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Known:
    """A coordinate of the result is made of the same coordinate of each operand."""
    value = operator(*values(args), **{name: values(arg) for name, arg in kwargs.items()})
    where = torch.ones((), dtype=torch.bool, device=value.device)
    for operand in operands((args, tuple(kwargs.values()))):
        where = where & operand.known
    return known(value, where)


def _converted(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Known:
    """As the other operand's type, of which nothing else counts."""
    return known(operator(*values(args), **kwargs), args[0].known)


def _product(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Known:
    """Pointwise, and zero where a factor is zero."""
    result = _pointwise(operator, args, kwargs)
    zero = torch.zeros((), dtype=torch.bool, device=result.value.device)
    for operand in args:
        if isinstance(operand, Known):
            zero = zero | ~operand.maybe
        elif operand == 0:
            zero = ~zero
    return known(result.value, result.known | zero)


def _chosen(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Known | None:
    """where(condition, a, b): known where the two are the same, too."""
    if len(args) != 3:
        return None
    result = _pointwise(operator, args, kwargs)
    pair = [_operand(arg, result.value) for arg in args[1:]]
    same = pair[0].known & pair[1].known & (pair[0].value == pair[1].value)
    return known(torch.where(same, pair[0].value, result.value), result.known | same)


def _filled(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Known:
    """masked_fill(x, mask, value): known where the two are the same, too."""
    result = _pointwise(operator, args, kwargs)
    x, filling = args[0], _operand(args[2], result.value)
    same = x.known & filling.known & (x.value == filling.value)
    return known(torch.where(same, x.value, result.value), result.known | same)


def _operand(argument: Any, like: Tensor) -> Known:
    """A number as a tensor."""
    return argument if isinstance(argument, Known) else constant(like.new_tensor(argument))


def _gated(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Known:
    """glu: one half times the sigmoid of the other."""
    x, dim = args[0], (*args, kwargs.get("dim", -1))[1]
    taken, gate = x.known.chunk(2, dim)
    zero = ~x.maybe.chunk(2, dim)[0]
    return known(operator(*values(args), **kwargs), (taken & gate) | zero)


# -- windows ---------------------------------------------------------------------------------------


def _pooled(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Known | None:
    """A coordinate of the result is made of a window: known where the window is."""
    value = operator(*values(args), **kwargs)
    x = args[0]
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return None
    where = operator((~x.known).to(x.value.dtype), *values(args[1:]), **kwargs) == 0
    padding = args[3:4] if "avg_pool" in str(operator) and len(args) > 3 else ()
    if any(n != 0 for n in np.ravel(padding)):  # a constant is another at the rim, see _conv
        where = where & (value == 0)
    return known(value, where)


def _sampled(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Known | None:
    """Interpolation, whose weights may be negative: known where all of a channel is."""
    value = operator(*values(args), **kwargs)
    where = args[0].known.flatten(2).all(dim=2)
    return known(value, where.reshape(*where.shape, *(1,) * (value.dim() - 2)))


# -- products --------------------------------------------------------------------------------------


def _linear(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Known:
    """x @ weight.T + bias."""
    x, weight, bias = (*args, None)[:3]
    where = _terms(lambda a, b: operator(a, b), x, weight)
    value = operator(*values(args), **kwargs)
    return known(value, where if bias is None else where & bias.known)


def _conv(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Known | None:
    """A convolution, transposed or not. What a constant makes at the rim depends on how far it is
    away, in images of other sizes elsewhere: there only zeros count as known.
    """
    x, weight, bias, *rest = (*args, None)[: max(3, len(args))]

    def product(a: Tensor, b: Tensor) -> Tensor:
        return operator(a, b, None, *rest, **kwargs)  # type: ignore[no-any-return]

    if kwargs:
        return None
    if steady(operator, args):
        where = _terms(product, x, weight)
    else:
        where = product(x.maybe.float(), weight.maybe.float()) < 0.5
    if bias is not None:
        where = where & bias.known.reshape(-1, *(1,) * (weight.value.dim() - 2))
    return known(operator(*values(args)), where)


def _matmul(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Known:
    """left @ right."""
    left, right = args
    where, value = _terms(operator, *args), operator(*values(args))
    if (
        left.weighs and min(left.value.dim(), right.value.dim()) > 1
    ):  # a mean of what is the same everywhere
        same, of = _alike(right, -2)
        value = torch.where(same, of, value)
        where = where | same
    return known(value, where)


def _addmm(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Known:
    """added + left @ right."""
    added, left, right = args
    where = _terms(torch.matmul, left, right) & added.known
    return known(operator(*values(args), **kwargs), where)


def _grouped(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Known | None:
    """Rows times one of several matrices each: zero where every term is, whichever it is."""
    x, matrices, *rest = args
    biased = bool(rest[1:]) or kwargs.get("bias") is not None
    if biased or (x.value.dim(), matrices.value.dim()) != (2, 3):
        return None
    where = x.maybe.float() @ matrices.maybe.any(dim=0).float() < 0.5
    return known(x.value.new_zeros(where.shape), where)


def _einsum(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Known | None:
    """A contraction; of more than two operands only zeros are known."""
    equation, factors = args[:2]
    if args[2:] or kwargs:
        return None
    if len(factors) == 2:
        where = _terms(lambda a, b: operator(equation, (a, b)), *factors)
    else:
        where = operator(equation, [factor.maybe.float() for factor in factors]) < 0.5
    return known(operator(equation, values(factors)), where)


def _bilinear(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Known:
    """x weight other + bias: the bias where every term is zero."""
    bias = (*args, None)[3]
    where = operator(*(factor.maybe.float() for factor in args[:3]), None) < 0.5
    return known(operator(*values(args)), where if bias is None else where & bias.known)


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


def _attention(
    operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Known | None:
    """Means of the values at all positions: of a feature that is the same at all, that one.
    Where a mask hides every position the mean is zero.
    """
    value = args[2]
    mask = args[3] if len(args) > 3 else kwargs.get("attn_mask")
    dropped = args[4] if len(args) > 4 else kwargs.get("dropout_p", 0.0)
    if dropped:
        return None
    same, of = _alike(value, -2)
    if mask is not None:
        same = same & (of == 0)
    query = args[0].value
    if kwargs.get("enable_gqa", False):
        times = query.shape[-3] // value.value.shape[-3]
        same, of = (t.repeat_interleave(times, -3) for t in (same, of))
    lines = query[..., :1].new_zeros(()).expand(*query.shape[:-1], 1)
    of = of + lines
    return known(of, same.expand(of.shape))


# -- normalisations --------------------------------------------------------------------------------


def _batch_norm(
    operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Known | None:
    """By running statistics a channel is scaled and shifted; a scale of zero leaves the shift."""
    x, weight, bias, mean, var, training, *_ = args
    if training is not False or mean is None or kwargs:
        return None
    shape = (-1, *(1,) * (x.value.dim() - 2))
    where = x.known
    if weight is not None:
        where = where | ~weight.maybe.reshape(shape)
    for vector in (weight, bias, mean, var):
        if vector is not None:
            where = where & vector.known.reshape(shape)
    return known(operator(*values(args)), where)


def _layer_norm(
    operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Known | None:
    """Known where the whole line is; a scale of zero leaves the shift."""
    x, shape, weight, bias = (*args, None, None)[:4]
    if kwargs:
        return None
    if operator.name().endswith("rms_norm"):  # type: ignore[attr-defined]
        bias = None
    where = x.known.flatten(-len(shape)).all(dim=-1)
    where = where.reshape(*where.shape, *(1,) * len(shape))
    return known(operator(*values(args)), _scaled(where.expand(x.known.shape), weight, bias))


def _group_norm(
    operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Known | None:
    """A scale of zero leaves the shift."""
    x, _, weight, bias = (*args, None, None)[:4]
    if kwargs or weight is None:
        return None
    shape = (-1, *(1,) * (x.value.dim() - 2))
    vectors = [
        None if vector is None else Known(vector.value.reshape(shape), vector.known.reshape(shape))
        for vector in (weight, bias)
    ]
    return known(operator(*values(args)), _scaled(torch.zeros_like(x.known), *vectors))


def _scaled(where: Tensor, weight: Known | None, bias: Known | None) -> Tensor:
    """Where a normalised value that is known in places is known after its scale and shift."""
    if weight is not None:
        where = (where & weight.known) | ~weight.maybe
    return where if bias is None else where & bias.known


def _softmax(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Known:
    """Each line sums to one, whatever its values are."""
    x, dim = args[:2]
    last = dim in (-1, x.value.dim() - 1)
    value = operator(*values(args), **kwargs)
    return replace(known(value, x.known.all(dim=dim, keepdim=True)), weighs=last)


def _recurrent(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Hidden units whose state starts and stays at zero."""
    layers = recurrent(str(operator), args) if not kwargs else None
    return None if layers is None else layers.results()


def _zeros(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Known:
    """A new tensor whose content is no number that may be a size."""
    return constant(operator(*values(args), **kwargs))


_LINES = """
    alias clone contiguous detach dropout expand reshape to type_as unsqueeze view _to_copy
    _unsafe_view
"""
_MOVED = """
    adjoint alias broadcast_to channel_shuffle chunk clone contiguous detach expand expand_as
    flatten flip matrix_H movedim moveaxis mH mT narrow numpy_T permute pixel_shuffle
    pixel_unshuffle ravel repeat repeat_interleave reshape roll select slice split
    split_with_sizes squeeze swapaxes swapdims t tensor_split tile transpose unbind unflatten
    unsafe_chunk unsafe_split unsqueeze view view_as _unsafe_view
    cat concat concatenate stack hstack vstack
"""
_POINTWISE = """
    abs add addcmul atan ceil celu clamp clamp_max clamp_min cos div divide elu erf exp expm1 floor
    gelu hardshrink hardsigmoid hardswish hardtanh leaky_relu lerp log1p maximum minimum mish neg
    negative pow reciprocal relu relu6 round rsqrt rsub selu sigmoid sign silu sin softplus
    softshrink softsign sqrt square sub tanh threshold to _to_copy
    eq ne lt le gt ge logical_and logical_not logical_or
"""
_POOLS = " ".join(f"{kind}_pool{d}d" for kind in ("max", "avg", "adaptive_avg") for d in (1, 2, 3))
_SAMPLED = "upsample_nearest2d upsample_bilinear2d upsample_bicubic2d _upsample_nearest_exact2d"
_CONVS = " ".join(f"conv{kind}{d}d" for kind in ("", "_transpose") for d in (1, 2, 3))
_TRANSFERS: dict[str, Transfer] = {
    **dict.fromkeys(_MOVED.split(), _moved),
    **dict.fromkeys(_POINTWISE.split(), _pointwise),
    **dict.fromkeys(_POOLS.split(), _pooled),
    **dict.fromkeys(("sum", "mean"), _pooled),
    **dict.fromkeys(_SAMPLED.split(), _sampled),
    **dict.fromkeys(_CONVS.split(), _conv),
    **dict.fromkeys(("matmul", "mm", "bmm"), _matmul),
    **dict.fromkeys(("dropout", "feature_dropout"), _dropped),
    **dict.fromkeys(("constant_pad_nd", "pad"), _padded),
    **dict.fromkeys(("mul", "multiply"), _product),
    **dict.fromkeys(("layer_norm", "rms_norm"), _layer_norm),
    **dict.fromkeys(("softmax", "_softmax", "special_softmax"), _softmax),
    **dict.fromkeys(RECURRENT, _recurrent),
    **dict.fromkeys(["zeros", "zeros_like", "new_zeros", "ones", "ones_like", "new_ones"], _zeros),
    "linear": _linear,
    "addmm": _addmm,
    "_grouped_mm": _grouped,
    "einsum": _einsum,
    "bilinear": _bilinear,
    "scaled_dot_product_attention": _attention,
    "batch_norm": _batch_norm,
    "group_norm": _group_norm,
    "embedding": _embedding,
    **dict.fromkeys(("index", "index_select", "gather"), _picked),
    "type_as": _converted,
    "where": _chosen,
    "masked_fill": _filled,
    "glu": _gated,
}
