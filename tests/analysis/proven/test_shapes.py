"""Proven removals: reordered and reshaped values."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import planc
from tests.support.proving import (
    IMAGES,
    Net,
    conv,
    free,
    prove,
    prunable,
    reasons,
    sizes,
    together,
)


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
def test_shuffled_channels_shrink(groups: int) -> None:
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


def test_rows_that_straddle_are_proven() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.a(x).permute(0, 2, 3, 1)
        one = torch.einsum("nhwgc,gcd->nhwd", y.reshape(2, 6, 6, 2, -1), m.p)
        two = torch.einsum("nhwgc,gcd->nhwd", y.reshape(2, 6, 6, 3, -1), m.q)
        return one + two

    prove(Net(run, a=conv(3, 12), p=torch.ones(2, 6, 3), q=torch.ones(3, 4, 3)), IMAGES)


def test_a_flattened_width_is_found_again() -> None:
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


def test_views_of_views_keep_their_channels() -> None:
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


def test_unfolded_patches_shrink_with_their_channels() -> None:
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


def test_padded_shortcuts_stay() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        short = functional.pad(y[:, :, ::2, ::2], (0, 0, 0, 0, m.extra, m.extra))
        return m.c(short + m.b(y))

    net = Net(run, a=conv(3, 4), b=conv(4, 8, stride=2), c=conv(8, 2), extra=2)
    found = prove(net, IMAGES)
    assert sizes(found) == {"a.weight:0": 4}
    assert "never there" in reasons(found, "b.weight", 0)


def test_a_skip_beside_upsampling_shrinks() -> None:
    net = Net(
        lambda m, x: m.c(
            torch.cat([y := m.a(x), functional.interpolate(m.b(y), scale_factor=2.0)], 1)
        ),
        a=conv(3, 4),
        b=conv(4, 5, stride=2),
        c=conv(9, 2),
    )
    assert sizes(prove(net, IMAGES)) == {"a.weight:0": 4, "b.weight:0": 5}
