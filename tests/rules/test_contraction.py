"""Contractions: what is summed over is shared by both operands, what stays is the result's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import planc
from planc.rules.families import contraction
from tests.rules.coverage import unseen
from tests.support.proving import Net, prove, prunable, reasons, together

ops = torch.ops.aten
TOKENS = torch.randn(2, 3, 6)


def net(run: Any, **parts: Any) -> Net:
    """An operator after one linear layer."""
    return Net(lambda m, x: run(m, m.a(x)), a=nn.Linear(6, 4), **parts)


def p(*shape: int) -> Tensor:
    return torch.ones(shape)


CASES: dict[str, tuple[Net, list[tuple[str, ...]]]] = {
    "linear": (
        net(lambda m, y: m.b(m.c(y)), b=nn.Linear(5, 2), c=nn.Linear(4, 5, bias=False)),
        [("a.weight:0", "c.weight:1"), ("c.weight:0", "b.weight:1")],
    ),
    "linear with a vector": (
        net(lambda m, y: functional.linear(y, m.w), w=p(4)),
        [("a.weight:0", "w:0")],
    ),
    "matmul": (
        net(lambda m, y: y @ m.w @ m.v, w=p(4, 5), v=p(5, 2)),
        [("a.weight:0", "w:0"), ("w:1", "v:0")],
    ),
    "matmul of a vector": (net(lambda m, y: y @ m.w, w=p(4)), [("a.weight:0", "w:0")]),
    "vector times matrix": (
        net(lambda m, y: m.w @ y.transpose(1, 2), w=p(4)),
        [("a.weight:0", "w:0")],
    ),
    "vector times vector": (
        net(lambda m, y: torch.matmul(y[0, 0], m.w), w=p(4)),
        [("a.weight:0", "w:0")],
    ),
    "mm": (
        net(lambda m, y: torch.mm(y.flatten(0, 1), m.w).mm(m.v), w=p(4, 5), v=p(5, 2)),
        [("a.weight:0", "w:0"), ("w:1", "v:0")],
    ),
    "bmm": (
        net(lambda m, y: torch.bmm(y, m.w).bmm(m.v), w=p(2, 4, 5), v=p(2, 5, 2)),
        [("a.weight:0", "w:1"), ("w:2", "v:1")],
    ),
    "broadcast batches": (
        net(lambda m, y: (y[:, None] @ m.w @ m.v).sum(1), w=p(3, 4, 5), v=p(5, 2)),
        [("a.weight:0", "w:1"), ("w:2", "v:0")],
    ),
    "gram matrix": (net(lambda m, y: m.b(y) @ (y @ y.mT).softmax(-1), b=nn.Linear(4, 3)), []),
    "mv": (net(lambda m, y: y[0].mv(m.w), w=p(4)), [("a.weight:0", "w:0")]),
    "dot": (
        net(lambda m, y: y[0, 0].dot(m.w) + y[0, 1].vdot(m.w), w=p(4)),
        [("a.weight:0", "w:0")],
    ),
    "inner": (net(lambda m, y: torch.inner(y, m.w), w=p(2, 4)), [("a.weight:0", "w:1")]),
    "outer": (
        net(
            lambda m, y: m.b(torch.outer(y[0, 0], m.w) + torch.ger(y[0, 1], m.w)).t() @ m.v,
            w=p(5),
            b=nn.Linear(5, 3),
            v=p(4, 2),
        ),
        [("a.weight:0", "v:0"), ("w:0", "b.weight:1")],
    ),
    "addmm": (
        net(
            lambda m, y: torch.addmm(m.c, y[0], m.w, beta=2, alpha=3) @ m.v,
            c=p(5),
            w=p(4, 5),
            v=p(5, 2),
        ),
        [("a.weight:0", "w:0"), ("c:0", "w:1", "v:0")],
    ),
    "addbmm": (
        net(lambda m, y: torch.addbmm(m.c, y, m.w) @ m.v, c=p(3, 5), w=p(2, 4, 5), v=p(5, 2)),
        [("a.weight:0", "w:1"), ("c:1", "w:2", "v:0")],
    ),
    "baddbmm": (
        net(lambda m, y: torch.baddbmm(m.c, y, m.w) @ m.v, c=p(1, 1, 5), w=p(2, 4, 5), v=p(5, 2)),
        [("a.weight:0", "w:1"), ("c:2", "w:2", "v:0")],
    ),
    "addmv": (
        net(lambda m, y: torch.addmv(m.c, y[0], m.w), c=p(3), w=p(4)),
        [("a.weight:0", "w:0")],
    ),
    "bilinear": (
        net(
            lambda m, y: m.b(m.bi(y, m.c(y))),
            bi=nn.Bilinear(4, 3, 5),
            c=nn.Linear(4, 3),
            b=nn.Linear(5, 2),
        ),
        [("bi.weight:0", "b.weight:1"), ("bi.weight:2", "c.weight:0")],
    ),
    "einsum": (
        net(lambda m, y: torch.einsum("bnc,cd,de->bne", y, m.w, m.v), w=p(4, 5), v=p(5, 2)),
        [("a.weight:0", "w:0"), ("w:1", "v:0")],
    ),
    "einsum of one": (
        net(
            lambda m, y: (
                m.b(torch.einsum("bnc->bcn", y).transpose(1, 2))
                + torch.einsum("bnc->bn", y)[..., None]
            ),
            b=nn.Linear(4, 2),
        ),
        [("a.weight:0", "b.weight:1")],
    ),
    "einsum, elementwise": (
        net(lambda m, y: m.b(torch.einsum("bnc,c->bnc", y, m.w)), w=p(4), b=nn.Linear(4, 2)),
        [("a.weight:0", "w:0", "b.weight:1")],
    ),
    "einsum, outer": (
        net(lambda m, y: torch.einsum("bnc,d,cde->bne", y, m.w, m.v), w=p(5), v=p(4, 5, 2)),
        [("a.weight:0", "v:0"), ("w:0", "v:1")],
    ),
    "einsum, dots": (
        net(
            lambda m, y: torch.einsum("...c,...cd->...d", y, m.w) @ m.v, w=p(2, 3, 4, 5), v=p(5, 2)
        ),
        [("a.weight:0", "w:2"), ("w:3", "v:0")],
    ),
    "einsum, one summed alone": (
        net(lambda m, y: torch.einsum("bnc,d->bnc", y, m.w) @ m.v, w=p(5), v=p(4, 2)),
        [("a.weight:0", "v:0"), ("w:0",)],
    ),
    "tensordot": (
        net(lambda m, y: torch.tensordot(y, m.w, dims=1) @ m.v, w=p(4, 5), v=p(5, 2)),
        [("a.weight:0", "w:0"), ("w:1", "v:0")],
    ),
    "tensordot of several dimensions": (
        net(lambda m, y: torch.tensordot(y, m.w, ([-1, 1], [1, 0])) @ m.v, w=p(3, 4, 5), v=p(5, 2)),
        [("a.weight:0", "w:1"), ("w:2", "v:0")],
    ),
    "tensordot, outer": (
        net(lambda m, y: torch.tensordot(y, m.w, dims=0) @ m.v, w=p(5), v=p(5, 2)),
        [("w:0", "v:0")],
    ),
    "linalg.vecdot": (
        net(lambda m, y: torch.linalg.vecdot(y, m.w), w=p(3, 4)),
        [("a.weight:0", "w:1")],
    ),
    "linalg.matmul": (
        net(lambda m, y: torch.linalg.matmul(y, m.w) @ m.v, w=p(4, 5), v=p(5, 2)),
        [("a.weight:0", "w:0"), ("w:1", "v:0")],
    ),
    "addr": (
        net(lambda m, y: torch.addr(m.w, y[0, 0], m.v) @ m.u, w=p(4, 5), v=p(5), u=p(5, 2)),
        [("w:1", "v:0", "u:0")],
    ),
    "dist": (net(lambda m, y: torch.dist(y, m.w), w=p(3, 4)), [("a.weight:0", "w:1")]),
    "multi_dot": (
        net(
            lambda m, y: torch.linalg.multi_dot([y[0], m.w, m.v, m.u]), w=p(4, 5), v=p(5, 3), u=p(3)
        ),
        [("a.weight:0", "w:0"), ("w:1", "v:0"), ("v:1", "u:0")],
    ),
    "multi_dot of a vector": (
        net(lambda m, y: torch.linalg.multi_dot([y[0, 0], m.w, m.v]), w=p(4, 5), v=p(5, 2)),
        [("a.weight:0", "w:0"), ("w:1", "v:0")],
    ),
    "chain_matmul": (
        net(lambda m, y: torch.chain_matmul(y[0], m.w, m.v), w=p(4, 5), v=p(5, 2)),
        [("a.weight:0", "w:0"), ("w:1", "v:0")],
    ),
    "cdist": (net(lambda m, y: torch.cdist(y, m.w), w=p(2, 3, 4)), [("a.weight:0", "w:2")]),
    "cdist to a codebook": (
        net(lambda m, y: torch.cdist(y, m.w[None], p=1), w=p(7, 4)),
        [("a.weight:0", "w:1")],
    ),
    "cosine_similarity": (
        net(lambda m, y: torch.cosine_similarity(y, m.w, -1), w=p(3, 4)),
        [("a.weight:0", "w:1")],
    ),
    "cosine_similarity over tokens": (
        net(lambda m, y: torch.cosine_similarity(y, m.w, 1) @ m.v, w=p(3, 4), v=p(4, 2)),
        [("a.weight:0", "w:1", "v:0")],
    ),
    "pairwise_distance": (
        net(lambda m, y: functional.pairwise_distance(y, m.w, eps=0.0), w=p(3, 4)),
        [("a.weight:0", "w:1")],
    ),
}
PINNED: dict[str, tuple[Net, str]] = {
    "einsum diagonal": (
        net(lambda m, y: torch.einsum("bnc,cc->bnc", y, m.w).sum(-1), w=p(4, 4)),
        "diagonal",
    ),
}
MIXING = {
    "a distance that counts": lambda m, y: torch.cdist(y, m.w[None], p=0.0),
    "an eps for each coordinate": lambda m, y: functional.pairwise_distance(y, m.w[:3]),
}


def test_every_operator_is_exercised() -> None:
    nets = [net for net, _ in (*CASES.values(), *PINNED.values())]
    left = unseen(contraction, [(one.double(), (TOKENS.double(),)) for one in nets])
    # the latter two take no doubles
    assert left <= {"aten._cdist_forward", "aten._grouped_mm", "aten._weight_int8pack_mm"}


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_letters_shrink_together(name: str) -> None:
    one, coupled = CASES[name]
    found = prove(one, TOKENS)
    assert prunable(found, "module") == {group.name for group in found.groups} != set()
    for places in coupled:
        assert together(found, *places)


@pytest.mark.parametrize("name", PINNED)
def test_what_is_no_sum_of_products_pins(name: str) -> None:
    one, reason = PINNED[name]
    assert reason in reasons(prove(one, TOKENS), "a.weight", 0)


@pytest.mark.parametrize("name", MIXING)
def test_a_distance_that_depends_on_its_number_of_features_mixes(name: str) -> None:
    found = prove(net(MIXING[name], w=p(7, 4)), TOKENS)
    assert any(group.mixing for group in found.groups)


def test_a_sum_over_what_is_not_zero_mixes() -> None:
    one = Net(lambda m, x: torch.einsum("bnc->bn", m.a(x).exp()), a=nn.Linear(6, 4))
    assert "not zero" in prove(one, TOKENS).groups[0].mixing


def test_matrices_of_runs_shrink_together_in_multiples_of_16_bytes() -> None:
    """Two experts for four rows and for two: their widths go, in fours of float32, they stay."""
    one = Net(
        lambda m, x: m.b(
            torch._grouped_mm(m.a(x), m.w, offs=torch.tensor([4, 6], dtype=torch.int32))
        ),
        a=nn.Linear(6, 16),
        w=torch.randn(2, 16, 24),
        b=nn.Linear(24, 2),
    )
    x = torch.randn(6, 6)
    plan = planc.compile(one, x, ratio=0.3)
    assert {group.name: (group.size, group.kept) for group in plan.groups} == {
        "w:1": (16, 12),
        "w:2": (24, 20),
    }
    report = planc.verify(plan, one, planc.apply(plan, one), x)
    assert report.error is not None
    assert report.error <= 1e-5
