"""Proven removals: gates and attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import planc
from tests.support.proving import (
    IMAGES,
    TOKENS,
    Net,
    conv,
    prove,
    prunable,
    reasons,
    sizes,
    together,
)


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


def test_squeeze_and_excitation_ties_to_its_stream() -> None:
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


def test_pieces_of_a_maxout_go_together() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        return m.b(y.view(2, 5, y.shape[2] // m.pieces, m.pieces).amax(-1))

    found = prove(Net(run, a=nn.Linear(6, 8), b=nn.Linear(4, 2), pieces=2), TOKENS)
    assert together(found, "a.weight:0", "b.weight:1")


def test_halves_of_a_gated_unit_go_together() -> None:
    net = Net(lambda m, x: m.b(functional.glu(m.a(x), 1)), a=conv(3, 8), b=conv(4, 2))
    assert sizes(prove(net, IMAGES)) == {"a.weight:0": 4}


def test_both_halves_of_a_swiglu_go_together() -> None:
    net = Net(
        lambda m, x: m.b((pair := m.a(x).chunk(2, -1))[0] * functional.silu(pair[1])),
        a=nn.Linear(6, 8),
        b=nn.Linear(4, 2),
    )
    assert sizes(prove(net, TOKENS)) == {"a.weight:0": 4}


def test_a_softmax_over_channels_mixes() -> None:
    found = prove(Net(lambda m, x: m.b(m.a(x).softmax(1)), a=conv(3, 4), b=conv(4, 2)), IMAGES)
    assert found.groups[0].mixing == "softmax over it"


def test_a_mean_over_channels_mixes() -> None:
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
            return y.topk(4, 1)[1], m.b(y)
        if pick == "sort":
            return m.b(y.sort(1)[0])
        return y.argmax(1), m.b(y)

    found = prove(Net(run, a=conv(3, 6), b=conv(6, 2)), IMAGES)
    assert not found.groups
    assert any(w in reasons(found, "a.weight", 0) for w in ("order", "positions"))


def test_the_largest_channels_without_their_positions_leave_as_many() -> None:
    net = Net(lambda m, x: m.b(m.a(x).topk(4, 1)[0]), a=conv(3, 6), b=conv(4, 2))
    found = prove(net, IMAGES)
    assert found.groups[0].mixing == "its largest values are picked"
    assert planc.compile(net, IMAGES.double(), ratio=0.9).groups[0].kept == 4


@pytest.mark.parametrize("same", [True, False])
def test_a_multi_head_attention_layer_shrinks(same: bool) -> None:
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


def test_attention_by_one_permuted_projection_shrinks() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        qkv = m.qkv(x).reshape(b, n, 3, m.heads, m.dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        y = (q @ k.transpose(-2, -1) * 0.5).softmax(-1) @ v
        return m.o(y.transpose(1, 2).reshape(b, n, m.heads * m.dim))

    found = prove(Net(run, qkv=nn.Linear(6, 24), o=nn.Linear(8, 2), heads=2, dim=4), TOKENS)
    assert {group.kind for group in found.groups} == {"heads", "head_dim"}
    assert prunable(found, "module") == {group.name for group in found.groups}


def test_heads_of_a_chunked_projection_shrink() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = (t.view(b, n, m.heads, -1).transpose(1, 2) for t in m.qkv(x).chunk(3, -1))
        y = functional.scaled_dot_product_attention(q, k, v)
        return m.o(y.transpose(1, 2).flatten(2))

    found = prove(Net(run, qkv=nn.Linear(6, 24), o=nn.Linear(8, 2), heads=2), TOKENS)
    assert {group.kind for group in found.groups} == {"heads", "head_dim"}
    assert prunable(found, "graph") == {group.name for group in found.groups}


def test_attention_by_separate_projections_shrinks() -> None:
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


def test_a_head_dimension_used_as_a_number_mixes_in_a_module_alone() -> None:
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


def grouped(repeat: Callable[[Any, Tensor], Tensor], **attention: bool) -> Net:
    """Attention of 8 queries in 2 groups, each with a key and a value."""

    def run(m: Any, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = (p(x).view(b, n, -1, m.dim).transpose(1, 2) for p in (m.q, m.k, m.v))
        k, v = repeat(m, k), repeat(m, v)
        y = functional.scaled_dot_product_attention(q, k, v, **attention)
        return m.o(y.transpose(1, 2).flatten(2))

    layers = {"q": nn.Linear(6, 24), "k": nn.Linear(6, 6), "v": nn.Linear(6, 6)}
    return Net(run, **layers, o=nn.Linear(24, 2), dim=3, times=4)


GROUPED = {
    "in the operator": grouped(lambda m, k: k, enable_gqa=True),
    "repeat_interleave": grouped(lambda m, k: k.repeat_interleave(m.times, 1)),
    "repeat_interleave of a literal": grouped(lambda m, k: torch.repeat_interleave(k, 4, dim=1)),
    "expand": grouped(lambda m, k: k[:, :, None].expand(-1, -1, m.times, -1, -1).flatten(1, 2)),
    "repeat": grouped(lambda m, k: k[:, :, None].repeat(1, 1, m.times, 1, 1).flatten(1, 2)),
}


@pytest.mark.long
@pytest.mark.parametrize("name", GROUPED)
def test_queries_of_a_key_are_heads_of_their_own(name: str) -> None:
    found = prove(GROUPED[name], TOKENS, seeds=(0,))
    sizes = {group.kind: group.size for group in found.groups if "heads" in group.kind}
    assert sizes == {"heads": 2, "query_heads": 4}
    fixed = {group.name for group in found.groups if group.kind == "query_heads"}
    everything = {group.name for group in found.groups}
    literal = name == "repeat_interleave of a literal"
    assert prunable(found, "module") == (everything - fixed if literal else everything)
    assert prunable(found, "graph") >= everything - fixed


def test_expanded_keys_go_with_their_queries() -> None:
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


def test_queries_and_keys_of_cross_attention_share_heads() -> None:
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


def test_rotary_frequencies_shrink_with_their_pairs() -> None:
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
def test_factors_of_an_einsum_shrink(equation: str) -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        y = torch.einsum(equation, m.a(x), m.w)
        return m.b(y.transpose(1, 2) if equation.endswith("b k i") else y)

    net = Net(run, a=nn.Linear(6, 6), w=torch.ones(EINSUMS[equation]), b=nn.Linear(4, 2))
    found = prove(net, TOKENS)
    assert len(prunable(found, "module")) == 2


def test_an_einsum_of_three_operands_keeps_heads() -> None:
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


def test_batched_products_broadcast() -> None:
    net = Net(
        lambda m, x: (m.a(x)[:, None] @ m.w @ m.u).sum(1),
        a=nn.Linear(6, 4),
        w=torch.ones(3, 4, 5),
        u=torch.ones(5, 2),
    )
    found = prove(net, TOKENS)
    assert prunable(found, "module") == {"w:0/heads", "w:1", "w:2"}
    assert together(found, "a.weight:0", "w:1")
