"""Indexing: features that are not looked along stay free, what is picked by position is pinned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import planc
from planc.rules.families import indexing
from tests.rules.coverage import unseen
from tests.support.proving import Net, prove, prunable, reasons, together

ops = torch.ops.aten
TOKENS = torch.randn(2, 3, 6)
INDEX = torch.tensor([2, 0])
FIRST = torch.zeros(2, 1, 8, dtype=torch.int64)
ROWS = torch.tensor([[[True], [False], [True]], [[False], [True], [True]]])
Run = Callable[[Tensor], Tensor]


def tokens(op: Run, out: int = 8, width: int = 8) -> Net:
    """An operator between two linear layers."""
    return Net(lambda m, x: m.b(op(m.a(x))), a=nn.Linear(6, width), b=nn.Linear(out, 2))


FREE: dict[str, Net] = {
    "index": tokens(lambda y: y[:, INDEX]),
    "index in front": tokens(lambda y: y[INDEX % 2]),
    "two indices": tokens(lambda y: y[INDEX % 2, INDEX]),
    "indices apart": tokens(lambda y: y.unsqueeze(1)[INDEX % 2, :, INDEX]),
    "a matrix of indices": tokens(lambda y: y[:, INDEX.repeat(2, 1)].sum(2)),
    "_unsafe_index": tokens(lambda y: ops._unsafe_index(y, [None, INDEX])),
    "index_select": tokens(lambda y: y.index_select(1, INDEX)),
    "gather": tokens(lambda y: y.gather(1, INDEX[None, :, None].expand(2, 2, y.shape[2]))),
    "take_along_dim": tokens(
        lambda y: y.take_along_dim(INDEX[None, :, None].expand(2, 2, y.shape[2]), 1)
    ),
    "index_put": tokens(lambda y: ops.index_put(y, [None, INDEX], 2 * y[:, :2])),
    "index_put in front": tokens(lambda y: y.index_put((INDEX % 2,), y[:1])),
    "index_put of rows": tokens(lambda y: y.index_put((INDEX % 2, INDEX), y[0, :2])),
    "index_put of one row": tokens(lambda y: y.index_put((INDEX % 2,), y[0])),
    "index_put of a number": tokens(lambda y: y.index_put((INDEX % 2,), torch.tensor(2.0).to(y))),
    "index_put that adds": tokens(
        lambda y: ops.index_put(y, [None, INDEX], y[:, :1], accumulate=True)
    ),
    "index_put in zeros": tokens(
        lambda y: ops.index_put(y.new_zeros(2, 5, y.shape[2]), [None, INDEX + 1], y[:, :2])
    ),
    "index_put by a mask": tokens(
        lambda y: ops.index_put(y, [None, torch.tensor([True, False, True])], 2 * y[:, :2])
    ),
    "scatter": tokens(lambda y: y.scatter(1, first(y), y)),
    "scatter of a number": tokens(lambda y: y.scatter(1, first(y), 2.0)),
    "scatter_add": tokens(lambda y: y.exp().scatter_add(1, first(y) + 1, y[:, :2])),
    "scatter_add in zeros": tokens(lambda y: torch.zeros_like(y).scatter_add(1, first(y), y)),
    "scatter_reduce": tokens(lambda y: y.scatter_reduce(1, first(y), y, "amax")),
    "index_add": tokens(lambda y: y.index_add(1, INDEX, y[:, :2])),
    "index_copy": tokens(lambda y: y.index_copy(1, INDEX, y[:, :2].cos())),
    "index_fill": tokens(lambda y: y.index_fill(1, INDEX, 2.0)),
    "masked_scatter of rows": tokens(lambda y: y.masked_scatter(ROWS, 2 * y.flatten(0, 1))),
    "masked_scatter of all rows": tokens(lambda y: y.masked_scatter(ROWS[0], y.sin())),
    "written by index": tokens(lambda y: write(y)),
    "sorted positions": tokens(lambda y: y.sort(1)[0] + y.topk(3, 1)[0]),
}
PICKED: dict[str, tuple[Run, int]] = {
    "index": (lambda y: y[..., y[0, 0, :2].argsort()], 2),
    "index_select": (lambda y: y.index_select(2, INDEX), 2),
    "gather": (lambda y: y.gather(2, torch.zeros(2, 3, 2, dtype=torch.int64)), 2),
    "take_along_dim": (lambda y: y.take_along_dim(torch.zeros(1, dtype=torch.int64)), 1),
    "sort": (lambda y: y.sort()[0], 8),
    "topk": (lambda y: y.topk(3)[1].to(y), 3),
    "argsort": (lambda y: y.argsort(-1).to(y), 8),
    "unequal gather": (lambda y: y.gather(1, torch.zeros(1, 2, 4, dtype=torch.int64)), 4),
    "take": (lambda y: y.take(INDEX), 2),
    "put": (lambda y: y.put(INDEX, y[0, 0, :2]), 8),
    "scatter": (lambda y: y.scatter(2, torch.zeros(2, 3, 1, dtype=torch.int64), y), 8),
    "scatter by a fixed index": (lambda y: y.scatter_add(1, FIRST, y), 8),
    "unequal scatter": (
        lambda y: y.scatter(1, torch.zeros(2, 1, 4, dtype=torch.int64), y[:, :, :5]),
        8,
    ),
    "index_add": (lambda y: y.index_add(2, INDEX, y[..., :2]), 8),
    "index_put": (lambda y: y.index_put((INDEX % 2, INDEX, INDEX), y[0, 0, 0]), 8),
    "index_put apart": (lambda y: ops.index_put(y, [INDEX % 2, None, INDEX], y[0, 0, 0]), 8),
    "masked_scatter": (lambda y: y.masked_scatter(y > 0, y.sin()), 8),
    "masked_scatter of what is flat": (lambda y: y.masked_scatter(ROWS, y.flatten()), 8),
    "masked_scatter of more": (lambda y: y.masked_scatter(ROWS, y[None].sin()), 8),
    "histc": (lambda y: y.histc(4), 4),
    "renorm": (lambda y: y.renorm(2, 1, 1.0), 8),
    "cov": (lambda y: y[0].cov() + y[0].corrcoef(), 3),
    "bucketize": (lambda y: torch.bucketize(y, torch.arange(3.0).to(y)).to(y), 8),
    "searchsorted": (lambda y: torch.searchsorted(y.cumsum(1), y[..., :8]).to(y), 8),
    "one_hot": (lambda y: functional.one_hot(y.argmax(-1), 8).to(y), 8),
    "equal": (lambda y: y + float(torch.equal(y, y)), 8),
    "allclose": (lambda y: y + float(torch.allclose(y, y)), 8),
}


def first(y: Tensor) -> Tensor:
    """An index as wide as ``y``."""
    return torch.zeros_like(y[:, :2], dtype=torch.int64)


def write(y: Tensor) -> Tensor:
    z = y.clone()
    z[:, INDEX] = 1.0
    return z


@pytest.mark.long
@pytest.mark.parametrize("name", FREE)
def test_other_dimensions_stay_free(name: str) -> None:
    found = prove(FREE[name], TOKENS, seeds=(0,))
    assert prunable(found, "module") == prunable(found, "graph") == {"a.weight:0"}
    assert together(found, "a.weight:0", "b.weight:1")


@pytest.mark.parametrize("name", PICKED)
def test_what_is_picked_is_pinned(name: str) -> None:
    op, out = PICKED[name]
    target: Literal["module", "both"] = "module" if name in ("equal", "allclose") else "both"
    found = prove(tokens(op, out), TOKENS, seeds=(0,), target=target)
    assert reasons(found, "a.weight", 0)
    assert not any(m.tensor == "a.weight" for group in found.groups for m in group.members)


def test_embeddings_keep_rows_and_free_features() -> None:
    net = Net(
        lambda m, x: m.b(m.e(x) + functional.embedding(x, m.w)),
        e=nn.Embedding(9, 6),
        w=torch.ones(9, 6),
        b=nn.Linear(6, 2),
    )
    found = prove(net, torch.arange(8).reshape(2, 4))
    assert together(found, "e.weight:1", "w:1", "b.weight:1")
    assert "rows are picked by index" in reasons(found, "e.weight", 0)


@pytest.mark.long
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_of_embeddings_keep_rows_and_free_features(mode: str) -> None:
    net = Net(lambda m, x: m.b(m.e(x)), e=nn.EmbeddingBag(9, 6, mode=mode), b=nn.Linear(6, 2))
    found = prove(net, torch.arange(8).reshape(2, 4))
    assert together(found, "e.weight:1", "b.weight:1")
    assert "rows are picked by index" in reasons(found, "e.weight", 0)


@pytest.mark.long
def test_a_table_of_relative_positions_shrinks_by_heads() -> None:
    places = (torch.arange(3)[:, None] - torch.arange(3)[None] + 2).flatten()

    def run(m: Any, x: Tensor) -> Tensor:
        q, k, v = (p(x).view(2, 3, -1, m.dim).transpose(1, 2) for p in (m.q, m.k, m.v))
        bias = m.table[places].view(3, 3, -1).permute(2, 0, 1)
        y = ((q @ k.transpose(-2, -1)) + bias).softmax(-1) @ v
        return m.b(y.transpose(1, 2).flatten(2))

    net = Net(
        run,
        q=nn.Linear(6, 8),
        k=nn.Linear(6, 8),
        v=nn.Linear(6, 8),
        b=nn.Linear(8, 2),
        table=torch.ones(5, 2),
        dim=4,
    )
    found = prove(net, TOKENS)
    assert together(found, "table:1", "q.weight:0", "b.weight:1")
    assert "picked by index" in reasons(found, "table", 0)


def test_a_mask_of_several_dimensions_pins_them_all() -> None:
    mask = torch.tensor([[True, False, True, True], [False, True, True, False]])
    net = Net(
        lambda m, x: m.b(m.canvas[mask]).sum(0) + m.c(x @ m.canvas.sum(2)).sum((0, 1)),
        canvas=torch.ones(2, 4, 6),
        b=nn.Linear(6, 2),
        c=nn.Linear(4, 2),
    )
    found = prove(net, torch.randn(2, 3, 2))
    assert reasons(found, "canvas", 0)
    assert reasons(found, "canvas", 1)


def test_indices_do_not_shrink() -> None:
    net = Net(
        lambda m, x: m.b(m.w[torch.zeros(4, dtype=torch.int64)].t() @ m.a(x).flatten(0, 1)[:4]),
        a=nn.Linear(6, 4),
        w=torch.ones(3, 5),
        b=nn.Linear(4, 2),
    )
    prove(net, TOKENS)


def test_every_operator_is_exercised() -> None:
    nets = [*FREE.values(), *(tokens(op, out) for name, (op, out) in PICKED.items())]
    left = {
        name.removeprefix("aten.")
        for name in unseen(indexing, [(net.double(), (TOKENS.double(),)) for net in nets])
    }
    rare = """embedding embedding_bag nonzero masked_select _unique2 unique_dim unique_consecutive
    bincount _index_put_impl _local_scalar_dense is_nonzero multinomial where.default item equal
    allclose torchvision.nms torchvision.deform_conv2d cov corrcoef cross
    _unsafe_index_put linalg_cross"""
    assert left <= set(rare.split())


def test_positions_in_a_list_keep_what_they_are_counted_over() -> None:
    net = Net(
        lambda m, x: m.b((y := m.a(x))[..., [-2]] * y[..., :-2] + y[..., [-1]]),
        a=nn.Linear(6, 8),
        b=nn.Linear(6, 2),
    )
    found = prove(net, TOKENS, seeds=(0,))
    assert {g.name: g.size for g in found.groups} == {"a.weight:0": 6}
    assert "picked by index" in reasons(found, "a.weight", 0)


@pytest.mark.parametrize("k", [1, 3, 8])
def test_largest_values_without_their_positions_mix(k: int) -> None:
    net = Net(lambda m, x: m.a(x).topk(k)[0], a=nn.Linear(6, 8))
    found = prove(net, TOKENS, seeds=(0,))
    assert "largest values" in found.groups[0].mixing
    assert bool(prunable(found, "module")) == (k < 8)
    assert planc.compile(net, TOKENS.double(), ratio=0.9).groups[0].kept == max(k, 1)
