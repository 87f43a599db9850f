"""Pooling, resampling, patches: channels pass through, positions stay."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

import planc
from planc.rules.families import pooling
from tests.rules.coverage import Case, unseen
from tests.support.proving import Net, free, prove, prunable, reasons, together

ops = torch.ops.aten
GRID = torch.rand(2, 3, 3, 2) * 2 - 1
BOXES = torch.tensor([[0.0, 0.0, 0.0, 3.0, 3.0], [0.0, 1.0, 0.0, 3.0, 2.0]])  # of one image


def images(op: Any, rank: int = 2, width: int = 4, out: int = 4, **parts: Any) -> Net:
    conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[rank]
    return Net(
        lambda m, x: m.b(op(m, m.a(x))), a=conv(3, width, 1), b=conv(out, 2, 1), rank=rank, **parts
    )


def pooled(name: str, rank: int, *args: Any) -> Net:
    def op(m: Net, y: Tensor) -> Tensor:
        y = getattr(functional, f"{name}{rank}d")(y, *args)
        return y[0] if isinstance(y, tuple) else y

    return images(op, rank)


def resampled(mode: str, rank: int, **named: Any) -> Net:
    return images(
        lambda m, y: functional.interpolate(y, scale_factor=2.0, mode=mode, **named), rank
    )


CASES: dict[str, Net] = {}
for _rank in (1, 2, 3):
    CASES |= {
        f"max_pool{_rank}d": pooled("max_pool", _rank, 2),
        f"avg_pool{_rank}d": pooled("avg_pool", _rank, 2, 1),
        f"adaptive_avg_pool{_rank}d": pooled("adaptive_avg_pool", _rank, 2),
        f"adaptive_max_pool{_rank}d": pooled("adaptive_max_pool", _rank, 2),
        f"max_pool{_rank}d_with_indices": pooled("max_pool", _rank, 2, 2, 0, 1, False, True),
        f"upsample_nearest{_rank}d": resampled("nearest", _rank),
        f"nearest_exact{_rank}d": resampled("nearest-exact", _rank),
    }
CASES |= {
    "lp_pool": pooled("lp_pool", 2, 2.0, 2),
    "upsample_linear1d": resampled("linear", 1),
    "upsample_bilinear2d": resampled("bilinear", 2),
    "upsample_bicubic2d": resampled("bicubic", 2),
    "upsample_trilinear3d": resampled("trilinear", 3),
    "antialiased": resampled("bilinear", 2, antialias=True),
    "antialiased bicubic": resampled("bicubic", 2, antialias=True),
    "_adaptive_avg_pool2d": images(lambda m, y: ops._adaptive_avg_pool2d(y, [2, 2])),
    "_adaptive_avg_pool3d": images(lambda m, y: ops._adaptive_avg_pool3d(y, [2, 2, 2]), 3),
    "global pool": images(lambda m, y: functional.avg_pool2d(y, y.shape[2:])),
    "upsampled to a shape": images(
        lambda m, y: functional.interpolate(y[:, :, 1:], y.shape[2:]) + y
    ),
    "pixel_shuffle": images(lambda m, y: functional.pixel_shuffle(y, 2), width=12, out=3),
    "pixel_unshuffle": images(lambda m, y: functional.pixel_unshuffle(y, 2), out=16),
    "channel_shuffle": images(lambda m, y: m.s(y), width=8, out=8, s=nn.ChannelShuffle(2)),
    "native_channel_shuffle": images(
        lambda m, y: ops.native_channel_shuffle(y, m.s.groups),
        width=8,
        out=8,
        s=nn.ChannelShuffle(4),
    ),
    "unfold and fold": images(
        lambda m, y: functional.fold(functional.unfold(y, 2, stride=2), (4, 4), 2, stride=2)
    ),
    "grid_sample": images(lambda m, y: functional.grid_sample(y, GRID.to(y), align_corners=False)),
    "grid_sampler_2d": images(lambda m, y: ops.grid_sampler_2d(y, GRID.to(y), 0, 0, False)),
    "roi_align": images(lambda m, y: torchvision.ops.roi_align(y, BOXES.to(y), 2)),
    "roi_pool": images(lambda m, y: torchvision.ops.roi_pool(y, BOXES.to(y), 2)),
}


def inputs(net: Net) -> Tensor:
    return torch.randn(2, 3, *[4] * net.rank)


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_channels_pass_through(name: str) -> None:
    net = CASES[name]
    found = prove(net, inputs(net), seeds=(0,))
    assert free(found, "a.weight", 0)
    assert prunable(found, "module") == {group.name for group in found.groups}
    assert together(found, "a.weight:0", "b.weight:1")


def test_pooling_over_features_pins_them() -> None:
    net = Net(
        lambda m, x: m.b(functional.avg_pool1d(m.a(x), 2)), a=nn.Linear(6, 4), b=nn.Linear(2, 2)
    )
    assert "spatial dimension" in reasons(prove(net, torch.randn(2, 3, 6)), "a.weight", 0)


def test_a_window_with_steps_or_a_rim_is_wider_than_one_position() -> None:
    for window in ((1, 2), (2, 1, 1)):
        net = Net(
            lambda m, x, window=window: functional.avg_pool1d(m.a(x), *window).sum(-1),
            a=nn.Linear(6, 4),
        )
        assert "spatial dimension" in reasons(prove(net, torch.randn(2, 3, 6)), "a.weight", 0)


@pytest.mark.long
@pytest.mark.parametrize("channels", [None, 1, 4])
@pytest.mark.parametrize("size", [tuple, list, torch.Size])
def test_a_grid_does_not_read_the_number_of_channels(channels: int | None, size: Any) -> None:
    def run(m: Any, x: torch.Tensor) -> torch.Tensor:
        x = m.a(x)
        n, c, h, w = x.shape
        grid = functional.affine_grid(m.t, size((n, channels or c, h, w)), align_corners=False)
        return m.b(functional.grid_sample(x, grid, align_corners=False))

    net = Net(run, a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(4, 2, 1), t=torch.randn(2, 2, 3))
    found = prove(net, torch.randn(2, 3, 5, 5))
    assert prunable(found, "module") == prunable(found, "graph") == {"a.weight:0"}
    assert reasons(found, "t", 1)
    assert not planc.compile(net, torch.randn(2, 3, 5, 5).double(), ratio=0.5).constraints


def test_every_operator_is_exercised() -> None:
    cases: list[Case] = [(net.float(), (inputs(net),)) for net in CASES.values()]
    left = unseen(pooling, cases)
    ungridded = {"aten.grid_sampler_3d", "aten.affine_grid_generator"}
    assert left <= {"aten.max_pool1d_with_indices", *ungridded}
