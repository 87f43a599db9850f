"""Proven removals: grouped, transposed and functional convolutions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.support.proving import (
    IMAGES,
    Net,
    conv,
    prove,
    prunable,
    together,
)


@pytest.mark.long
@pytest.mark.parametrize(
    ("groups", "inner", "outer"), [(2, 4, 6), (3, 9, 6), (4, 8, 8), (8, 16, 8), (2, 2, 6)]
)
def test_channels_of_a_grouped_convolution_shrink(groups: int, inner: int, outer: int) -> None:
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
def test_multiplied_depthwise_channels_go_together(multiplier: int) -> None:
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
def test_channels_of_a_transposed_convolution_shrink(groups: int) -> None:
    net = Net(
        lambda m, x: m.c(m.b(m.a(x))),
        a=conv(3, 4),
        b=nn.ConvTranspose2d(4, 8, 3, groups=groups, stride=2),
        c=conv(8, 2),
    )
    found = prove(net, IMAGES)
    assert prunable(found, "module") == {group.name for group in found.groups}


@pytest.mark.parametrize("rank", [1, 3])
def test_convolutions_of_one_and_three_dimensions_shrink(rank: int) -> None:
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


def test_grouped_convolutions_of_different_groups_are_proven() -> None:
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


@pytest.mark.long
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
