"""Proven removals: parameters in unusual places."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tests.support.proving import (
    IMAGES,
    TOKENS,
    Net,
    conv,
    free,
    prove,
    prunable,
    together,
)


def test_one_parameter_as_weight_and_as_bias() -> None:
    net = Net(
        lambda m, x: m.b(m.a(x) * m.v[:, None, None] + m.v[:, None, None]),
        a=conv(3, 4),
        v=torch.ones(4),
        b=conv(4, 2),
    )
    found = prove(net, IMAGES)
    assert together(found, "a.weight:0", "v:0", "b.weight:1")


def test_one_parameter_serves_as_both_factors() -> None:
    net = Net(lambda m, x: m.b(x @ m.w @ m.w.t() @ m.w), w=torch.ones(6, 4), b=nn.Linear(4, 2))
    found = prove(net, TOKENS)
    assert together(found, "w:1", "b.weight:1")
    assert not free(found, "w", 0)


def test_broadcast_scales_shrink_with_their_channels() -> None:
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


def test_a_module_called_twice_ties_both_streams() -> None:
    net = Net(lambda m, x: m.b(m.s(m.s(m.a(x)).relu())), a=conv(3, 4), s=conv(4, 4), b=conv(4, 2))
    found = prove(net, IMAGES)
    assert together(found, "a.weight:0", "s.weight:0", "s.weight:1", "b.weight:1")


def test_a_module_on_two_streams_ties_them() -> None:
    net = Net(
        lambda m, x: m.c(m.s(m.a(x))) + m.c(m.s(m.b(x))),
        a=conv(3, 4),
        b=conv(3, 4),
        s=conv(4, 5),
        c=conv(5, 2),
    )
    found = prove(net, IMAGES)
    assert together(found, "a.weight:0", "b.weight:0", "s.weight:1")


def test_a_weight_shared_between_layers_ties_them() -> None:
    a, b = nn.Linear(6, 6), nn.Linear(6, 6)
    b.weight = a.weight
    found = prove(
        Net(lambda m, x: m.c(m.b(m.a(m.i(x)))), i=nn.Linear(6, 6), a=a, b=b, c=nn.Linear(6, 2)),
        TOKENS,
    )
    assert together(found, "i.weight:0", "a.weight:0", "a.weight:1", "b.bias:0", "c.weight:1")


def test_a_tied_embedding_stays_tied_to_its_head() -> None:
    embed = nn.Embedding(9, 6)
    head = nn.Linear(6, 9, bias=False)
    head.weight = embed.weight
    net = Net(lambda m, x: m.h(m.f(m.e(x)).relu()), e=embed, f=nn.Linear(6, 6), h=head)
    found = prove(net, torch.arange(8).reshape(2, 4))
    assert not free(found, "e.weight", 0)
    assert together(found, "e.weight:1", "f.weight:0", "f.weight:1")


def test_learned_positions_follow_the_stream() -> None:
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


def test_slopes_of_channels_shrink_with_them() -> None:
    net = nn.Sequential(conv(3, 4), nn.PReLU(4), conv(4, 4), nn.PReLU(), conv(4, 2))
    found = prove(net, IMAGES)
    assert together(found, "0.weight:0", "1.weight:0", "2.weight:1")


def test_all_widths_of_a_bilinear_layer_shrink() -> None:
    net = Net(
        lambda m, x: m.c(m.bi(m.a(x), m.b(x))),
        a=nn.Linear(6, 4),
        b=nn.Linear(6, 3),
        bi=nn.Bilinear(4, 3, 5),
        c=nn.Linear(5, 2),
    )
    found = prove(net, TOKENS)
    assert prunable(found, "module") == {"a.weight:0", "b.weight:0", "bi.weight:0"}
