"""Models that are hard to prune right, each aimed at one difficulty: every test proves that what
the analysis says may go can go, and claims what that is.
"""

from __future__ import annotations

import copy
import math
from collections import namedtuple
from dataclasses import dataclass
from math import log, sqrt
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

import planc
from planc.errors import AnalysisError, VerificationError
from tests.programs import write
from tests.support.proving import Net, free, prove, prunable, reasons, together

IMAGES = torch.randn(2, 3, 6, 6)
TOKENS = torch.randn(2, 5, 6)


def conv(i: int, o: int, k: int = 1, **named: Any) -> nn.Conv2d:
    return nn.Conv2d(i, o, k, **named)


def sizes(analysis: planc.analysis.Analysis) -> dict[str, int]:
    return {group.name: group.size for group in analysis.groups}


# -- joins and parts -------------------------------------------------------------------------------


def test_concatenation_with_itself() -> None:
    found = prove(
        Net(lambda m, x: m.b(torch.cat([m.a(x)] * 2, 1)), a=conv(3, 4), b=conv(8, 2)), IMAGES
    )
    assert sizes(found) == {"a.weight:0": 4}


def test_concatenation_with_itself_turned_around() -> None:
    net = Net(
        lambda m, x: m.b(torch.cat([y := m.a(x), y.flip(1), y.roll(1, 1)], 1)),
        a=conv(3, 4),
        b=conv(12, 2),
    )
    found = prove(net, IMAGES)
    assert together(found, "a.weight:0", "b.weight:1")
    assert sizes(found) == {"a.weight:0": 3, "a.weight:0#2": 1}


def test_concatenation_of_branches_of_different_width() -> None:
    net = Net(
        lambda m, x: m.c(torch.cat([m.a(x), x, m.b(x)], 1)),
        a=conv(3, 4),
        b=conv(3, 5),
        c=conv(12, 2),
    )
    found = prove(net, IMAGES)
    assert sizes(found) == {"a.weight:0": 4, "b.weight:0": 5}


def test_dense_block() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        features = [m.stem(x)]
        for layer in m.layers:
            features.append(layer(torch.cat(features, 1)).relu())
        return m.head(torch.cat(features, 1).mean((2, 3)))

    layers = nn.ModuleList(
        nn.Sequential(nn.BatchNorm2d(4 + 3 * i), conv(4 + 3 * i, 3)) for i in range(3)
    )
    found = prove(Net(run, stem=conv(3, 4), layers=layers, head=nn.Linear(13, 2)), IMAGES)
    assert len(found.groups) == 4


def test_slices_with_steps_keep_whole_steps() -> None:
    net = Net(
        lambda m, x: m.b(m.a(x)[:, ::2] + m.a(x)[:, 1::2].roll(1, 2)), a=conv(3, 6), b=conv(3, 2)
    )
    found = prove(net, IMAGES)
    assert sizes(found) == {"a.weight:0": 3}


def test_slices_with_steps_that_do_not_fit_pin() -> None:
    net = Net(lambda m, x: m.b(m.a(x)[:, ::4]), a=conv(3, 6), b=conv(2, 2))
    found = prove(net, IMAGES)
    assert "a slice with steps" in reasons(found, "a.weight", 0)


def test_literal_slices_pin_the_module_with_file_and_line() -> None:
    net = Net(
        lambda m, x: m.b(m.a(x)[:, 2:5]) + m.c(m.a(x)[:, 5:]),
        a=conv(3, 8),
        b=conv(3, 2),
        c=conv(3, 2),
    )
    found = prove(net, IMAGES)
    assert sizes(found) == {"a.weight:0": 2, "a.weight:0#2": 3, "a.weight:0#3": 3}
    assert prunable(found, "module") == {"a.weight:0#3"}
    assert prunable(found, "graph") == {group.name for group in found.groups}
    assert any("test_adversarial.py:" in c.reason for c in found.equations("module").constraints)


def test_slices_at_computed_places() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        half = y.shape[1] // 2
        return m.b(y[:, :half] * y[:, half:].sigmoid())

    found = prove(Net(run, a=conv(3, 8), b=conv(4, 2)), IMAGES)
    assert prunable(found, "module") == {"a.weight:0"}
    assert sizes(found) == {"a.weight:0": 4}


def test_slices_counted_from_the_end() -> None:
    net = Net(lambda m, x: m.b(m.a(x)[:, -3:]), a=conv(3, 8), b=conv(3, 2))
    found = prove(net, IMAGES)
    assert sizes(found) == {"a.weight:0": 5, "a.weight:0#2": 3}


def test_a_slice_that_is_longer_than_the_dimension() -> None:
    net = Net(lambda m, x: m.b(m.a(x)[:, -100:][:, :100]), a=conv(3, 8), b=conv(8, 2))
    found = prove(net, IMAGES)
    assert sizes(found) == {"a.weight:0": 8}
    assert prunable(found, "module") == {"a.weight:0"}


def test_splits_of_splits() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        left, right = m.a(x).chunk(2, 1)
        one, two = left.split(3, 1)
        return m.b(torch.cat([two, right, one], 1))

    found = prove(Net(run, a=conv(3, 12), b=conv(12, 2)), IMAGES)
    assert prunable(found, "graph") == {group.name for group in found.groups} != set()
    assert not prunable(found, "module")


def test_split_by_attributes() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        small, large = m.a(x).split(m.widths, 1)
        return m.b(small) + m.c(large)

    net = Net(run, a=conv(3, 7), b=conv(2, 2), c=conv(5, 2), widths=(2, 5))
    found = prove(net, IMAGES)
    assert prunable(found, "module") == {"a.weight:0", "a.weight:0#2"}


def test_both_halves_of_a_chunk_lose_equally_many() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        left, right = m.a(x).chunk(2, 1)
        return m.b(left) + m.c(right)

    found = prove(Net(run, a=conv(3, 8), b=conv(4, 2), c=conv(4, 2)), IMAGES)
    assert prunable(found, "module") == {"a.weight:0", "a.weight:0#2"}
    assert len(found.equations("module").constraints) == 1
    assert not found.equations("graph").constraints


def test_unbound_channels_pin() -> None:
    net = Net(lambda m, x: m.b(torch.stack(m.a(x).unbind(1)[1:3], 1)), a=conv(3, 4), b=conv(2, 2))
    found = prove(net, IMAGES)
    assert "picked by its position" in reasons(found, "a.weight", 0)


def test_unbinding_a_stack() -> None:
    net = Net(
        lambda m, x: m.b((pair := torch.stack([m.a(x), m.c(x)]).unbind(0))[0] * pair[1]),
        a=conv(3, 4),
        c=conv(3, 4),
        b=conv(4, 2),
    )
    assert sizes(prove(net, IMAGES)) == {"a.weight:0": 4}


def test_stack_and_sum_keeps_what_is_not_zero_apart() -> None:
    net = Net(
        lambda m, x: m.b(torch.stack([y := m.a(x), y.sigmoid()]).sum(0)), a=conv(3, 4), b=conv(4, 2)
    )
    assert sizes(prove(net, IMAGES)) == {"a.weight:0": 4}


def test_an_exponential_in_a_stack_is_seen_by_the_sum_over_channels() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        return torch.stack([y, y.exp()]).sum((0, 2))

    found = prove(Net(run, a=conv(3, 4)), IMAGES)
    assert found.groups[0].mixing


def test_written_slices_of_zeros() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        y, z = m.a(x), m.c(x)
        both = torch.zeros(y.shape[0], y.shape[1] + z.shape[1], *y.shape[2:], dtype=y.dtype)
        both[:, : y.shape[1]] = y
        both[:, y.shape[1] :] = z
        return m.b(both)

    found = prove(Net(run, a=conv(3, 4), c=conv(3, 3), b=conv(7, 2)), IMAGES)
    assert prunable(found, "module") == {"a.weight:0", "c.weight:0"}


def test_written_slices_are_not_zero_in_the_whole() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        y[:, :, 1:3] = 1.0
        y[:, :, :1].add_(2).mul_(m.scale)
        return m.b(y.relu_()).sum((2, 3)) + y.sum((1, 2, 3))[:, None]

    found = prove(Net(run, a=conv(3, 4), scale=torch.ones(4, 1, 1), b=conv(4, 2)), IMAGES)
    assert "not zero" in found.groups[0].mixing


def test_an_operator_in_place_on_the_residual_stream() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        z = m.b(y)
        z += y
        y.exp_()
        return m.c(z) + m.d(y)

    found = prove(Net(run, a=conv(3, 4), b=conv(4, 4), c=conv(4, 2), d=conv(4, 2)), IMAGES)
    assert together(found, "a.weight:0", "b.weight:0", "b.weight:1", "c.weight:1", "d.weight:1")


# -- order and shape -------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [2, 3])
def test_channel_shuffle_by_hand(groups: int) -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        n, c, h, w = y.shape
        y = y.view(n, m.groups, c // m.groups, h, w).transpose(1, 2).reshape(n, c, h, w)
        return m.b(y)

    width = 2 * groups * groups
    net = Net(run, a=conv(3, width), b=conv(width, 2 * groups, groups=groups), groups=groups)
    found = prove(net, IMAGES)
    assert prunable(found, "graph") == {group.name for group in found.groups} != set()


@pytest.mark.parametrize("groups", [2, 3])
def test_channel_shuffle_layer(groups: int) -> None:
    net = Net(
        lambda m, x: m.b(m.s(m.a(x))), a=conv(3, 12), s=nn.ChannelShuffle(groups), b=conv(12, 2)
    )
    found = prove(net, IMAGES)
    assert prunable(found, "module") == {group.name for group in found.groups}


def test_channel_shuffle_between_grouped_convolutions() -> None:
    net = Net(
        lambda m, x: m.d(m.c(m.s(m.b(m.a(x)))).relu()),
        a=conv(3, 6),
        b=conv(6, 12, groups=3),
        s=nn.ChannelShuffle(3),
        c=conv(12, 6, groups=3),
        d=conv(6, 2),
    )
    found = prove(net, IMAGES)
    assert prunable(found, "graph")


def test_flipped_and_rolled_channels() -> None:
    net = Net(
        lambda m, x: m.b(m.a(x).flip(1)) + m.c(m.a(x).roll(2, 1)),
        a=conv(3, 6),
        b=conv(6, 2),
        c=conv(6, 2),
    )
    found = prove(net, IMAGES)
    assert sizes(found) == {"a.weight:0": 4, "a.weight:0#2": 2}
    assert prunable(found, "module") == {"a.weight:0"}  # those that do not wrap around
    assert prunable(found, "graph") == {"a.weight:0", "a.weight:0#2"}


def test_two_views_that_split_channels_differently() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        n, c, h, w = y.shape
        one = y.view(n, 2, c // 2, h, w).amax(1)
        two = y.view(n, 4, c // 4, h, w).amax(1)
        return m.b(one) + m.c(two)

    found = prove(Net(run, a=conv(3, 8), b=conv(4, 2), c=conv(2, 2)), IMAGES)
    assert free(found, "b.weight", 0) is False


def test_two_ways_to_cut_rows() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        n, c, h, w = y.shape
        one = torch.einsum(
            "nghwc,gcd->nhwd", y.view(n, 2, c // 2, h, w).permute(0, 1, 3, 4, 2), m.p
        )
        two = torch.einsum(
            "nghwc,gcd->nhwd", y.view(n, 4, c // 4, h, w).permute(0, 1, 3, 4, 2), m.q
        )
        return one + two

    found = prove(Net(run, a=conv(3, 8), p=torch.ones(2, 4, 3), q=torch.ones(4, 2, 3)), IMAGES)
    assert found.groups


def test_rows_that_straddle() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.a(x).permute(0, 2, 3, 1)
        one = torch.einsum("nhwgc,gcd->nhwd", y.reshape(2, 6, 6, 2, -1), m.p)
        two = torch.einsum("nhwgc,gcd->nhwd", y.reshape(2, 6, 6, 3, -1), m.q)
        return one + two

    prove(Net(run, a=conv(3, 12), p=torch.ones(2, 6, 3), q=torch.ones(3, 4, 3)), IMAGES)


def test_flatten_then_unflatten() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        flat = m.act(y.flatten(1))
        return m.b(flat.unflatten(1, (y.shape[1], 6, 6)))

    found = prove(Net(run, a=conv(3, 4), act=nn.Tanh(), b=conv(4, 2)), IMAGES)
    assert prunable(found, "module") == {"a.weight:0"}


def test_flattened_maps_before_a_classifier() -> None:
    net = Net(lambda m, x: m.b(m.a(x).flatten(1)), a=conv(3, 4), b=nn.Linear(4 * 36, 2))
    found = prove(net, IMAGES)
    assert sizes(found) == {"a.weight:0": 4}
    assert reasons(found, "b.weight", 0).startswith("an output of the model")


def test_channels_last_flattened_before_a_classifier() -> None:
    net = Net(
        lambda m, x: m.b(m.a(x).permute(0, 2, 3, 1).flatten(1)), a=conv(3, 4), b=nn.Linear(144, 2)
    )
    assert sizes(prove(net, IMAGES)) == {"a.weight:0": 4}


def test_views_of_views() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        y = y.view(2, -1, 36).transpose(1, 2).reshape(2, 6, 6, -1).movedim(-1, 1)
        return m.b(y.unsqueeze(0).squeeze(0).contiguous().view_as(y))

    found = prove(Net(run, a=conv(3, 4), b=conv(4, 2)), IMAGES)
    assert prunable(found, "module") == {"a.weight:0"}


def test_residual_across_a_reshape() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        tokens = y.flatten(2).transpose(1, 2)
        tokens = tokens + m.mlp(tokens)
        return m.b(y + tokens.transpose(1, 2).reshape(y.shape))

    mlp = nn.Sequential(nn.Linear(4, 7), nn.GELU(), nn.Linear(7, 4))
    found = prove(Net(run, a=conv(3, 4), mlp=mlp, b=conv(4, 2)), IMAGES)
    assert together(found, "a.weight:0", "mlp.0.weight:1", "mlp.2.weight:0", "b.weight:1")
    assert prunable(found, "module") == {"a.weight:0", "mlp.0.weight:0"}


def test_pixel_shuffle_takes_whole_blocks() -> None:
    net = Net(lambda m, x: m.b(m.s(m.a(x))), a=conv(3, 12), s=nn.PixelShuffle(2), b=conv(3, 2))
    found = prove(net, IMAGES)
    assert sizes(found) == {"a.weight:0": 3}


def test_pixel_unshuffle_takes_whole_blocks() -> None:
    net = Net(lambda m, x: m.b(m.s(m.a(x))), a=conv(3, 4), s=nn.PixelUnshuffle(2), b=conv(16, 2))
    assert sizes(prove(net, IMAGES)) == {"a.weight:0": 4}


def test_patches_by_unfold() -> None:
    net = Net(
        lambda m, x: m.b(functional.unfold(m.a(x), 3).transpose(1, 2)),
        a=conv(3, 4),
        b=nn.Linear(36, 2),
    )
    assert sizes(prove(net, IMAGES)) == {"a.weight:0": 4}


def test_squeeze_does_not_take_the_last_channel() -> None:
    net = Net(
        lambda m, x: m.b(functional.adaptive_avg_pool2d(m.a(x), 1).squeeze()),
        a=conv(3, 4),
        b=nn.Linear(4, 2),
    )
    found = prove(net, IMAGES)
    assert prunable(found, "module") == {"a.weight:0"}
    assert len(planc.compile(net, (IMAGES.double(),), ratio=0.9).groups[0].removed) == 2


def test_option_a_shortcut() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        short = functional.pad(y[:, :, ::2, ::2], (0, 0, 0, 0, m.extra, m.extra))
        return m.c(short + m.b(y))

    net = Net(run, a=conv(3, 4), b=conv(4, 8, stride=2), c=conv(8, 2), extra=2)
    found = prove(net, IMAGES)
    assert sizes(found) == {"a.weight:0": 4}
    assert "never there" in reasons(found, "b.weight", 0)


def test_upsampling_and_skip() -> None:
    net = Net(
        lambda m, x: m.c(
            torch.cat([y := m.a(x), functional.interpolate(m.b(y), scale_factor=2.0)], 1)
        ),
        a=conv(3, 4),
        b=conv(4, 5, stride=2),
        c=conv(9, 2),
    )
    assert sizes(prove(net, IMAGES)) == {"a.weight:0": 4, "b.weight:0": 5}


# -- convolutions ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("groups", "inner", "outer"), [(2, 4, 6), (3, 9, 6), (4, 8, 8), (8, 16, 8), (2, 2, 6)]
)
def test_grouped_convolution(groups: int, inner: int, outer: int) -> None:
    net = Net(
        lambda m, x: m.c(m.b(m.a(x))),
        a=conv(3, inner),
        b=conv(inner, outer, 3, groups=groups, padding=1),
        c=conv(outer, 2),
    )
    found = prove(net, IMAGES)
    assert prunable(found, "module") == {group.name for group in found.groups} != set()
    alone = inner == groups or outer == groups
    assert alone or any(group.kind == "groups" for group in found.groups)


@pytest.mark.parametrize("multiplier", [1, 2, 3])
def test_depthwise_convolution_with_multiplier(multiplier: int) -> None:
    net = Net(
        lambda m, x: m.c(m.n(m.b(m.a(x)))),
        a=conv(3, 4),
        b=conv(4, 4 * multiplier, 3, groups=4, padding=1),
        n=nn.BatchNorm2d(4 * multiplier),
        c=conv(4 * multiplier, 2),
    )
    found = prove(net, IMAGES)
    assert together(found, "a.weight:0", "b.weight:0", "c.weight:1")
    assert prunable(found, "module") == {group.name for group in found.groups}


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_transposed_convolution(groups: int) -> None:
    net = Net(
        lambda m, x: m.c(m.b(m.a(x))),
        a=conv(3, 4),
        b=nn.ConvTranspose2d(4, 8, 3, groups=groups, stride=2),
        c=conv(8, 2),
    )
    found = prove(net, IMAGES)
    assert prunable(found, "module") == {group.name for group in found.groups}


@pytest.mark.parametrize("rank", [1, 3])
def test_other_ranks(rank: int) -> None:
    layer, norm = (nn.Conv1d, nn.BatchNorm1d) if rank == 1 else (nn.Conv3d, nn.BatchNorm3d)
    net = nn.Sequential(
        layer(3, 4, 3), norm(4), nn.ReLU(), layer(4, 6, 1, groups=2), layer(6, 2, 1)
    )
    found = prove(net, torch.randn(2, 3, *[4] * rank))
    assert "0.weight:0" in prunable(found, "module")


def test_a_residual_joins_grouped_and_plain() -> None:
    net = Net(
        lambda m, x: m.c((y := m.a(x)) + m.b(y)),
        a=conv(3, 8),
        b=conv(8, 8, groups=2),
        c=conv(8, 2),
    )
    found = prove(net, IMAGES)
    assert prunable(found, "module") == {group.name for group in found.groups} != set()


def test_two_grouped_convolutions_of_different_groups() -> None:
    net = Net(
        lambda m, x: m.c(m.b(m.a(x))),
        a=conv(3, 12, groups=3),
        b=conv(12, 12, groups=2),
        c=conv(12, 4, groups=4),
    )
    prove(net, IMAGES)


def test_deformed_weights_follow() -> None:
    """A kernel that the model computes (weight standardisation)."""

    def run(m: Any, x: Tensor) -> Tensor:
        w = m.w - m.w.mean((1, 2, 3), keepdim=True)
        return m.c(functional.conv2d(m.a(x), w, padding=1))

    found = prove(Net(run, a=conv(3, 4), w=torch.ones(5, 4, 3, 3), c=conv(5, 2)), IMAGES)
    assert together(found, "a.weight:0", "w:1")
    assert prunable(found, "module") == {"w:0", "w:1"}


WORKED: dict[str, Any] = {
    "scaled": lambda w, m: w * m.s * m.t,
    "standardised": lambda w, m: w - w.mean((1, 2, 3), keepdim=True),
    "flipped": lambda w, m: w.flip(0, 1, 2),
    "rolled": lambda w, m: w.roll(1, 1),
    "turned": lambda w, m: torch.cat([w[6:], w[:6]], 0),
    "turned unevenly": lambda w, m: torch.cat([w[5:], w[:5]], 0),
    "shuffled": lambda w, m: w.view(4, 3, 4, 2, 2).transpose(0, 1).reshape(12, 4, 2, 2),
    "repeated": lambda w, m: w[:6].repeat_interleave(2, 0),
    "normalised": lambda w, m: w.softmax(1) + w * w.amax(0, keepdim=True),
    "mixed": lambda w, m: torch.einsum("oihw,op->pihw", w, m.mix),
    "added": lambda w, m: w.clone().mul_(m.s).add_(m.w2) + w.flatten().view(w.shape),
}


@pytest.mark.parametrize("name", WORKED)
def test_a_grouped_kernel_that_is_worked_on(name: str) -> None:
    net = Net(
        lambda m, x: m.b(functional.conv2d(m.a(x), WORKED[name](m.w, m), groups=m.groups)),
        a=conv(3, 12),
        b=conv(12, 2),
        w=torch.ones(12, 4, 2, 2),
        w2=torch.ones(12, 4, 2, 2),
        s=torch.ones(12, 1, 1, 1),
        t=torch.ones(4, 1, 1),
        mix=torch.ones(12, 12),
        groups=3,
    )
    found = prove(net, IMAGES, seeds=(0,))
    assert together(found, "a.weight:0", "w:1")


# -- parameters in unusual places ------------------------------------------------------------------


def test_one_parameter_as_weight_and_as_bias() -> None:
    net = Net(
        lambda m, x: m.b(m.a(x) * m.v[:, None, None] + m.v[:, None, None]),
        a=conv(3, 4),
        v=torch.ones(4),
        b=conv(4, 2),
    )
    found = prove(net, IMAGES)
    assert together(found, "a.weight:0", "v:0", "b.weight:1")


def test_one_parameter_as_both_factors() -> None:
    net = Net(lambda m, x: m.b(x @ m.w @ m.w.t() @ m.w), w=torch.ones(6, 4), b=nn.Linear(4, 2))
    found = prove(net, TOKENS)
    assert together(found, "w:1", "b.weight:1")
    assert not free(found, "w", 0)


def test_broadcast_scales() -> None:
    net = Net(
        lambda m, x: m.b(m.a(x) * m.s + m.t),
        a=conv(3, 4),
        s=torch.ones(1, 4, 1, 1),
        t=torch.ones(1, 1, 6, 6),
        b=conv(4, 2),
    )
    found = prove(net, IMAGES)
    assert together(found, "a.weight:0", "s:1")
    assert not free(found, "t", 2)


def test_shared_module_called_twice() -> None:
    net = Net(lambda m, x: m.b(m.s(m.s(m.a(x)).relu())), a=conv(3, 4), s=conv(4, 4), b=conv(4, 2))
    found = prove(net, IMAGES)
    assert together(found, "a.weight:0", "s.weight:0", "s.weight:1", "b.weight:1")


def test_shared_module_on_two_streams() -> None:
    net = Net(
        lambda m, x: m.c(m.s(m.a(x))) + m.c(m.s(m.b(x))),
        a=conv(3, 4),
        b=conv(3, 4),
        s=conv(4, 5),
        c=conv(5, 2),
    )
    found = prove(net, IMAGES)
    assert together(found, "a.weight:0", "b.weight:0", "s.weight:1")


def test_weight_shared_between_layers() -> None:
    a, b = nn.Linear(6, 6), nn.Linear(6, 6)
    b.weight = a.weight
    found = prove(
        Net(lambda m, x: m.c(m.b(m.a(m.i(x)))), i=nn.Linear(6, 6), a=a, b=b, c=nn.Linear(6, 2)),
        TOKENS,
    )
    assert together(found, "i.weight:0", "a.weight:0", "a.weight:1", "b.bias:0", "c.weight:1")


def test_tied_embedding_and_output_head() -> None:
    embed = nn.Embedding(9, 6)
    head = nn.Linear(6, 9, bias=False)
    head.weight = embed.weight
    net = Net(lambda m, x: m.h(m.f(m.e(x)).relu()), e=embed, f=nn.Linear(6, 6), h=head)
    found = prove(net, torch.arange(8).reshape(2, 4))
    assert not free(found, "e.weight", 0)
    assert together(found, "e.weight:1", "f.weight:0", "f.weight:1")


def test_learned_positions_and_class_token() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.p(x).flatten(2).transpose(1, 2)
        y = torch.cat([m.cls.expand(y.shape[0], -1, -1), y], 1) + m.pos
        return m.h(m.n(y + m.f(y))[:, 0])

    net = Net(
        run,
        p=conv(3, 6, 3, stride=3),
        cls=torch.ones(1, 1, 6),
        pos=torch.ones(1, 5, 6),
        f=nn.Linear(6, 6),
        n=nn.LayerNorm(6),
        h=nn.Linear(6, 2),
    )
    found = prove(net, IMAGES)
    assert together(found, "cls:2", "pos:2", "p.weight:0", "n.weight:0", "h.weight:1")
    assert not free(found, "pos", 1)


def test_prelu_per_channel() -> None:
    net = nn.Sequential(conv(3, 4), nn.PReLU(4), conv(4, 4), nn.PReLU(), conv(4, 2))
    found = prove(net, IMAGES)
    assert together(found, "0.weight:0", "1.weight:0", "2.weight:1")


def test_bilinear() -> None:
    net = Net(
        lambda m, x: m.c(m.bi(m.a(x), m.b(x))),
        a=nn.Linear(6, 4),
        b=nn.Linear(6, 3),
        bi=nn.Bilinear(4, 3, 5),
        c=nn.Linear(5, 2),
    )
    found = prove(net, TOKENS)
    assert prunable(found, "module") == {"a.weight:0", "b.weight:0", "bi.weight:0"}


# -- gates, attention ------------------------------------------------------------------------------


def test_experts_that_are_mixed_go_as_units() -> None:
    def mix(m: Any, x: torch.Tensor) -> torch.Tensor:
        x = m.embed(x)
        hidden = torch.einsum("btd,edh->bteh", x, m.up).relu()
        experts = torch.einsum("bteh,ehd->bted", hidden, m.down)
        return m.head((m.gate(x).softmax(-1).unsqueeze(-1) * experts).sum(2))

    net = Net(
        mix,
        embed=nn.Linear(3, 8),
        gate=nn.Linear(8, 4),
        up=torch.randn(4, 8, 6),
        down=torch.randn(4, 6, 8),
        head=nn.Linear(8, 2),
    )
    found = prove(net, torch.randn(2, 5, 3))
    assert together(found, "up:0", "down:0", "gate.weight:0")
    for target in ("module", "graph"):
        assert prunable(found, target) == {group.name for group in found.groups}


def test_squeeze_and_excitation() -> None:
    net = Net(
        lambda m, x: m.b(
            (y := m.a(x)) * m.up(m.down(y.mean((2, 3), keepdim=True)).relu()).sigmoid()
        ),
        a=conv(3, 6),
        down=conv(6, 3),
        up=conv(3, 6),
        b=conv(6, 2),
    )
    found = prove(net, IMAGES)
    assert together(found, "a.weight:0", "down.weight:1", "up.weight:0", "b.weight:1")
    assert prunable(found, "module") == {"a.weight:0", "down.weight:0"}


def test_efficient_channel_attention_pins() -> None:
    """A convolution over the channels looks at neighbours: their order matters."""
    net = Net(
        lambda m, x: m.b(
            (y := m.a(x)) * m.k(y.mean((2, 3))[:, None]).sigmoid()[:, 0, :, None, None]
        ),
        a=conv(3, 6),
        k=nn.Conv1d(1, 1, 3, padding=1),
        b=conv(6, 2),
    )
    found = prove(net, IMAGES)
    assert "spatial dimension" in reasons(found, "a.weight", 0)


def test_maxout() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        return m.b(y.view(2, 5, y.shape[2] // m.pieces, m.pieces).amax(-1))

    found = prove(Net(run, a=nn.Linear(6, 8), b=nn.Linear(4, 2), pieces=2), TOKENS)
    assert together(found, "a.weight:0", "b.weight:1")


def test_glu() -> None:
    net = Net(lambda m, x: m.b(functional.glu(m.a(x), 1)), a=conv(3, 8), b=conv(4, 2))
    assert sizes(prove(net, IMAGES)) == {"a.weight:0": 4}


def test_swiglu_with_one_projection() -> None:
    net = Net(
        lambda m, x: m.b((pair := m.a(x).chunk(2, -1))[0] * functional.silu(pair[1])),
        a=nn.Linear(6, 8),
        b=nn.Linear(4, 2),
    )
    assert sizes(prove(net, TOKENS)) == {"a.weight:0": 4}


def test_softmax_over_channels() -> None:
    found = prove(Net(lambda m, x: m.b(m.a(x).softmax(1)), a=conv(3, 4), b=conv(4, 2)), IMAGES)
    assert found.groups[0].mixing == "softmax over it"


def test_mean_over_channels() -> None:
    net = Net(
        lambda m, x: m.b(m.a(x)) * m.a(x).mean(1, keepdim=True) + m.a(x).amax(1, keepdim=True),
        a=conv(3, 4),
        b=conv(4, 2),
    )
    assert prove(net, IMAGES).groups[0].mixing


def test_cumulative_sum_over_channels_pins() -> None:
    net = Net(lambda m, x: m.b(m.a(x).cumsum(1)), a=conv(3, 4), b=conv(4, 2))
    assert "running sum" in reasons(prove(net, IMAGES), "a.weight", 0)


@pytest.mark.parametrize("pick", ["topk", "argmax", "sort"])
def test_picking_by_value_pins(pick: str) -> None:
    def run(m: Any, x: Tensor) -> Any:
        y = m.a(x)
        if pick == "topk":
            return m.b(y.topk(4, 1)[0])
        if pick == "sort":
            return m.b(y.sort(1)[0])
        return y.argmax(1), m.b(y)

    width = 4 if pick == "topk" else 6
    found = prove(Net(run, a=conv(3, 6), b=conv(width, 2)), IMAGES)
    assert not found.groups
    assert any(w in reasons(found, "a.weight", 0) for w in ("order", "positions"))


@pytest.mark.parametrize("same", [True, False])
def test_multi_head_attention_layer(same: bool) -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.i(x)
        z = y if same else m.j(x)
        return m.o(y + m.a(y, z, z, need_weights=False)[0])

    net = Net(
        run,
        i=nn.Linear(6, 8),
        j=nn.Linear(6, 8),
        o=nn.Linear(8, 2),
        a=nn.MultiheadAttention(8, 2, batch_first=True),
    )
    found = prove(net, TOKENS)
    assert any(group.kind == "heads" for group in found.groups)
    assert prunable(found, "graph") == {group.name for group in found.groups}
    assert prunable(found, "module")


def test_attention_with_one_projection_and_permute() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        qkv = m.qkv(x).reshape(b, n, 3, m.heads, m.dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        y = (q @ k.transpose(-2, -1) * 0.5).softmax(-1) @ v
        return m.o(y.transpose(1, 2).reshape(b, n, m.heads * m.dim))

    found = prove(Net(run, qkv=nn.Linear(6, 24), o=nn.Linear(8, 2), heads=2, dim=4), TOKENS)
    assert {group.kind for group in found.groups} == {"heads", "head_dim"}
    assert prunable(found, "module") == {group.name for group in found.groups}


def test_attention_with_chunks() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = (t.view(b, n, m.heads, -1).transpose(1, 2) for t in m.qkv(x).chunk(3, -1))
        y = functional.scaled_dot_product_attention(q, k, v)
        return m.o(y.transpose(1, 2).flatten(2))

    found = prove(Net(run, qkv=nn.Linear(6, 24), o=nn.Linear(8, 2), heads=2), TOKENS)
    assert {group.kind for group in found.groups} == {"heads", "head_dim"}
    assert prunable(found, "graph") == {group.name for group in found.groups}


def test_attention_with_separate_projections() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = (p(x).view(b, n, m.heads, m.dim).transpose(1, 2) for p in (m.q, m.k, m.v))
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.3)
        return m.o(y.transpose(1, 2).reshape(b, n, -1))

    net = Net(
        run,
        q=nn.Linear(6, 8),
        k=nn.Linear(6, 8),
        v=nn.Linear(6, 8),
        o=nn.Linear(8, 2),
        heads=2,
        dim=4,
    )
    found = prove(net, TOKENS)
    assert together(found, "q.weight:0", "k.weight:0")
    assert prunable(found, "module") == {group.name for group in found.groups}


def test_a_head_dimension_used_as_a_number() -> None:
    """The module divides by another number once the attribute has changed."""

    def run(m: Any, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = (p(x).view(b, n, m.heads, m.dim).transpose(1, 2) for p in (m.q, m.k, m.v))
        y = (q @ k.transpose(-2, -1) / m.dim**0.5).softmax(-1) @ v
        return m.o(y.transpose(1, 2).reshape(b, n, m.heads * m.dim))

    net = Net(
        run,
        q=nn.Linear(6, 8),
        k=nn.Linear(6, 8),
        v=nn.Linear(6, 8),
        o=nn.Linear(8, 2),
        heads=2,
        dim=4,
    )
    found = prove(net, TOKENS)
    at = next(g for g, group in enumerate(found.groups) if group.name == "q.weight:0")
    assert found.mixing(at, "module")
    assert not found.mixing(at, "graph")


def test_grouped_queries_by_repeat_interleave() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q = m.q(x).view(b, n, -1, m.dim).transpose(1, 2)
        k, v = (p(x).view(b, n, -1, m.dim).transpose(1, 2) for p in (m.k, m.v))
        k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
        y = functional.scaled_dot_product_attention(q, k, v)
        return m.o(y.transpose(1, 2).flatten(2))

    net = Net(
        run, q=nn.Linear(6, 12), k=nn.Linear(6, 6), v=nn.Linear(6, 6), o=nn.Linear(12, 2), dim=3
    )
    found = prove(net, TOKENS)
    heads = next(group for group in found.groups if group.kind == "heads")
    assert heads.size == 2
    assert prunable(found, "module") == {group.name for group in found.groups}


def test_grouped_queries_in_the_operator() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = (p(x).view(b, n, -1, m.dim).transpose(1, 2) for p in (m.q, m.k, m.v))
        y = functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        return m.o(y.transpose(1, 2).flatten(2))

    net = Net(
        run, q=nn.Linear(6, 12), k=nn.Linear(6, 6), v=nn.Linear(6, 6), o=nn.Linear(12, 2), dim=3
    )
    found = prove(net, TOKENS)
    assert next(group for group in found.groups if group.kind == "heads").size == 2


def test_grouped_queries_by_expand() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = (p(x).view(b, n, -1, m.dim).transpose(1, 2) for p in (m.q, m.k, m.v))
        h = k.shape[1]
        k, v = (t[:, :, None].expand(b, h, 2, n, m.dim).reshape(b, h * 2, n, m.dim) for t in (k, v))
        y = functional.scaled_dot_product_attention(q, k, v)
        return m.o(y.transpose(1, 2).flatten(2))

    net = Net(
        run, q=nn.Linear(6, 12), k=nn.Linear(6, 6), v=nn.Linear(6, 6), o=nn.Linear(12, 2), dim=3
    )
    found = prove(net, TOKENS)
    assert next(group for group in found.groups if group.kind == "heads").size == 2


def test_cross_attention() -> None:
    def run(m: Any, x: Tensor, context: Tensor) -> Tensor:
        b, n, _ = x.shape
        q = m.q(x).view(b, n, m.heads, -1).transpose(1, 2)
        k, v = m.kv(context).view(b, -1, 2, m.heads, m.dim).permute(2, 0, 3, 1, 4).unbind(0)
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=m.bias)
        return m.o(y.transpose(1, 2).flatten(2))

    net = Net(
        run,
        q=nn.Linear(6, 8),
        kv=nn.Linear(4, 16),
        o=nn.Linear(8, 2),
        heads=2,
        dim=4,
        bias=torch.ones(2, 5, 3),
    )
    found = prove(net, (TOKENS, torch.randn(2, 3, 4)))
    assert together(found, "q.weight:0", "kv.weight:0")
    assert together(found, "bias:0", "kv.weight:0", "o.weight:1")


def rotated(x: Tensor, inverse: Tensor) -> Tensor:
    """Rotary position embeddings, halves rotated against each other."""
    angle = torch.arange(x.shape[-2])[:, None] * inverse[None]
    angle = torch.cat([angle, angle], -1)
    half = x.shape[-1] // 2
    turned = torch.cat([-x[..., half:], x[..., :half]], -1)
    return x * angle.cos() + turned * angle.sin()


def test_rotary_embeddings() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = (p(x).view(b, n, -1, m.dim).transpose(1, 2) for p in (m.q, m.k, m.v))
        y = functional.scaled_dot_product_attention(rotated(q, m.inv), rotated(k, m.inv), v)
        return m.o(y.transpose(1, 2).flatten(2))

    net = Net(
        run,
        q=nn.Linear(6, 12),
        k=nn.Linear(6, 12),
        v=nn.Linear(6, 12),
        o=nn.Linear(12, 2),
        dim=6,
        inv=torch.ones(3),
    )
    found = prove(net, TOKENS)
    assert together(found, "inv:0", "q.weight:0", "k.weight:0")
    assert sizes(found)["inv:0"] == 3
    assert "q.weight:0/heads" in prunable(found, "graph")


EINSUMS = {
    "bij,jk->bik": (6, 4),
    "b i j , j k -> b k i": (6, 4),
    "...j,jk->...k": (6, 4),
    "bij,kj->bik": (4, 6),
    "bij,jk": (6, 4),
}


@pytest.mark.parametrize("equation", EINSUMS)
def test_einsum(equation: str) -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        y = torch.einsum(equation, m.a(x), m.w)
        return m.b(y.transpose(1, 2) if equation.endswith("b k i") else y)

    net = Net(run, a=nn.Linear(6, 6), w=torch.ones(EINSUMS[equation]), b=nn.Linear(4, 2))
    found = prove(net, TOKENS)
    assert len(prunable(found, "module")) == 2


def test_einsum_of_three_operands_with_heads() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        q, k, v = (torch.einsum("bni,hid->bhnd", x, w) for w in (m.q, m.k, m.v))
        p = torch.einsum("bhnd,bhmd->bhnm", q, k).softmax(-1)
        return torch.einsum("bhnm,bhmd,hdo->bno", p, v, m.o)

    net = Net(
        run,
        q=torch.ones(2, 6, 3),
        k=torch.ones(2, 6, 3),
        v=torch.ones(2, 6, 4),
        o=torch.ones(2, 4, 2),
    )
    found = prove(net, TOKENS)
    assert together(found, "q:0", "k:0", "v:0", "o:0")
    assert together(found, "q:2", "k:2")
    assert together(found, "v:2", "o:1")


def test_batched_products_with_broadcasting() -> None:
    net = Net(
        lambda m, x: (m.a(x)[:, None] @ m.w @ m.u).sum(1),
        a=nn.Linear(6, 4),
        w=torch.ones(3, 4, 5),
        u=torch.ones(5, 2),
    )
    found = prove(net, TOKENS)
    assert prunable(found, "module") == {"w:0/heads", "w:1", "w:2"}
    assert together(found, "a.weight:0", "w:1")


# -- norms -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("norm", "mixing"),
    [
        (nn.GroupNorm(2, 8), True),
        (nn.GroupNorm(8, 8), False),
        (nn.GroupNorm(1, 8), True),
        (nn.GroupNorm(4, 8, affine=False), True),
        (nn.InstanceNorm2d(8, affine=True, track_running_stats=True), False),
        (nn.InstanceNorm2d(8, affine=True), False),
        (nn.BatchNorm2d(8), False),
        (nn.BatchNorm2d(8, affine=False), False),
        (nn.LocalResponseNorm(3), True),
    ],
    ids=lambda v: str(v).replace(" ", ""),
)
def test_norms_of_images(norm: nn.Module, mixing: bool) -> None:
    found = prove(nn.Sequential(conv(3, 8), norm, nn.ReLU(), conv(8, 2)), IMAGES)
    if isinstance(norm, nn.LocalResponseNorm):
        assert not found.groups
    else:
        assert prunable(found, "module") == {group.name for group in found.groups} != set()
        assert mixing == any(group.mixing for group in found.groups)


@pytest.mark.parametrize(
    "norm",
    [nn.LayerNorm(8), nn.LayerNorm(8, elementwise_affine=False), nn.RMSNorm(8), nn.Identity()],
    ids=lambda v: str(v).replace(" ", ""),
)
def test_norms_of_tokens(norm: nn.Module) -> None:
    found = prove(nn.Sequential(nn.Linear(6, 8), norm, nn.Linear(8, 2)), TOKENS)
    assert prunable(found, "module") == {"0.weight:0"}
    assert bool(found.groups[0].mixing) == (not isinstance(norm, nn.Identity))


# -- what the module computes ----------------------------------------------------------------------


def test_sizes_from_shapes_are_solved_by_themselves() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        b, n, c = (y := m.a(x)).shape
        return m.b(y.reshape(b * n, c)).reshape(b, n, -1)

    found = prove(Net(run, a=nn.Linear(6, 8), b=nn.Linear(8, 2)), TOKENS)
    assert prunable(found, "module") == {"a.weight:0"}
    assert not found.equations("module").attributes


def test_attributes_used_in_views_are_rewritten() -> None:
    net = Net(
        lambda m, x: m.b(m.a(x).view(-1, m.hidden).view(2, 5, m.hidden)),
        a=nn.Linear(6, 8),
        b=nn.Linear(8, 2),
        hidden=8,
    )
    found = prove(net, TOKENS)
    plan = planc.compile(net, (TOKENS.double(),), ratio=0.5)
    assert ("", "hidden", 8, 4) in [(c.module, c.name, c.before, c.after) for c in plan.attributes]
    assert prunable(found, "module") == {"a.weight:0"}


def test_a_tuple_of_sizes_is_rewritten() -> None:
    net = Net(
        lambda m, x: m.b(m.a(x).view(*m.shape).flatten(2)),
        a=nn.Linear(6, 8),
        b=nn.Linear(8, 2),
        shape=(2, 5, 4, 2),
    )
    found = prove(net, TOKENS)
    plan = planc.compile(net, (TOKENS.double(),), ratio=0.5)
    changed = next(change for change in plan.attributes if change.name == "shape")
    assert changed.before == (2, 5, 4, 2)
    assert changed.after == (2, 5, 4, 1)
    assert len(prunable(found, "module")) == 2


def test_literals_in_forward_pin_the_module_alone() -> None:
    net = Net(
        lambda m, x: m.b(m.a(x).view(10, 8).view(2, 5, 8)), a=nn.Linear(6, 8), b=nn.Linear(8, 2)
    )
    found = prove(net, TOKENS)
    assert not prunable(found, "module")
    assert prunable(found, "graph") == {"a.weight:0"}
    constraint = found.equations("module").constraints[0]
    assert "test_adversarial.py:" in constraint.reason
    assert "aten.view" in constraint.reason


def test_one_attribute_for_two_widths_ties_them() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        return m.c(m.a(x).view(10, m.hidden)) + m.d(m.b(x).view(10, m.hidden))

    net = Net(
        run, a=nn.Linear(6, 8), b=nn.Linear(6, 8), c=nn.Linear(8, 2), d=nn.Linear(8, 2), hidden=8
    )
    found = prove(net, TOKENS)
    assert prunable(found, "module") == {"a.weight:0", "b.weight:0"}
    assert found.equations("module").constraints
    assert not found.equations("graph").constraints


def test_two_numbers_of_one_value_in_one_call_are_told_apart_or_left_alone() -> None:
    """``[:, :4, m.k]`` calls two operators; the literal in it stands beside an attribute."""
    net = Net(
        lambda m, x: m.b(m.a(x)[:, :4, m.k, None]) + m.c(m.d(x).view(2, m.k, 36)[..., None]),
        a=conv(3, 8),
        b=conv(4, 2),
        c=conv(4, 2),
        d=conv(3, 4),
        k=4,
    )
    found = prove(net, IMAGES)
    assert prunable(found, "module") == set()
    assert "not read by the traced run" in reasons(found, "a.weight", 0)


def test_a_width_used_as_a_number_mixes() -> None:
    net = Net(
        lambda m, x: m.b((y := m.a(x)) / y.shape[-1] ** 0.5), a=nn.Linear(6, 8), b=nn.Linear(8, 2)
    )
    found = prove(net, TOKENS)
    assert found.mixing(0, "module")
    assert not found.mixing(0, "graph")


# -- outputs ---------------------------------------------------------------------------------------


@dataclass
class Result:
    logits: Tensor
    features: Any


Pair = namedtuple("Pair", "first second")


@pytest.mark.parametrize("kind", ["dict", "tuple", "dataclass", "namedtuple", "nested"])
def test_outputs_in_containers_are_pinned(kind: str) -> None:
    def run(m: Any, x: Tensor) -> Any:
        hidden = m.a(x)
        shown = m.b(hidden)
        out = m.c(shown)
        return {
            "dict": {"out": out, "shown": [shown]},
            "tuple": (out, (shown, None, 3)),
            "dataclass": Result(out, {"shown": shown}),
            "namedtuple": Pair(out, shown),
            "nested": [{"x": (out,)}, Result(shown, [shown])],
        }[kind]

    net = Net(run, a=nn.Linear(6, 8), b=nn.Linear(8, 4), c=nn.Linear(4, 2))
    found = prove(net, TOKENS)
    assert sizes(found) == {"a.weight:0": 8}
    assert (
        reasons(found, "b.weight", 0) == reasons(found, "c.weight", 0) == "an output of the model"
    )


def test_outputs_of_other_types() -> None:
    net = Net(
        lambda m, x: ((y := m.b(m.a(x))) > 0, y.argmax(-1), torch.complex(y, y)),
        a=nn.Linear(6, 8),
        b=nn.Linear(8, 2),
    )
    assert sizes(prove(net, TOKENS)) == {"a.weight:0": 8}


def test_inputs_in_containers() -> None:
    net = Net(
        lambda m, batch, flag: m.b(m.a(batch["x"][0]) + m.c(batch["y"])),
        a=nn.Linear(6, 8),
        c=nn.Linear(4, 8),
        b=nn.Linear(8, 2),
    )
    found = prove(net, {"x": [TOKENS], "y": torch.randn(2, 5, 4)}, {"flag": True})
    assert together(found, "a.weight:0", "c.weight:0", "b.weight:1")


def test_an_unused_parameter_stays() -> None:
    net = Net(lambda m, x: m.b(m.a(x)), a=nn.Linear(6, 8), b=nn.Linear(8, 2), c=torch.ones(4, 5))
    found = prove(net, TOKENS)
    assert "not used" in reasons(found, "c", 1)


# -- modules of torch and their habits -------------------------------------------------------------


def test_one_layer_registered_twice() -> None:
    one = nn.Linear(6, 6)
    found = prove(nn.Sequential(nn.Linear(6, 6), one, nn.ReLU(), one, nn.Linear(6, 2)), TOKENS)
    assert together(found, "0.weight:0", "1.weight:0", "1.weight:1", "4.weight:1")


@pytest.mark.parametrize("norm_first", [False, True])
def test_transformer_encoder_layer(norm_first: bool) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 7, batch_first=True, norm_first=norm_first)
    found = prove(nn.Sequential(nn.Linear(6, 8), layer, nn.Linear(8, 2)), TOKENS, seeds=(0,))
    assert {group.kind for group in found.groups} == {"features", "heads", "head_dim"}
    assert "1.linear1.weight:0" in prunable(found, "module")
    assert prunable(found, "graph") == {group.name for group in found.groups}


@pytest.mark.parametrize("norm", ["weight_norm", "spectral_norm"])
def test_parametrized_weights(norm: str) -> None:
    layer = getattr(nn.utils.parametrizations, norm)(nn.Linear(6, 8))
    found = prove(nn.Sequential(layer, nn.Linear(8, 5), nn.Linear(5, 2)), TOKENS)
    assert "1.weight:0" in prunable(found, "module")


def test_a_checkpointed_branch() -> None:
    net = Net(
        lambda m, x: m.b(checkpoint(m.a, x, use_reentrant=False)),
        a=nn.Linear(6, 8),
        b=nn.Linear(8, 2),
    )
    assert prunable(prove(net, TOKENS), "module") == {"a.weight:0"}


def test_a_buffer_that_follows_the_features() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        m.mean.mul_(0.9).add_(y.mean((0, 1)))
        return m.b(y - m.mean)

    net = Net(run, a=nn.Linear(6, 8), b=nn.Linear(8, 2))
    net.register_buffer("mean", torch.zeros(8))
    found = prove(net, TOKENS)
    assert together(found, "a.weight:0", "mean:0", "b.weight:1")


@pytest.mark.parametrize("view", ["transpose", "flatten", "slice"])
def test_what_is_written_to_a_view_is_seen_in_the_whole(view: str) -> None:
    def run(m: Any, x: Tensor) -> Any:
        y = m.a(x)
        if view == "transpose":
            y.transpose(1, 2).add_(1)
        elif view == "flatten":
            y.flatten(1)[:, :4] += 2
        else:
            y[:, 1:].view(2, 4, -1).exp_()
        return y.sum(-1), m.b(y)

    found = prove(Net(run, a=nn.Linear(6, 8), b=nn.Linear(8, 2)), TOKENS)
    assert all("not zero" in group.mixing for group in found.groups)


def test_windows_of_positions() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.a(x).view(2, -1, 2, 3, 2, 3).permute(0, 2, 4, 3, 5, 1).reshape(8, 9, -1)
        return m.b(y.softmax(1).sum(1))

    assert sizes(prove(Net(run, a=conv(3, 4), b=nn.Linear(4, 2)), IMAGES)) == {"a.weight:0": 4}


def test_a_convolution_along_positions_alone() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        heads = m.a(x).view(2, 5, m.heads, -1).transpose(1, 2)
        return m.b((heads + m.along(heads)).transpose(1, 2).flatten(2))

    along = conv(2, 2, (3, 1), padding=(1, 0), groups=2)
    net = Net(run, a=nn.Linear(6, 8), along=along, b=nn.Linear(8, 2), heads=2)
    found = prove(net, TOKENS)
    assert prunable(found, "module") == {"a.weight:0", "a.weight:0#2"}  # cells and whole heads
    assert found.cost.price((2, 2)).macs < found.cost.price((4, 2)).macs


@pytest.mark.parametrize("pool", [functional.avg_pool2d, functional.max_pool2d])
def test_pooling_along_positions_alone(pool: Any) -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        return m.b(pool(m.a(x)[:, None], (2, 1), stride=(2, 1), ceil_mode=True)[:, 0])

    found = prove(Net(run, a=nn.Linear(6, 8), b=nn.Linear(8, 2)), TOKENS)
    assert sizes(found) == {"a.weight:0": 8}


class Attention(nn.Module):
    """Attention by the function behind ``nn.MultiheadAttention``, with projections of its own."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.width, self.heads = width, heads
        for name in "qkvo":
            setattr(self, name, nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        bias = torch.cat((self.q.bias, self.k.bias, self.v.bias))
        weights = {f"{name}_proj_weight": getattr(self, name).weight for name in "qkv"}
        out = (self.o.weight, self.o.bias)
        none: Any = (None, bias, None, None, False, 0.0)
        y, _ = functional.multi_head_attention_forward(
            x, x, x, self.width, self.heads, *none, *out, use_separate_proj_weight=True, **weights
        )
        return y


def test_attention_that_is_told_its_width() -> None:
    net = Net(
        lambda m, x: m.b(m.t(m.a(x))), a=nn.Linear(6, 8), t=Attention(8, 2), b=nn.Linear(8, 2)
    )
    found = prove(net, TOKENS)
    plan = planc.compile(net.double(), TOKENS.double(), ratio=0.5)
    assert {change.name: change.after for change in plan.attributes if change.module == "t"} == {
        "width": 4
    }
    assert together(found, "a.weight:0", "t.q.weight:1", "t.k.weight:1", "t.v.weight:1")


def test_a_layer_that_is_converted_while_running() -> None:
    net = Net(
        lambda m, x: (m.c(m.b.to(x.dtype)(m.a(x))), (x > 0).nonzero()),
        a=nn.Linear(6, 8),
        b=nn.Linear(8, 4),
        c=nn.Linear(4, 2),
    )
    found = prove(net, TOKENS)
    assert sizes(found) == {"a.weight:0": 8, "b.weight:0": 4}
    assert found.graph.frontend == "record (real tensors)"  # others are not converted, or count


def test_attributes_that_are_copied_while_running() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        size = copy.deepcopy({"shape": copy.copy(m.shape), "count": m.count})
        return m.b(m.a(x).view(2, size["count"], *size["shape"]).flatten(2))

    net = Net(run, a=nn.Linear(6, 8), b=nn.Linear(8, 2), shape=(2, 4), count=5)
    assert prunable(prove(net, TOKENS), "module") == {"a.weight:0", "a.weight:0/rows"}


def test_patch_merging() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.a(x).permute(0, 2, 3, 1)
        corners = [y[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
        return m.b(m.n(torch.cat(corners, -1)))

    net = Net(run, a=conv(3, 4), n=nn.LayerNorm(16), b=nn.Linear(16, 2))
    found = prove(net, IMAGES)
    assert sizes(found) == {"a.weight:0": 4}
    assert found.groups[0].mixing == "layer norm over it"


def test_kernels_made_from_features() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        return torch.bmm(m.a(x), m.w(x.mean(1)).view(2, 8, -1)) @ m.o

    net = Net(run, a=nn.Linear(6, 8), w=nn.Linear(6, 32), o=torch.ones(4, 2))
    found = prove(net, TOKENS)
    assert together(found, "a.weight:0", "w.weight:0")
    assert prunable(found, "graph") == {group.name for group in found.groups}


# -- what the tracer cannot follow -----------------------------------------------------------------

PLAIN: dict[str, Any] = {
    "float": lambda m, y: y / float(y.shape[-1]),
    "float of an attribute": lambda m, y: (y / float(m.width)).view(2, 5, m.width),
    "int of a quotient": lambda m, y: y * int(y.shape[-1] / 3),
    "round": lambda m, y: y * round(y.shape[-1] * 0.3),
    "square root, imported before": lambda m, y: y / sqrt(y.shape[-1]),
    "a function of NumPy": lambda m, y: y / float(np.sqrt(y.shape[-1])),
    "length": lambda m, y: y / len(y[0, 0]),
}


@pytest.mark.parametrize("name", PLAIN)
def test_sizes_that_are_made_plain_numbers_stay(name: str) -> None:
    parts = {"a": nn.Linear(6, 8), "b": nn.Linear(8, 2), "width": 8}
    found = prove(Net(lambda m, x: m.b(PLAIN[name](m, m.a(x))), **parts), TOKENS)
    assert prunable(found, "module") == set()
    assert prunable(found, "graph") == {"a.weight:0"}
    reason = next(c.reason for c in found.equations("module").constraints)
    assert "made a plain number (by float(), int(), len(), ...)" in reason


@pytest.mark.parametrize("name", ["sqrt", "log", "log2", "log10"])
def test_functions_of_sizes_are_computed_again(name: str) -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        return m.b((y := m.a(x)) * getattr(math, name)(y.shape[-1]))  # type: ignore[no-any-return]

    found = prove(Net(run, a=nn.Linear(6, 8), b=nn.Linear(8, 2)), TOKENS)
    for target in ("module", "graph"):
        assert prunable(found, target) == {"a.weight:0"}
    assert found.mixing(0, "module") == "its width is used as a number"
    assert found.mixing(0, "graph") == ""


UNSEEN: dict[str, Any] = {
    "a float divided by it": lambda y: y * (1.0 / y.shape[-1]),
    "a function imported before": lambda y: y * log(y.shape[-1]),
}


@pytest.mark.parametrize("name", UNSEEN)
def test_numbers_that_were_made_unseen_are_found_when_the_plan_is_applied(name: str) -> None:
    net = Net(lambda m, x: m.b(UNSEEN[name](m.a(x))), a=nn.Linear(6, 8), b=nn.Linear(8, 2)).eval()
    plan = planc.compile(net, TOKENS, ratio=0.5)
    with pytest.raises(VerificationError, match="its code makes the number of sizes in a way"):
        planc.apply(plan, net)
    planc.apply(planc.compile(net, TOKENS, ratio=0.5, keep="a.*"), net)


def test_a_number_taken_from_a_value() -> None:
    net = Net(
        lambda m, x: m.b((y := m.a(x)) * y.abs().sum().item()),
        a=nn.Linear(6, 8),
        b=nn.Linear(8, 2),
    )
    assert together(prove(net, TOKENS), "a.weight:0", "b.weight:1")


@pytest.mark.parametrize(
    "index",
    [[3, 1, 0], [[0, 1], [1, 3]], [True, False, True, True], np.array([3, 1]), np.array([[2, 0]])],
    ids=str,
)
def test_an_index_that_is_a_list_of_positions(index: Any) -> None:
    net = Net(
        lambda m, x: m.b(m.a(x)[:, index].flatten(1, -2).sum(1)),
        a=nn.Linear(6, 8),
        b=nn.Linear(8, 2),
    )
    found = prove(net, torch.randn(2, 4, 6))
    assert together(found, "a.weight:0", "b.weight:1")


# -- random programs -------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(24))
def test_random_programs(seed: int) -> None:
    program = write(seed, length=5)
    found = prove(program.model(), program.inputs(), seeds=(seed,))
    assert found.groups or found.pins, program.text


# -- what has no rule ------------------------------------------------------------------------------


def test_an_operator_without_a_rule_pins() -> None:
    net = Net(lambda m, x: m.b(torch.linalg.qr(m.a(x))[0]), a=nn.Linear(6, 4), b=nn.Linear(4, 2))
    found = prove(net, TOKENS)
    assert not found.groups
    assert "has no rule" in reasons(found, "a.weight", 0)
    graph = planc.trace(net, TOKENS.double())
    with pytest.raises(
        AnalysisError, match=r"no rule for operator aten\.linalg_qr.*test_adversarial\.py"
    ):
        planc.analyze(graph, strict=True)
