"""Convolutions of every kind: one contraction over channels, done on (groups, channels in each)."""

from __future__ import annotations

from typing import Any

from planc.rules.labels import Labelled, contract, even, reshape, unify, volume
from planc.rules.labels.facts import Facts
from planc.rules.registry import looking_along, pin_dims, rule, vector


@rule("aten.conv1d", "aten.conv2d", "aten.conv3d")
def conv(
    cx: Facts,
    x: Labelled,
    weight: Labelled,
    bias: Labelled | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Labelled:
    """weight is [out, in / groups, *kernel]."""
    return _convolution(cx, x, weight, bias, groups, False, stride, padding)


@rule("aten.conv_transpose1d", "aten.conv_transpose2d", "aten.conv_transpose3d")
def conv_transpose(
    cx: Facts,
    x: Labelled,
    weight: Labelled,
    bias: Labelled | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Labelled:
    """weight is [in, out / groups, *kernel]."""
    return _convolution(cx, x, weight, bias, groups, True, stride, padding, output_padding)


@rule("aten.convolution", "aten._convolution")
def convolution(
    cx: Facts,
    x: Labelled,
    weight: Labelled,
    bias: Labelled | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
    *_: Any,
) -> Labelled:
    return _convolution(cx, x, weight, bias, groups, transposed, stride, padding, output_padding)


def _convolution(
    cx: Facts,
    x: Labelled,
    weight: Labelled,
    bias: Labelled | None,
    groups: int,
    transposed: bool,
    stride: Any,
    *paddings: Any,
) -> Labelled:
    spatial = weight.rank - 2
    batched = x.rank == weight.rank
    channel = x.rank - spatial - 1
    rims = (0 if isinstance(padding, str) else padding for padding in paddings)  # "same", "valid"
    slid = looking_along(channel + 1, weight.shape[2:], stride, *rims)
    x = even(cx, pin_dims(cx, x, slid, "a spatial dimension of a convolution"), slid)
    weight = pin_dims(cx, weight, range(2, weight.rank), "a kernel dimension of a convolution")
    weight = even(cx, weight, range(2, weight.rank))
    plane = x.shape if transposed else cx.shape
    factor = volume(weight.shape[2:])
    widths = [(x, 0)] if batched else []
    for dim in range(channel + 1, x.rank):
        if x.targeting(dim):
            widths.append((x, dim))
        else:
            factor *= plane[dim]
    cx.cost(factor, *widths, (weight, 0), (weight, 1))
    sizes = (1 if d in slid else x.shape[d] for d in range(channel + 1, x.rank))
    flat = Labelled((*x.shape[: channel + 1], *sizes), x.layers)
    kernel = Labelled((*weight.shape[:2], *(1,) * spatial), weight.layers)
    lead = "n" if batched else ""
    tail = "xyz"[:spatial]
    if groups == 1:
        dims = ("io" if transposed else "oi") + tail
        y = contract(cx, flat, lead + "i" + tail, kernel, dims, lead + "o" + tail)
    else:
        y = _grouped(cx, flat, kernel, groups, transposed, lead, tail)
    y = Labelled(cx.shape, y.layers)
    cx.tag([*x.targeting(channel), *y.targeting(channel)], "channels")
    return y if bias is None else unify(cx, y, vector(bias, channel, y.rank), "add")


def _grouped(
    cx: Facts,
    x: Labelled,
    weight: Labelled,
    groups: int,
    transposed: bool,
    lead: str,
    tail: str,
) -> Labelled:
    inner, outer = weight.finest(1), weight.finest(0)
    if inner is not None and outer is not None and not inner.ragged:
        cx.request_ragged(inner, outer, groups)
    at = len(lead)
    plane = x.shape[at + 1 :]
    apart = (*x.shape[:at], groups, x.shape[at] // groups, *plane)
    x = reshape(cx, x, apart)
    cx.demand("groups", None, x, at)
    rows = weight.shape[0] // groups
    weight = reshape(cx, weight, (groups, rows, weight.shape[1], *weight.shape[2:]))
    dims = ("gio" if transposed else "goi") + tail
    y = contract(cx, x, lead + "gi" + tail, weight, dims, lead + "go" + tail)
    cx.tag(y.targeting(at), "groups")
    return reshape(cx, y, (*y.shape[:at], y.shape[at] * y.shape[at + 1], *plane))
