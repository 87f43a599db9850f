"""Known values through operators that move coordinates or go element by element, and windows."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from planc.analysis.constants.calls import Call, alike, transfers
from planc.analysis.constants.known import Known, constant, known, masks, operands, values

_MOVES = """
    adjoint alias broadcast_to channel_shuffle chunk clone contiguous detach expand expand_as
    flatten flip matrix_H movedim moveaxis mH mT narrow numpy_T permute pixel_shuffle
    pixel_unshuffle ravel repeat repeat_interleave reshape roll select slice split
    split_with_sizes squeeze swapaxes swapdims t tensor_split tile transpose unbind unflatten
    unsafe_chunk unsafe_split unsqueeze view view_as _unsafe_view
"""
MOVES = tuple(_MOVES.split())


@transfers(*MOVES, "cat concat concatenate stack hstack vstack")
def _moved(call: Call) -> Any:
    """Coordinates move: the mask moves with them."""
    rest = values(call.args[1:])
    if any(not operand.everywhere for operand in _positions(call.args[1:])):
        return None
    value = call.operator(values(call.args[0]), *rest, **call.kwargs)
    moved = call.operator(masks(call.args[0]), *rest, **call.kwargs)
    if isinstance(value, Tensor):
        return Known(value, moved > 0.5)
    return tuple(Known(v, m > 0.5) for v, m in zip(value, moved, strict=True))


@transfers("view_as_complex")
def _paired(call: Call) -> Known:
    """A complex number is known where both of its parts are."""
    return Known(call.value(), call.args[0].known.all(dim=-1))


@transfers("view_as_real")
def _parts(call: Call) -> Known:
    value = call.value()
    return known(value, call.args[0].known[..., None])


def _positions(args: tuple[Any, ...]) -> list[Known]:
    """Integer operands, read as positions."""
    return [operand for operand in operands(args) if not operand.value.is_floating_point()]


@transfers("dropout feature_dropout")
def _dropped(call: Call) -> Any:
    """Dropout outside training: the identity."""
    return call.args[0] if call.args[2:] == (False,) and not call.kwargs else None


@transfers("constant_pad_nd pad")
def _padded(call: Call) -> Known | None:
    """Constant padding: known at the rim."""
    x, widths, *rest = call.args
    if call.kwargs or (
        call.operator is torch.ops.aten.pad.default and rest[:1] not in ([], ["constant"])
    ):
        return None
    where = torch.nn.functional.pad(x.known.float(), widths, value=1.0) > 0.5
    return known(call.value(), where)


@transfers("index index_select gather")
def _picked(call: Call) -> Known | None:
    """Coordinates selected by positions. For unknown positions, known where all candidates are
    equal.
    """
    x, *others = call.args
    positions = values(tuple(others))
    if not all(operand.everywhere for operand in operands(tuple(others))):
        given = others[0]
        if not isinstance(given, tuple):
            given = (*(None,) * (given % x.value.dim()), others[1])
        if any(at is not None and at.value.dtype == torch.bool for at in given):
            return None  # the number of selected elements is unknown
        for dim, at in enumerate(given):
            if at is not None:
                same, value = alike(x, dim)
                x = Known(value.expand_as(x.value), same.expand_as(x.known))
    picked = call.operator(x.value, *positions, **call.kwargs)
    return Known(picked, call.operator(x.known.float(), *positions, **call.kwargs) > 0.5)


@transfers("embedding")
def _embedding(call: Call) -> Known:
    """Rows of a table: a feature is known where it is the same in all of them."""
    table = call.args[0]
    same, value = alike(table, 0)
    shape = call.value()
    return known(value.expand_as(shape), same.expand_as(shape))


@transfers("zero zeros zeros_like new_zeros ones ones_like new_ones")
def _zeros(call: Call) -> Known:
    """Constant content, independent of sizes used as numbers."""
    return constant(call.value())


# -- elementwise -----------------------------------------------------------------------------------


@transfers("divide hardswish negative rsub softsign subtract to _to_copy")
def pointwise(call: Call) -> Any:
    """A coordinate of the result depends on the same coordinate of each operand."""
    value = call.value()
    if not isinstance(value, Tensor):
        return None
    where = torch.ones((), dtype=torch.bool, device=value.device)
    for operand in operands((call.args, tuple(call.kwargs.values()))):
        where = where & operand.known
    return known(value, where)


@transfers("copy")
def _overwritten(call: Call) -> Known:
    """The content of the second operand."""
    return known(call.value(), call.args[1].known)


@transfers("type_as")
def _converted(call: Call) -> Known:
    """The first operand in the type of the second."""
    return known(call.value(), call.args[0].known)


@transfers("mul multiply")
def _product(call: Call) -> Known:
    """Pointwise, and zero where a factor is zero."""
    result = pointwise(call)
    zero = torch.zeros((), dtype=torch.bool, device=result.value.device)
    for operand in call.args:
        if isinstance(operand, Known):
            zero = zero | ~operand.maybe
        elif operand == 0:
            zero = ~zero
    return known(result.value, result.known | zero)


@transfers("where")
def _chosen(call: Call) -> Known | None:
    """where(condition, a, b): also known where both are equal."""
    if len(call.args) != 3:
        return None
    result = pointwise(call)
    pair = [_operand(arg, result.value) for arg in call.args[1:]]
    same = pair[0].known & pair[1].known & (pair[0].value == pair[1].value)
    return known(torch.where(same, pair[0].value, result.value), result.known | same)


@transfers("masked_fill")
def _filled(call: Call) -> Known:
    """masked_fill(x, mask, value): also known where both are equal."""
    result = pointwise(call)
    x, filling = call.args[0], _operand(call.args[2], result.value)
    same = x.known & filling.known & (x.value == filling.value)
    return known(torch.where(same, x.value, result.value), result.known | same)


def _operand(argument: Any, like: Tensor) -> Known:
    """A number as a tensor."""
    return argument if isinstance(argument, Known) else constant(like.new_tensor(argument))


@transfers("glu")
def _gated(call: Call) -> Known:
    """glu: one half times the sigmoid of the other."""
    x, dim = call.args[0], (*call.args, call.kwargs.get("dim", -1))[1]
    taken, gate = x.known.chunk(2, dim)
    zero = ~x.maybe.chunk(2, dim)[0]
    return known(call.value(), (taken & gate) | zero)


# -- windows ---------------------------------------------------------------------------------------


@transfers(
    "sum mean", *(f"{kind}_pool{d}d" for kind in ("max", "avg", "adaptive_avg") for d in (1, 2, 3))
)
def _pooled(call: Call) -> Known | None:
    """A coordinate of the result depends on a window: known where the window is."""
    value = call.value()
    x = call.args[0]
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return None
    where = call.operator((~x.known).to(x.value.dtype), *values(call.args[1:]), **call.kwargs) == 0
    padding = call.args[3:4] if "avg_pool" in str(call.operator) and len(call.args) > 3 else ()
    if any(n != 0 for n in np.ravel(padding)):  # constants change at the rim, see _conv
        where = where & (value == 0)
    return known(value, where)


@transfers("upsample_nearest2d upsample_bilinear2d upsample_bicubic2d _upsample_nearest_exact2d")
def _sampled(call: Call) -> Known | None:
    """Interpolation, possibly with negative weights: known where a whole channel is."""
    value = call.value()
    where = call.args[0].known.flatten(2).all(dim=2)
    return known(value, where.reshape(*where.shape, *(1,) * (value.dim() - 2)))
