"""Convolutions of every kind: one contraction over channels, on (groups, channels per group)."""

from __future__ import annotations

from typing import Any

from planc.rules.common import looking_along, pin_dims, vector
from planc.rules.labels import Labelled, contract, even, reshape, unify, volume
from planc.rules.labels.facts import Facts
from planc.rules.registry import rule


@rule("aten.conv1d", "aten.conv2d", "aten.conv3d")
def conv(
    facts: Facts,
    x: Labelled,
    weight: Labelled,
    bias: Labelled | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Labelled:
    """Convolution with a weight of shape [out, in / groups, *kernel]."""
    return _convolution(facts, x, weight, bias, groups, False, stride, padding)


@rule("aten.conv_transpose1d", "aten.conv_transpose2d", "aten.conv_transpose3d")
def conv_transpose(
    facts: Facts,
    x: Labelled,
    weight: Labelled,
    bias: Labelled | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Labelled:
    """Transposed convolution with a weight of shape [in, out / groups, *kernel]."""
    return _convolution(facts, x, weight, bias, groups, True, stride, padding, output_padding)


@rule("aten.convolution", "aten._convolution")
def convolution(
    facts: Facts,
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
    return _convolution(facts, x, weight, bias, groups, transposed, stride, padding, output_padding)


@rule("torchvision.deform_conv2d")
def deform_conv(
    facts: Facts,
    x: Labelled,
    weight: Labelled,
    offset: Labelled,
    mask: Labelled,
    bias: Labelled,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    groups: int,
    offset_groups: int,
    use_mask: bool,
) -> Labelled:
    """A convolution that samples its input at offsets; ranges of channels have offsets each."""
    for sampled in (offset, mask):
        pin_dims(facts, sampled, range(sampled.rank), "sampling positions")
    x = even(facts, pin_dims(facts, x, (0, 2, 3), "sampled at offsets"), (0, 2, 3))
    if offset_groups > 1:
        n, c, *plane = x.shape
        apart = reshape(facts, x, (n, offset_groups, c // offset_groups, *plane))
        apart = pin_dims(facts, apart, (1,), "each range of channels has offsets of its own")
        x = reshape(facts, apart, x.shape)
    strides, paddings = (stride_h, stride_w), (pad_h, pad_w)
    return _convolution(facts, x, weight, bias, groups, False, strides, paddings)


def _convolution(
    facts: Facts,
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
    x = even(facts, pin_dims(facts, x, slid, "a spatial dimension of a convolution"), slid)
    weight = pin_dims(facts, weight, range(2, weight.rank), "a kernel dimension of a convolution")
    weight = even(facts, weight, range(2, weight.rank))
    plane = x.shape if transposed else facts.shape
    factor = volume(weight.shape[2:])
    widths = [(x, 0)] if batched else []
    for dim in range(channel + 1, x.rank):
        if x.targeting(dim):
            widths.append((x, dim))
        else:
            factor *= plane[dim]
    facts.cost(factor, *widths, (weight, 0), (weight, 1))
    sizes = (1 if d in slid else x.shape[d] for d in range(channel + 1, x.rank))
    flat = Labelled((*x.shape[: channel + 1], *sizes), x.layers)
    kernel = Labelled((*weight.shape[:2], *(1,) * spatial), weight.layers)
    lead = "n" if batched else ""
    tail = "xyz"[:spatial]
    if groups == 1:
        dims = ("io" if transposed else "oi") + tail
        y = contract(facts, flat, lead + "i" + tail, kernel, dims, lead + "o" + tail)
    else:
        y = _grouped(facts, flat, kernel, groups, transposed, lead, tail)
    y = Labelled(facts.shape, y.layers)
    facts.tag([*x.targeting(channel), *y.targeting(channel)], "channels")
    return y if bias is None else unify(facts, y, vector(bias, channel, y.rank), "add")


def _grouped(
    facts: Facts,
    x: Labelled,
    weight: Labelled,
    groups: int,
    transposed: bool,
    lead: str,
    tail: str,
) -> Labelled:
    inner, outer = weight.finest(1), weight.finest(0)
    if inner is not None and outer is not None and not inner.ragged:
        facts.request_ragged(inner, outer, groups)
    at = len(lead)
    plane = x.shape[at + 1 :]
    apart = (*x.shape[:at], groups, x.shape[at] // groups, *plane)
    x = reshape(facts, x, apart)
    facts.demand("groups", None, x, at)
    rows = weight.shape[0] // groups
    weight = reshape(facts, weight, (groups, rows, weight.shape[1], *weight.shape[2:]))
    dims = ("gio" if transposed else "goi") + tail
    y = contract(facts, x, lead + "gi" + tail, weight, dims, lead + "go" + tail)
    facts.tag(y.targeting(at), "groups")
    return reshape(facts, y, (*y.shape[:at], y.shape[at] * y.shape[at + 1], *plane))
