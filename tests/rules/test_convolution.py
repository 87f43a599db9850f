"""Convolutions of every kind, as layers, functions and the operators behind them."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision.ops import DeformConv2d

import planc
from planc.rules.families import convolution
from tests.rules.coverage import unseen
from tests.support.proving import Net, prove, prunable, reasons, together

ops = torch.ops.aten
LAYERS = {
    (1, False): nn.Conv1d,
    (2, False): nn.Conv2d,
    (3, False): nn.Conv3d,
    (1, True): nn.ConvTranspose1d,
    (2, True): nn.ConvTranspose2d,
    (3, True): nn.ConvTranspose3d,
}


def chain(rank: int, transposed: bool, groups: int, bias: bool = True) -> nn.Module:
    plain, layer = LAYERS[rank, False], LAYERS[rank, transposed]
    inner = layer(4, 8, 2, groups=groups, bias=bias, stride=2)
    return nn.Sequential(plain(3, 4, 1), inner, nn.ReLU(), plain(8, 2, 1))


def images(rank: int) -> torch.Tensor:
    return torch.randn(2, 3, *[4] * rank)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("padding", [0, 1])
def test_a_kernel_of_one_leaves_its_dimension_free(transposed: bool, padding: int) -> None:
    layer = LAYERS[2, transposed](1, 2, (2, 1), padding=(0, padding))

    def run(m: Net, x: torch.Tensor) -> torch.Tensor:
        return m.c(m.a(x)[:, None]).sum(-1)

    found = prove(Net(run, a=nn.Linear(6, 4), c=layer), torch.randn(2, 3, 6))
    assert bool(reasons(found, "a.weight", 0)) == bool(padding)


def direct(transposed: bool, groups: int) -> Net:
    shape = (4, 8 // groups, 2, 2) if transposed else (8, 4 // groups, 2, 2)

    def run(m: Net, x: torch.Tensor) -> torch.Tensor:
        y = ops.convolution(m.a(x), m.w, m.v, [2, 2], [0, 0], [1, 1], transposed, [0, 0], groups)
        return m.b(y)

    return Net(
        run, a=nn.Conv2d(3, 4, 1), w=torch.ones(shape), v=torch.ones(8), b=nn.Conv2d(8, 2, 1)
    )


@pytest.mark.long
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_channels_go_on_both_sides(rank: int, transposed: bool, groups: int) -> None:
    found = prove(chain(rank, transposed, groups, bias=groups != 2), images(rank), seeds=(0,))
    assert prunable(found, "module") == {group.name for group in found.groups} != set()
    assert together(found, "1.weight:1" if transposed else "1.weight:0", "3.weight:1")
    assert "kernel" in reasons(found, "1.weight", 2)


@pytest.mark.long
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("transposed", [False, True])
def test_the_operator_behind_them(transposed: bool, groups: int) -> None:
    found = prove(direct(transposed, groups), images(2), seeds=(0,))
    wanted = {group.name for group in found.groups if group.kind == "channels"}
    assert wanted <= prunable(found, "graph")
    assert together(found, "v:0", "b.weight:1")


def test_images_without_a_batch() -> None:
    found = prove(chain(2, False, 2), images(2)[0])
    assert prunable(found, "module") == {group.name for group in found.groups}


def test_groups_taken_from_a_shape_follow_it() -> None:
    net = Net(
        lambda m, x: m.b(functional.conv2d(y := m.a(x), m.w, groups=y.shape[1])),
        a=nn.Conv2d(3, 4, 1),
        w=torch.ones(4, 1, 2, 2),
        b=nn.Conv2d(4, 2, 1),
    )
    found = prove(net, images(2))
    assert prunable(found, "module") == {group.name for group in found.groups} != set()


def test_one_kernel_serves_all_channels() -> None:
    """A fixed filter, repeated for each channel (blur pools)."""
    net = Net(
        lambda m, x: m.b(
            functional.conv2d(y := m.a(x), m.w.expand(y.shape[1], -1, -1, -1), groups=y.shape[1])
        ),
        a=nn.Conv2d(3, 4, 1),
        w=torch.ones(1, 1, 2, 2),
        b=nn.Conv2d(4, 2, 1),
    )
    found = prove(net, images(2))
    assert prunable(found, "module") == {group.name for group in found.groups} != set()


def test_a_learned_canvas_keeps_its_positions() -> None:
    net = Net(
        lambda m, x: m.b(m.a(m.canvas + x)),
        a=nn.Conv2d(3, 4, 1),
        b=nn.Conv2d(4, 2, 1),
        canvas=torch.ones(1, 3, 4, 4),
    )
    found = prove(net, images(2))
    assert reasons(found, "canvas", 1)
    assert reasons(found, "canvas", 2)


def deformable(groups: int = 1, offset_groups: int = 1, mask: bool = False) -> Net:
    """A deformable convolution, with the convolutions that give its offsets and its mask."""

    def run(m: Net, x: torch.Tensor) -> torch.Tensor:
        y = m.a(x).relu()
        return m.o(m.d(y, m.f(y), m.g(y).sigmoid() if mask else None).relu())

    return Net(
        run,
        a=nn.Conv2d(3, 8, 1),
        f=nn.Conv2d(8, 18 * offset_groups, 3, padding=1),
        g=nn.Conv2d(8, 9 * offset_groups, 3, padding=1),
        d=DeformConv2d(8, 12, 3, padding=1, groups=groups),
        o=nn.Conv2d(12, 2, 1),
    )


DEFORMABLE = [(1, 1, False), (1, 1, True), (2, 1, False), (1, 2, False), (2, 2, True), (4, 2, True)]


@pytest.mark.long
@pytest.mark.parametrize(("groups", "offset_groups", "mask"), DEFORMABLE)
def test_channels_of_a_deformable_convolution_shrink_and_its_offsets_stay(
    groups: int, offset_groups: int, mask: bool
) -> None:
    found = prove(deformable(groups, offset_groups, mask), images(2), seeds=(0,))
    names = prunable(found, "module")
    assert names >= {group.name for group in found.groups if group.kind != "groups"} != set()
    assert together(found, "a.weight:0", "d.weight:1", "f.weight:1")
    assert together(found, "d.weight:0", "o.weight:1")
    assert reasons(found, "f.weight", 0)
    assert ("sampling" in reasons(found, "g.weight", 0)) == mask
    plan = planc.compile(deformable(groups, offset_groups, mask).eval(), images(2), ratio=0.5)
    changed = {c.name: c.after for c in plan.attributes if c.module == "d"}
    assert changed["in_channels"] == 4


def test_every_operator_is_exercised() -> None:
    cases = [(chain(rank, transposed, 2), (images(rank),)) for rank, transposed in LAYERS]
    cases.append((direct(False, 2), (images(2),)))
    assert unseen(convolution, cases) <= {"aten._convolution", "torchvision.deform_conv2d"}
