"""Normalisations: those over channels of their own leave channels apart, the others mix them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import planc
from planc.rules.families import normalization
from tests.rules.coverage import unseen
from tests.support.proving import Net, prove, prunable, together

ops = torch.ops.aten
IMAGES = torch.randn(2, 3, 4, 4)
TOKENS = torch.randn(2, 3, 6)


def images(layer: Any, **parts: Any) -> Net:
    return Net(
        lambda m, x: m.b(layer(m, m.a(x))),
        a=nn.Conv2d(3, 4, 1),
        b=nn.Conv2d(4, 2, 1),
        v=torch.ones(4),
        w=torch.ones(4),
        **parts,
    )


def tokens(layer: Any, **parts: Any) -> Net:
    return Net(
        lambda m, x: m.b(layer(m, m.a(x))),
        a=nn.Linear(6, 4),
        b=nn.Linear(4, 2),
        v=torch.ones(4),
        w=torch.ones(4),
        **parts,
    )


MEAN = torch.zeros(4, dtype=torch.float64)
CASES: dict[str, tuple[Net, str]] = {
    "batch_norm": (images(lambda m, y: m.n(y), n=nn.BatchNorm2d(4)), ""),
    "batch statistics": (
        images(lambda m, y: functional.batch_norm(y, None, None, m.v, m.w, training=True)),
        "",
    ),
    "native_batch_norm": (
        images(
            lambda m, y: ops.native_batch_norm(y, m.v, m.w, m.v.sin(), m.w.exp(), False, 0.1, 1e-5)[
                0
            ]
        ),
        "",
    ),
    "_native_batch_norm_legit": (
        images(lambda m, y: ops._native_batch_norm_legit.no_stats(y, m.v, m.w, True, 0.1, 1e-5)[0]),
        "",
    ),
    "_native_batch_norm_legit_no_training": (
        images(
            lambda m, y: ops._native_batch_norm_legit_no_training(
                y, m.v, m.w, m.v.sin(), m.w.exp(), 0.1, 1e-5
            )[0]
        ),
        "",
    ),
    "instance_norm": (images(lambda m, y: m.n(y), n=nn.InstanceNorm2d(4, affine=True)), ""),
    "instance statistics": (
        images(lambda m, y: m.n(y), n=nn.InstanceNorm2d(4, track_running_stats=True)),
        "",
    ),
    "group_norm": (images(lambda m, y: m.n(y), n=nn.GroupNorm(2, 4)), "group norm over it"),
    "group_norm of one": (images(lambda m, y: m.n(y), n=nn.GroupNorm(4, 4)), ""),
    "layer_norm": (tokens(lambda m, y: m.n(y), n=nn.LayerNorm(4)), "layer norm over it"),
    "layer_norm of two": (
        images(lambda m, y: m.n(y), n=nn.LayerNorm((4, 4, 4))),
        "layer norm over it",
    ),
    "native_layer_norm": (
        tokens(lambda m, y: ops.native_layer_norm(y, [y.shape[-1]], m.v, m.w, 1e-5)[0]),
        "layer norm over it",
    ),
    "rms_norm": (tokens(lambda m, y: m.n(y), n=nn.RMSNorm(4)), "rms norm over it"),
    "softmax": (images(lambda m, y: y.softmax(1)), "softmax over it"),
    "softmax of positions": (images(lambda m, y: y.softmax(2) + y.log_softmax(3)), ""),
    "log_softmax": (tokens(lambda m, y: y.log_softmax(-1)), "softmax over it"),
    "_softmax": (tokens(lambda m, y: ops._softmax(y, -1, False)), "softmax over it"),
    "_log_softmax": (tokens(lambda m, y: ops._log_softmax(y, -1, False)), "softmax over it"),
    "_safe_softmax": (tokens(lambda m, y: ops._safe_softmax(y, -1)), "softmax over it"),
    "special_softmax": (
        tokens(lambda m, y: ops.special_softmax(y, -1) + ops.special_log_softmax(y, 1)),
        "softmax over it",
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_norms_over_several_shapes_mix_as_listed(name: str) -> None:
    net, mixing = CASES[name]
    found = prove(net, TOKENS if isinstance(net.a, nn.Linear) else IMAGES)
    assert together(found, "a.weight:0", "b.weight:1")
    assert prunable(found, "graph") == {group.name for group in found.groups}
    assert mixing in {group.mixing for group in found.groups}
    assert mixing or not any(group.mixing for group in found.groups)


def test_a_whole_group_can_go_without_the_others_noticing() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.GroupNorm(4, 8), nn.Conv2d(8, 2, 1))
    found = prove(net, IMAGES)
    mixing = {group.name: group.mixing for group in found.groups}
    assert mixing == {"0.weight:0": "group norm over it", "0.weight:0/groups": ""}


def test_softmax_of_zero_is_not_zero() -> None:
    net = Net(lambda m, x: m.a(x).softmax(2).sum(1), a=nn.Conv2d(3, 4, 1))
    assert "not zero" in prove(net, IMAGES).groups[0].mixing


def test_every_operator_is_exercised() -> None:
    left = unseen(
        normalization,
        [
            (net.double(), ((TOKENS if isinstance(net.a, nn.Linear) else IMAGES).double(),))
            for net, _ in CASES.values()
        ],
    )
    assert left <= {
        *("aten.cudnn_batch_norm", "aten._batch_norm_with_update", "aten._fused_rms_norm"),
        *("aten._weight_norm", "aten._weight_norm_interface"),  # tests/modules/test_hooks.py
    }


# -- two values at least ---------------------------------------------------------------------------

VECTORS = torch.randn(4, 6)


def vectors(layer: Any, width: int = 6, **parts: Any) -> Net:
    return Net(
        lambda m, x: m.b(layer(m, m.a(x))),
        a=nn.Linear(6, width),
        b=nn.Linear(width, 2),
        **parts,
    )


def group_of_pixels(m: Any, y: torch.Tensor) -> Any:
    return m.n(y[:, :, None, None]).flatten(1)


TWO: dict[str, tuple[Net, int]] = {  # how many of how many channels the strongest plan keeps
    "group norm": (vectors(lambda m, y: m.n(y), n=nn.GroupNorm(3, 6)), 6),
    "group norm of four": (vectors(lambda m, y: m.n(y), 12, n=nn.GroupNorm(3, 12)), 6),
    "group norm of all": (vectors(lambda m, y: m.n(y), n=nn.GroupNorm(1, 6)), 2),
    "group norm of single pixels": (vectors(group_of_pixels, n=nn.GroupNorm(3, 6)), 6),
    "group norm as a function": (vectors(lambda m, y: functional.group_norm(y, 2)), 4),
    "layer norm": (vectors(lambda m, y: m.n(y), n=nn.LayerNorm(6)), 2),
    "layer norm as a function": (
        vectors(lambda m, y: functional.layer_norm(y, (y.shape[-1],))),
        2,
    ),
    "rms norm": (vectors(lambda m, y: m.n(y), n=nn.RMSNorm(6)), 2),
    "instance norm": (
        vectors(lambda m, y: functional.instance_norm(y[:, None]).squeeze(1)),
        2,
    ),
    "batch statistics of each row": (
        vectors(lambda m, y: functional.batch_norm(y[None], None, None, training=True)[0]),
        2,
    ),
}


@pytest.mark.parametrize("name", TWO)
def test_two_values_stay_wherever_nothing_else_is_averaged_over(name: str) -> None:
    net, kept = TWO[name]
    net.eval()
    plan = planc.compile(net, VECTORS, ratio=0.95)
    smaller = planc.apply(plan, net)
    assert smaller.a.weight.shape[0] == kept
    planc.verify(plan, net, smaller, VECTORS)


ONE: dict[str, tuple[Net, torch.Tensor]] = {
    "group norm of images": (images(lambda m, y: m.n(y), n=nn.GroupNorm(1, 4)), IMAGES),
    "batch norm": (images(lambda m, y: m.n(y), n=nn.BatchNorm2d(4)), IMAGES),
    "instance norm of images": (images(lambda m, y: m.n(y), n=nn.InstanceNorm2d(4)), IMAGES),
    "softmax": (tokens(lambda m, y: y.softmax(-1)), TOKENS),
}


@pytest.mark.parametrize("name", ONE)
def test_one_value_may_stay_where_others_are_averaged_over(name: str) -> None:
    net, args = ONE[name]
    net.eval()
    plan = planc.compile(net, args, ratio=0.95)
    assert planc.apply(plan, net).a.weight.shape[0] == 1
