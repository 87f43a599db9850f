"""Convolutions of every kind: one contraction over channels, done on (groups, channels in each)."""

from __future__ import annotations

from typing import Any

from planc.facts import Facts
from planc.labels import Labelled, contract, even, reshape, unify
from planc.rules.registry import pin_dims, rule, vector


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
    return _convolution(cx, x, weight, bias, groups, transposed=False)


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
    return _convolution(cx, x, weight, bias, groups, transposed=True)


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
    return _convolution(cx, x, weight, bias, groups, transposed)


def _convolution(
    cx: Facts,
    x: Labelled,
    weight: Labelled,
    bias: Labelled | None,
    groups: int,
    transposed: bool,
) -> Labelled:
    spatial = weight.rank - 2
    batched = x.rank == weight.rank
    channel = x.rank - spatial - 1
    x = pin_dims(cx, x, range(channel + 1, x.rank), "a spatial dimension of a convolution")
    x = even(cx, x, range(channel + 1, x.rank))
    weight = pin_dims(cx, weight, range(2, weight.rank), "a kernel dimension of a convolution")
    weight = even(cx, weight, range(2, weight.rank))
    plane = x.shape if transposed else cx.shape
    factor = 1
    for n in (*weight.shape[2:], *plane[channel + 1 :]):
        factor *= n
    batch = [(x, 0)] if batched else []
    cx.cost(factor, *batch, (weight, 0), (weight, 1))
    flat = Labelled((*x.shape[: channel + 1], *(1,) * spatial), x.layers)
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
    ones = x.shape[at + 1 :]
    apart = (*x.shape[:at], groups, x.shape[at] // groups, *ones)
    x = reshape(cx, x, apart)
    cx.demand("groups", None, x, at)
    rows = weight.shape[0] // groups
    weight = reshape(cx, weight, (groups, rows, weight.shape[1], *weight.shape[2:]))
    dims = ("gio" if transposed else "goi") + tail
    y = contract(cx, x, lead + "gi" + tail, weight, dims, lead + "go" + tail)
    cx.tag(y.targeting(at), "groups")
    return reshape(cx, y, (*y.shape[:at], y.shape[at] * y.shape[at + 1], *ones))
