"""Diagonals: a coordinate of a vector is a row and a column of its matrix."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from planc.rules.families import diagonals
from tests.rules.coverage import unseen
from tests.support.proving import Net, prove, prunable, reasons, together

TOKENS = torch.randn(2, 3, 6)


def p(*shape: int) -> Tensor:
    return torch.ones(shape)


def net(run: Any, **parts: Any) -> Net:
    return Net(lambda m, x: run(m, m.a(x)), a=nn.Linear(6, 4), **parts)


FREE: dict[str, tuple[Net, list[tuple[str, ...]]]] = {
    "a product with diag": (
        net(lambda m, y: y @ torch.diag(m.w) @ m.v, w=p(4), v=p(4, 2)),
        [("a.weight:0", "w:0", "v:0")],
    ),
    "diagflat": (
        net(lambda m, y: y @ torch.diagflat(m.w) @ m.v, w=p(4), v=p(4, 2)),
        [("a.weight:0", "w:0", "v:0")],
    ),
    "diag on the left": (
        net(lambda m, y: (torch.diag(m.w) @ y[0].t()).t() @ m.v, w=p(4), v=p(4, 2)),
        [("a.weight:0", "w:0", "v:0")],
    ),
    "a matrix for each token": (
        net(lambda m, y: (torch.diag_embed(y) @ m.w @ m.v).sum(2), w=p(4, 5), v=p(5, 2)),
        [("a.weight:0", "w:0"), ("w:1", "v:0")],
    ),
    "a diagonal in other dimensions": (
        net(
            lambda m, y: torch.diag_embed(y, dim1=1, dim2=0).sum(0).transpose(0, 2) @ m.w, w=p(4, 2)
        ),
        [("a.weight:0", "w:0")],
    ),
    "the diagonal of a weight": (
        net(lambda m, y: y * torch.diag(m.w) @ m.v, w=p(4, 4), v=p(4, 2)),
        [("a.weight:0", "w:0", "w:1", "v:0")],
    ),
    "the diagonal of products": (
        net(lambda m, y: torch.diagonal(m.w @ y, dim1=1, dim2=2) @ m.v, w=p(4, 3), v=p(4, 2)),
        [("a.weight:0", "w:0", "v:0")],
    ),
    "a diagonal at the front": (
        net(lambda m, y: m.w.diagonal().sum(1) * y @ m.v, w=p(3, 3, 4), v=p(4, 2)),
        [("a.weight:0", "v:0")],
    ),
    "linalg.diagonal": (
        net(lambda m, y: torch.linalg.diagonal(m.w) * y @ m.v, w=p(4, 4), v=p(4, 2)),
        [("a.weight:0", "w:0", "w:1", "v:0")],
    ),
    "trace": (
        net(lambda m, y: torch.trace(m.w @ y[0]) + m.v.sum(), w=p(4, 3), v=p(2)),
        [("a.weight:0", "w:0")],
    ),
    "blocks": (
        net(
            lambda m, y: torch.cat([y, y @ m.u], -1) @ torch.block_diag(m.w, m.v),
            w=p(4, 2),
            v=p(5, 2),
            u=p(4, 5),
        ),
        [("a.weight:0", "w:0"), ("u:1", "v:0")],
    ),
    "blocks of vectors": (
        net(
            lambda m, y: torch.block_diag(m.w, m.v) @ torch.cat([y, y @ m.u], -1).mT,
            w=p(4),
            v=p(5),
            u=p(4, 5),
        ),
        [("a.weight:0", "w:0"), ("u:1", "v:0")],
    ),
}
PINNED = {
    "beside the diagonal": net(lambda m, y: torch.diag_embed(y, offset=1).sum(-1)),
    "a diagonal beside": net(lambda m, y: torch.diagonal(m.w @ y, 1, 1, 2), w=p(4, 3)),
    "an oblong matrix": net(lambda m, y: torch.diagonal(m.w @ y, 0, 1, 2), w=p(5, 3)),
}


@pytest.mark.long
@pytest.mark.parametrize("name", FREE)
def test_diagonals_shrink_with_their_vectors(name: str) -> None:
    one, coupled = FREE[name]
    found = prove(one, TOKENS)
    assert prunable(found, "graph") == {group.name for group in found.groups} != set()
    for places in coupled:
        assert together(found, *places)


@pytest.mark.parametrize("name", PINNED)
def test_lines_beside_the_diagonal_pin(name: str) -> None:
    assert "beside the diagonal" in reasons(prove(PINNED[name], TOKENS), "a.weight", 0)


def test_every_operator_is_exercised() -> None:
    nets = [*(one for one, _ in FREE.values()), *PINNED.values()]
    left = unseen(diagonals, [(one.double(), (TOKENS.double(),)) for one in nets])
    assert left <= {"aten.diagonal_copy"}
