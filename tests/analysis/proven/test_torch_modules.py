"""Proven removals: modules of torch."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

import planc
from tests.support.proving import (
    IMAGES,
    TOKENS,
    Net,
    conv,
    prove,
    prunable,
    sizes,
    together,
)


def test_one_layer_registered_twice() -> None:
    one = nn.Linear(6, 6)
    found = prove(nn.Sequential(nn.Linear(6, 6), one, nn.ReLU(), one, nn.Linear(6, 2)), TOKENS)
    assert together(found, "0.weight:0", "1.weight:0", "1.weight:1", "4.weight:1")


@pytest.mark.long
@pytest.mark.parametrize("norm_first", [False, True])
def test_an_encoder_layer_shrinks_in_all_kinds(norm_first: bool) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 7, batch_first=True, norm_first=norm_first)
    found = prove(nn.Sequential(nn.Linear(6, 8), layer, nn.Linear(8, 2)), TOKENS, seeds=(0,))
    assert {group.kind for group in found.groups} == {"features", "heads", "head_dim"}
    assert "1.linear1.weight:0" in prunable(found, "module")
    assert prunable(found, "graph") == {group.name for group in found.groups}


@pytest.mark.parametrize("norm", ["weight_norm", "spectral_norm"])
def test_parametrized_weights_shrink(norm: str) -> None:
    layer = getattr(nn.utils.parametrizations, norm)(nn.Linear(6, 8))
    found = prove(nn.Sequential(layer, nn.Linear(8, 5), nn.Linear(5, 2)), TOKENS)
    assert "1.weight:0" in prunable(found, "module")


def test_a_checkpointed_branch_shrinks() -> None:
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


def test_windows_of_positions_leave_channels_free() -> None:
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


def test_merged_patches_shrink_with_their_channels() -> None:
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
