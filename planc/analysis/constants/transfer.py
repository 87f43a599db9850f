"""Propagation of known values through operators.

:func:`transferred` maps an operator and its known operands to the known result; operators without a
transfer function give an unknown result.
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
from planc.rules.common import per_dim
from planc.rules.contractions import CONVOLUTIONS

Operator = Callable[..., Any]
Transfer = Callable[[Operator, tuple[Any, ...], Mapping[str, Any]], Any]
_TRANSFERS: dict[str, Transfer] = {}
_LINES = """
    alias clone contiguous detach dropout expand reshape to type_as unsqueeze view _to_copy
    _unsafe_view
"""


def _transfers(*names: str) -> Callable[[Transfer], Transfer]:
    """Register a transfer function for operators, named without overload."""

    def register(transfer: Transfer) -> Transfer:
        _TRANSFERS.update(dict.fromkeys(" ".join(names).split(), transfer))
        return transfer

    return register


def transferred(
    name: str, operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    """The known result of an operator, named without overload and trailing ``_``: a :class:`Known`,
    a tuple of them and of None, or None if nothing is known.
    """
    given = operands((args, tuple(kwargs.values())))
    random = torch.Tag.nondeterministic_seeded in operator.tags  # type: ignore[attr-defined]
    if given and not random and all(operand.everywhere for operand in given):
        return _computed(operator, args, kwargs)
    pointwise = torch.Tag.pointwise in operator.tags and not random  # type: ignore[attr-defined]
    transfer = _TRANSFERS.get(name, _pointwise if pointwise else None)
    if transfer is None:
        return None
    result = transfer(operator, args, kwargs)
    lines = given and given[0].weighs and name in _LINES.split()
    if lines and isinstance(result, Known) and _as_long(result, given[0]):
        return replace(result, weighs=True)
    return result


def steady(operator: Operator, args: tuple[Any, ...]) -> bool:
    """True if a convolution maps a constant to the same values everywhere, in images of all sizes:
    it has no rim, and a transposed one places its kernels side by side. The kernel may still have a
    pattern.
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
    """The result of constants alone, a constant."""
    result = operator(*values(args), **{name: values(arg) for name, arg in kwargs.items()})
    if isinstance(result, Tensor):
        return constant(result)
    if isinstance(result, tuple | list):
        return tuple(constant(r) if isinstance(r, Tensor) else None for r in result)
    return None


def _as_long(result: Known, operand: Known) -> bool:
    """True if the result has the operand's size along the last dimension."""
    return result.value.shape[-1:] == operand.value.shape[-1:]


# -- coordinates -----------------------------------------------------------------------------------


_MOVES = """
    adjoint alias broadcast_to channel_shuffle chunk clone contiguous detach expand expand_as
    flatten flip matrix_H movedim moveaxis mH mT narrow numpy_T permute pixel_shuffle
    pixel_unshuffle ravel repeat repeat_interleave reshape roll select slice split
    split_with_sizes squeeze swapaxes swapdims t tensor_split tile transpose unbind unflatten
    unsafe_chunk unsafe_split unsqueeze view view_as _unsafe_view
"""
MOVES = tuple(_MOVES.split())


@_transfers(*MOVES, "cat concat concatenate stack hstack vstack")
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


@_transfers("view_as_complex")
def _paired(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Known:
    """A complex number is known where both of its parts are."""
    return Known(operator(*values(args)), args[0].known.all(dim=-1))


@_transfers("view_as_real")
def _parts(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Known:
    value = operator(*values(args))
    return known(value, args[0].known[..., None])


def _positions(args: tuple[Any, ...]) -> list[Known]:
    """Integer operands, read as positions."""
    return [operand for operand in operands(args) if not operand.value.is_floating_point()]


@_transfers("dropout feature_dropout")
def _dropped(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Dropout outside training: the identity."""
    return args[0] if args[2:] == (False,) and not kwargs else None


@_transfers("constant_pad_nd pad")
def _padded(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Known | None:
    """Constant padding: known at the rim."""
    x, widths, *rest = args
    if kwargs or (operator is torch.ops.aten.pad.default and rest[:1] not in ([], ["constant"])):
        return None
    where = torch.nn.functional.pad(x.known.float(), widths, value=1.0) > 0.5
    return known(operator(*values(args)), where)


@_transfers("index index_select gather")
def _picked(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Known | None:
    """Coordinates selected by positions. For unknown positions, known where all candidates are
    equal.
    """
    x, *others = args
    positions = values(tuple(others))
    if not all(operand.everywhere for operand in operands(tuple(others))):
        given = others[0]
        if not isinstance(given, tuple):
            given = (*(None,) * (given % x.value.dim()), others[1])
        if any(at is not None and at.value.dtype == torch.bool for at in given):
            return None  # the number of selected elements is unknown
        for dim, at in enumerate(given):
            if at is not None:
                same, value = _alike(x, dim)
                x = Known(value.expand_as(x.value), same.expand_as(x.known))
    picked = operator(x.value, *positions, **kwargs)
    return Known(picked, operator(x.known.float(), *positions, **kwargs) > 0.5)


@_transfers("embedding")
def _embedding(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Known:
    """Rows of a table: a feature is known where it is the same in all of them."""
    table = args[0]
    same, value = _alike(table, 0)
    shape = operator(*values(args), **kwargs)
    return known(value.expand_as(shape), same.expand_as(shape))


def _alike(x: Known, dim: int) -> tuple[Tensor, Tensor]:
    """Mask of positions known to be equal along ``dim``, and their value."""
    if not x.value.shape[dim]:
        none = x.known.sum(dim, keepdim=True)
        return none > 0, none.to(x.value.dtype)
    first = x.value.narrow(dim, 0, 1)
    return (x.known & (x.value == first)).all(dim, keepdim=True), first


# -- elementwise -----------------------------------------------------------------------------------


@_transfers("divide hardswish negative rsub softsign subtract to _to_copy")
def _pointwise(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """A coordinate of the result depends on the same coordinate of each operand."""
    value = operator(*values(args), **{name: values(arg) for name, arg in kwargs.items()})
    if not isinstance(value, Tensor):
        return None
    where = torch.ones((), dtype=torch.bool, device=value.device)
    for operand in operands((args, tuple(kwargs.values()))):
        where = where & operand.known
    return known(value, where)


@_transfers("copy")
def _overwritten(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Known:
    """The content of the second operand."""
    return known(operator(*values(args)), args[1].known)


@_transfers("type_as")
def _converted(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Known:
    """The first operand in the type of the second."""
    return known(operator(*values(args), **kwargs), args[0].known)


@_transfers("mul multiply")
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


@_transfers("where")
def _chosen(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Known | None:
    """where(condition, a, b): also known where both are equal."""
    if len(args) != 3:
        return None
    result = _pointwise(operator, args, kwargs)
    pair = [_operand(arg, result.value) for arg in args[1:]]
    same = pair[0].known & pair[1].known & (pair[0].value == pair[1].value)
    return known(torch.where(same, pair[0].value, result.value), result.known | same)


@_transfers("masked_fill")
def _filled(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Known:
    """masked_fill(x, mask, value): also known where both are equal."""
    result = _pointwise(operator, args, kwargs)
    x, filling = args[0], _operand(args[2], result.value)
    same = x.known & filling.known & (x.value == filling.value)
    return known(torch.where(same, x.value, result.value), result.known | same)


def _operand(argument: Any, like: Tensor) -> Known:
    """A number as a tensor."""
    return argument if isinstance(argument, Known) else constant(like.new_tensor(argument))


@_transfers("glu")
def _gated(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Known:
    """glu: one half times the sigmoid of the other."""
    x, dim = args[0], (*args, kwargs.get("dim", -1))[1]
    taken, gate = x.known.chunk(2, dim)
    zero = ~x.maybe.chunk(2, dim)[0]
    return known(operator(*values(args), **kwargs), (taken & gate) | zero)


# -- windows ---------------------------------------------------------------------------------------


@_transfers(
    "sum mean", *(f"{kind}_pool{d}d" for kind in ("max", "avg", "adaptive_avg") for d in (1, 2, 3))
)
def _pooled(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Known | None:
    """A coordinate of the result depends on a window: known where the window is."""
    value = operator(*values(args), **kwargs)
    x = args[0]
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return None
    where = operator((~x.known).to(x.value.dtype), *values(args[1:]), **kwargs) == 0
    padding = args[3:4] if "avg_pool" in str(operator) and len(args) > 3 else ()
    if any(n != 0 for n in np.ravel(padding)):  # constants change at the rim, see _conv
        where = where & (value == 0)
    return known(value, where)


@_transfers("upsample_nearest2d upsample_bilinear2d upsample_bicubic2d _upsample_nearest_exact2d")
def _sampled(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Known | None:
    """Interpolation, possibly with negative weights: known where a whole channel is."""
    value = operator(*values(args), **kwargs)
    where = args[0].known.flatten(2).all(dim=2)
    return known(value, where.reshape(*where.shape, *(1,) * (value.dim() - 2)))


# -- products --------------------------------------------------------------------------------------


@_transfers("linear")
def _linear(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Known:
    """x @ weight.T + bias."""
    x, weight, bias = (*args, None)[:3]
    where = _terms(lambda a, b: operator(a, b), x, weight)
    value = operator(*values(args), **kwargs)
    return known(value, where if bias is None else where & bias.known)


@_transfers(*CONVOLUTIONS)
def _conv(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Known | None:
    """A convolution, transposed or not. Near the rim a constant gives values that depend on the
    image size, so only zeros count as known there.
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


@_transfers("matmul mm bmm")
def _matmul(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Known:
    """left @ right."""
    left, right = args
    where, value = _terms(operator, *args), operator(*values(args))
    # a weighted mean of equal values
    if left.weighs and min(left.value.dim(), right.value.dim()) > 1:
        same, of = _alike(right, -2)
        value = torch.where(same, of, value)
        where = where | same
    return known(value, where)


@_transfers("addmm")
def _addmm(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Known:
    """added + left @ right."""
    added, left, right = args
    where = _terms(torch.matmul, left, right) & added.known
    return known(operator(*values(args), **kwargs), where)


@_transfers("_grouped_mm")
def _grouped(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Known | None:
    """Rows times one of several matrices each: zero where every term is, for every choice."""
    x, matrices, *rest = args
    biased = bool(rest[1:]) or kwargs.get("bias") is not None
    if biased or (x.value.dim(), matrices.value.dim()) != (2, 3):
        return None
    where = x.maybe.float() @ matrices.maybe.any(dim=0).float() < 0.5
    return known(x.value.new_zeros(where.shape), where)


@_transfers("einsum")
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


@_transfers("bilinear")
def _bilinear(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Known:
    """x weight other + bias: the bias where every term is zero."""
    bias = (*args, None)[3]
    where = operator(*(factor.maybe.float() for factor in args[:3]), None) < 0.5
    return known(operator(*values(args)), where if bias is None else where & bias.known)


def _terms(product: Callable[[Tensor, Tensor], Tensor], left: Known, right: Known) -> Tensor:
    """Mask of sums with every term known: both factors are known, or one of them is zero."""
    doubts = None
    for a, b in ((~left.known, right.maybe), (left.maybe, ~right.known)):
        if bool(a.any()) and bool(b.any()):
            count = product(a.float(), b.float())
            doubts = count if doubts is None else doubts + count
    if doubts is None:
        return torch.ones((), dtype=torch.bool, device=left.value.device)
    return doubts < 0.5  # the number of terms in doubt, up to rounding


@_transfers("scaled_dot_product_attention")
def _attention(
    operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Known | None:
    """Means of the values at all positions: known for a feature equal at all of them. Where a mask
    hides every position the mean is zero.
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


@_transfers("batch_norm")
def _batch_norm(
    operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Known | None:
    """Running statistics scale and shift a channel; a scale of zero leaves the shift."""
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


@_transfers("layer_norm rms_norm")
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


@_transfers("group_norm instance_norm")
def _group_norm(
    operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Known | None:
    """A scale of zero leaves the shift."""
    at = 2 if operator.name().endswith("group_norm") else 1  # type: ignore[attr-defined]
    x, (weight, bias) = args[0], (*args, None, None)[at : at + 2]
    if kwargs or weight is None:
        return None
    shape = (-1, *(1,) * (x.value.dim() - 2))
    vectors = [
        None if vector is None else Known(vector.value.reshape(shape), vector.known.reshape(shape))
        for vector in (weight, bias)
    ]
    return known(operator(*values(args)), _scaled(torch.zeros_like(x.known), *vectors))


def _scaled(where: Tensor, weight: Known | None, bias: Known | None) -> Tensor:
    """Mask of a normalised value known at ``where``, after its scale and shift."""
    if weight is not None:
        where = (where & weight.known) | ~weight.maybe
    return where if bias is None else where & bias.known


@_transfers("softmax _softmax special_softmax")
def _softmax(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Known:
    """Each line sums to one for all values."""
    x, dim = args[:2]
    last = dim in (-1, x.value.dim() - 1)
    value = operator(*values(args), **kwargs)
    return replace(known(value, x.known.all(dim=dim, keepdim=True)), weighs=last)


@_transfers(*RECURRENT)
def _recurrent(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Hidden units with a state that starts and stays at zero."""
    layers = recurrent(str(operator), args) if not kwargs else None
    return None if layers is None else layers.results()


@_transfers("zero zeros zeros_like new_zeros ones ones_like new_ones")
def _zeros(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Known:
    """Constant content, independent of sizes used as numbers."""
    return constant(operator(*values(args), **kwargs))
