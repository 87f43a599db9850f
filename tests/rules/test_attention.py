"""Scaled dot product attention: heads, what is inside them, and the scale."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.support.proving import Net, prove, prunable, reasons, together

TOKENS = torch.randn(2, 3, 6)


def attention(**given: Any) -> Net:
    def run(m: Any, x: Tensor) -> Tensor:
        q, k, v = (p(x).view(2, 3, -1, m.dim).transpose(1, 2) for p in (m.q, m.k, m.v))
        named = {name: m.mask if name == "attn_mask" else value for name, value in given.items()}
        return m.o(
            functional.scaled_dot_product_attention(q, k, v, **named).transpose(1, 2).flatten(2)
        )

    return Net(
        run,
        q=nn.Linear(6, 12),
        k=nn.Linear(6, 12),
        v=nn.Linear(6, 12),
        o=nn.Linear(12, 2),
        dim=4,
        mask=given.get("attn_mask", 0),
    )


MASKS = {
    "none": {},
    "causal": {"is_causal": True},
    "scale": {"scale": 0.25},
    "shared mask": {"attn_mask": torch.randn(3, 3)},
    "mask per head": {"attn_mask": torch.randn(3, 3, 3)},
    "mask per example": {"attn_mask": torch.randn(2, 1, 3, 3)},
}


@pytest.mark.long
@pytest.mark.parametrize("name", MASKS)
def test_heads_and_what_is_inside(name: str) -> None:
    found = prove(attention(**MASKS[name]), TOKENS, seeds=(0,))
    heads = next(group for group in found.groups if group.kind == "heads")
    assert heads.size == 3
    assert {m.tensor for m in heads.members} >= {"q.weight", "k.weight", "v.weight", "o.weight"}
    inside = [group for group in found.groups if group.kind == "head_dim"]
    assert [(group.size, group.rows) for group in inside] == [(12, 3), (12, 3)]
    assert together(found, "q.weight:0", "k.weight:0")
    assert together(found, "v.weight:0", "o.weight:1")
    assert prunable(found, "graph") == {group.name for group in found.groups}
    assert ("mask:0" in {f"{m.tensor}:{m.dim}" for m in heads.members}) == (name == "mask per head")


@pytest.mark.long
def test_the_default_scale_mixes_in_the_module_alone() -> None:
    found = prove(attention(), TOKENS, seeds=(0,))
    at = next(g for g, group in enumerate(found.groups) if group.name == "q.weight:0")
    assert "scale" in found.mixing(at, "module")
    assert not found.mixing(at, "graph")
    assert not prove(attention(scale=0.25), TOKENS, seeds=(0,)).groups[at].mixing


def test_positions_of_learned_queries_are_free_until_the_output() -> None:
    net = Net(
        lambda m, x: functional.scaled_dot_product_attention(m.q.expand(2, -1, -1), x, x) @ m.o,
        q=torch.ones(1, 4, 6),
        o=torch.ones(6, 2),
    )
    found = prove(net, TOKENS)
    assert "output" in reasons(found, "q", 1)


def test_learned_keys_mix() -> None:
    net = Net(
        lambda m, x: functional.scaled_dot_product_attention(x, m.k, m.v),
        k=torch.ones(2, 5, 6),
        v=torch.ones(2, 5, 6),
    )
    found = prove(net, TOKENS)
    assert together(found, "k:1", "v:1")
    assert found.groups[0].mixing == "softmax over it"


@pytest.mark.long
def test_what_multihead_attention_asserts_of_its_widths_holds() -> None:
    """Its inner width is its queries', which nothing else ties to that of its result."""

    def run(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        return m.b(m.mha(m.q.expand(2, -1, -1), y, y)[0])

    net = Net(
        run,
        a=nn.Linear(6, 8),
        q=torch.ones(2, 8),
        mha=nn.MultiheadAttention(8, 4, batch_first=True),
        b=nn.Linear(8, 2),
    )
    found = prove(net, TOKENS)
    assert {"q:1", "mha.out_proj.weight:0"} <= prunable(found, "module")
