"""Known values through contractions with weights, attention, normalisations and recurrence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from planc.analysis.constants.calls import Call, Operator, alike, transfers
from planc.analysis.constants.known import Known, known, values
from planc.analysis.constants.recurrent import RECURRENT, recurrent
from planc.rules.common import per_dim
from planc.rules.contractions import CONVOLUTIONS


@transfers("linear")
def _linear(call: Call) -> Known:
    """x @ weight.T + bias."""
    x, weight, bias = (*call.args, None)[:3]
    where = _terms(lambda a, b: call.operator(a, b), x, weight)
    value = call.value()
    return known(value, where if bias is None else where & bias.known)


@transfers(*CONVOLUTIONS)
def _conv(call: Call) -> Known | None:
    """A convolution, transposed or not. Near the rim a constant gives values that depend on the
    image size, so only zeros count as known there.
    """
    x, weight, bias, *rest = (*call.args, None)[: max(3, len(call.args))]

    def product(a: Tensor, b: Tensor) -> Tensor:
        return call.operator(a, b, None, *rest, **call.kwargs)  # type: ignore[no-any-return]

    if call.kwargs:
        return None
    if steady(call.operator, call.args):
        where = _terms(product, x, weight)
    else:
        where = product(x.maybe.float(), weight.maybe.float()) < 0.5
    if bias is not None:
        where = where & bias.known.reshape(-1, *(1,) * (weight.value.dim() - 2))
    return known(call.value(), where)


@transfers("matmul mm bmm")
def _matmul(call: Call) -> Known:
    """left @ right."""
    left, right = call.args
    where, value = _terms(call.operator, *call.args), call.value()
    # a weighted mean of equal values
    if left.weighs and min(left.value.dim(), right.value.dim()) > 1:
        same, of = alike(right, -2)
        value = torch.where(same, of, value)
        where = where | same
    return known(value, where)


@transfers("addmm")
def _addmm(call: Call) -> Known:
    """added + left @ right."""
    added, left, right = call.args
    where = _terms(torch.matmul, left, right) & added.known
    return known(call.value(), where)


@transfers("_grouped_mm")
def _grouped(call: Call) -> Known | None:
    """Rows times one of several matrices each: zero where every term is, for every choice."""
    x, matrices, *rest = call.args
    biased = bool(rest[1:]) or call.kwargs.get("bias") is not None
    if biased or (x.value.dim(), matrices.value.dim()) != (2, 3):
        return None
    where = x.maybe.float() @ matrices.maybe.any(dim=0).float() < 0.5
    return known(x.value.new_zeros(where.shape), where)


@transfers("einsum")
def _einsum(call: Call) -> Known | None:
    """A contraction; of more than two operands only zeros are known."""
    equation, factors = call.args[:2]
    if call.args[2:] or call.kwargs:
        return None
    if len(factors) == 2:
        where = _terms(lambda a, b: call.operator(equation, (a, b)), *factors)
    else:
        where = call.operator(equation, [factor.maybe.float() for factor in factors]) < 0.5
    return known(call.operator(equation, values(factors)), where)


@transfers("bilinear")
def _bilinear(call: Call) -> Known:
    """x weight other + bias: the bias where every term is zero."""
    bias = (*call.args, None)[3]
    where = call.operator(*(factor.maybe.float() for factor in call.args[:3]), None) < 0.5
    return known(call.value(), where if bias is None else where & bias.known)


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


@transfers("scaled_dot_product_attention")
def _attention(call: Call) -> Known | None:
    """Means of the values at all positions: known for a feature equal at all of them. Where a mask
    hides every position the mean is zero.
    """
    value = call.args[2]
    mask = call.args[3] if len(call.args) > 3 else call.kwargs.get("attn_mask")
    dropped = call.args[4] if len(call.args) > 4 else call.kwargs.get("dropout_p", 0.0)
    if dropped:
        return None
    same, of = alike(value, -2)
    if mask is not None:
        same = same & (of == 0)
    query = call.args[0].value
    if call.kwargs.get("enable_gqa", False):
        times = query.shape[-3] // value.value.shape[-3]
        same, of = (t.repeat_interleave(times, -3) for t in (same, of))
    lines = query[..., :1].new_zeros(()).expand(*query.shape[:-1], 1)
    of = of + lines
    return known(of, same.expand(of.shape))


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


# -- normalisations --------------------------------------------------------------------------------


@transfers("batch_norm")
def _batch_norm(call: Call) -> Known | None:
    """Running statistics scale and shift a channel; a scale of zero leaves the shift."""
    x, weight, bias, mean, var, training, *_ = call.args
    if training is not False or mean is None or call.kwargs:
        return None
    shape = (-1, *(1,) * (x.value.dim() - 2))
    where = x.known
    if weight is not None:
        where = where | ~weight.maybe.reshape(shape)
    for vector in (weight, bias, mean, var):
        if vector is not None:
            where = where & vector.known.reshape(shape)
    return known(call.value(), where)


@transfers("layer_norm rms_norm")
def _layer_norm(call: Call) -> Known | None:
    """Known where the whole line is; a scale of zero leaves the shift."""
    x, shape, weight, bias = (*call.args, None, None)[:4]
    if call.kwargs:
        return None
    if call.operator.name().endswith("rms_norm"):  # type: ignore[attr-defined]
        bias = None
    where = x.known.flatten(-len(shape)).all(dim=-1)
    where = where.reshape(*where.shape, *(1,) * len(shape))
    return known(call.value(), _scaled(where.expand(x.known.shape), weight, bias))


@transfers("group_norm instance_norm")
def _group_norm(call: Call) -> Known | None:
    """A scale of zero leaves the shift."""
    at = 2 if call.operator.name().endswith("group_norm") else 1  # type: ignore[attr-defined]
    x, (weight, bias) = call.args[0], (*call.args, None, None)[at : at + 2]
    if call.kwargs or weight is None:
        return None
    shape = (-1, *(1,) * (x.value.dim() - 2))
    vectors = [
        None if vector is None else Known(vector.value.reshape(shape), vector.known.reshape(shape))
        for vector in (weight, bias)
    ]
    return known(call.value(), _scaled(torch.zeros_like(x.known), *vectors))


def _scaled(where: Tensor, weight: Known | None, bias: Known | None) -> Tensor:
    """Mask of a normalised value known at ``where``, after its scale and shift."""
    if weight is not None:
        where = (where & weight.known) | ~weight.maybe
    return where if bias is None else where & bias.known


@transfers("softmax _softmax special_softmax")
def _softmax(call: Call) -> Known:
    """Each line sums to one for all values."""
    x, dim = call.args[:2]
    last = dim in (-1, x.value.dim() - 1)
    value = call.value()
    return replace(known(value, x.known.all(dim=dim, keepdim=True)), weighs=last)


@transfers(*RECURRENT)
def _recurrent(call: Call) -> Any:
    """Hidden units with a state that starts and stays at zero."""
    layers = recurrent(str(call.operator), call.args) if not call.kwargs else None
    return None if layers is None else layers.results()
