"""A rewritten graph at other sizes than those it was traced with: it computes what its original
does, or says which input has a size that it cannot follow.
"""

from __future__ import annotations

import copy
import math
import operator
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn
from torch.nn import functional

import planc
from planc.apply.trials import bindings
from planc.errors import PlancError, SizeMismatch
from planc.ir.guards import check
from planc.plan.plan import Plan
from tests.support import proving
from tests.support.proving import randomise

Forward = Callable[[Any, Tensor], Any]


class Net(nn.Module):
    def __init__(self, run: Forward) -> None:
        super().__init__()
        self.run = run
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 6), nn.Linear(6, 3)
        self.bag = nn.EmbeddingBag(9, 6)
        self.conv, self.point = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 6, 1)
        self.row, self.table = nn.Parameter(torch.zeros(1, 1, 6)), nn.Parameter(torch.zeros(7, 6))

    def forward(self, x: Any) -> Any:
        return self.run(self, x)


def net(run: Forward) -> nn.Module:
    model = Net(run)
    randomise(model, seed=0)
    return model.double().eval()


def inputs(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).double()


def hidden(m: Any, x: Tensor) -> Tensor:
    result: Tensor = m.b(m.a(x).relu())
    return result


def plan_for(model: nn.Module, x: Any) -> Plan:
    """A plan that leaves the rows of tables: an example reads only some of them."""
    groups = planc.analyze(planc.trace(model, (x,))).groups
    keep = [group.name for group in groups if group.name.startswith(("table", "bag"))]
    return planc.compile(model, (x,), ratio=0.5, target="graph", keep=keep)


def graph_of(model: nn.Module, x: Tensor) -> tuple[fx.GraphModule, nn.Module]:
    """The graph of a plan for a model, and the masked model."""
    plan = plan_for(model, x)
    smaller = planc.apply(plan, model, args=x)
    planc.verify(plan, model, smaller, x)
    assert any(group.removed for group in plan.groups)
    assert isinstance(smaller, fx.GraphModule)
    return smaller, planc.mask(plan, model)


def agree(smaller: nn.Module, masked: nn.Module, x: Tensor) -> None:
    for mine, theirs in zip(flat(smaller(x)), flat(masked(x)), strict=True):
        torch.testing.assert_close(mine, theirs)


def flat(result: Any) -> Sequence[Any]:
    return result if isinstance(result, tuple) else (result,)


# -- what is followed ---------------------------------------------------------------------------


def attended(m: Any, x: Tensor) -> Tensor:
    y = hidden(m, x)
    b, t, _ = y.shape
    q = y.view(b, t, 2, -1).transpose(1, 2)
    found = functional.scaled_dot_product_attention(q, q, q)
    result: Tensor = m.c(found.permute(0, 2, 1, 3).contiguous().view(b, t, -1))
    return result


def causal(m: Any, x: Tensor) -> Tensor:
    y = hidden(m, x)
    mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
    scores = (y @ y.transpose(1, 2) / math.sqrt(x.shape[1])).masked_fill(~mask, -1e9)
    result: Tensor = m.c(scores.softmax(-1) @ y)
    return result


def first_half_zeroed(m: Any, x: Tensor) -> Tensor:
    y = hidden(m, x).clone()
    y[:, : x.shape[1] // 2] = 0.0
    result: Tensor = m.c(y)
    return result


TOKENS: dict[str, Forward] = {
    "an index that is expanded": lambda m, x: m.c(
        hidden(m, x).gather(1, torch.tensor([[[0], [2]]]).expand(x.shape[0], -1, 6))
    ),
    "its mean, where no shape tells": lambda m, x: m.c(
        hidden(m, x).gather(1, torch.tensor([[[1]]]).expand(x.shape[0], 1, 6))
    ).mean((0, 1)),
    "a class token": lambda m, x: m.c(
        torch.cat([m.row.expand(x.shape[0], -1, -1), hidden(m, x)], 1)
    ),
    "rows of a table": lambda m, x: m.c(hidden(m, x + m.table[: x.shape[1]])),
    "rows by arange": lambda m, x: m.c(hidden(m, x + m.table[torch.arange(x.shape[1])])),
    "repeated rows": lambda m, x: m.c(hidden(m, x) + m.row.repeat(x.shape[0], x.shape[1], 1)),
    "a tensor of a size": lambda m, x: m.c(hidden(m, x)) / torch.tensor(x.shape[1]),
    "a tensor of sizes": lambda m, x: m.c(hidden(m, x)) * torch.tensor(x.shape[:2]).sum(),
    "sizes in a nested tensor": lambda m, x: (
        m.c(hidden(m, x)) * torch.tensor([[2, x.shape[1]], [x.shape[0], 1]]).double().det()
    ),
    "numbers": lambda m, x: m.c(hidden(m, x)) / x.shape[1] + math.sqrt(x.shape[0]),
    "a pruned width as a number": lambda m, x: m.c(hidden(m, x)) + m.a(x).sum() / m.a(x).shape[2],
    "a merged width as a number": lambda m, x: (
        m.c(hidden(m, x)) + m.a(x).sum() / m.a(x).flatten(1).shape[1]
    ),
    "merged tokens and features": lambda m, x: m.a(x).view(x.shape[0], x.shape[1] * 8).sum(1),
    "merged rows": lambda m, x: m.c(hidden(m, x).reshape(x.shape[0] * x.shape[1], -1)).view(
        *x.shape[:2], 3
    ),
    "a half": lambda m, x: m.c(hidden(m, x)[:, : math.ceil(x.shape[1] / 2)]),
    "all there is, by chance": lambda m, x: m.c(hidden(m, x)[:, : x.shape[0] + 2]),
    "the last": lambda m, x: m.c(hidden(m, x)[:, x.shape[1] - 1]),
    "parts": lambda m, x: m.c(sum(p.mean(1) for p in hidden(m, x).split([1, x.shape[1] - 1], 1))),
    "a part that is overwritten": first_half_zeroed,
    "a filled tensor": lambda m, x: m.c(hidden(m, x)) + torch.full((x.shape[1], 1), x.shape[0] / 2),
    "steps": lambda m, x: m.c(hidden(m, x)) * torch.linspace(0, 1, x.shape[1]).view(-1, 1),
    "bags": lambda m, x: m.c(hidden(m, m.bag((x[..., 0] * 3).long().abs() % 9))),
    "a size as a result": lambda m, x: (m.c(hidden(m, x)), x.shape[0] * x.shape[1]),
    "attention": attended,
    "a mask": causal,
}


@pytest.mark.long
@pytest.mark.parametrize("name", TOKENS)
def test_a_graph_takes_other_batches_and_lengths(name: str) -> None:
    model = net(TOKENS[name])
    smaller, masked = graph_of(model, inputs(2, 4, 6))
    for shape in ((2, 4, 6), (1, 4, 6), (5, 4, 6), (2, 7, 6), (3, 3, 6)):
        agree(smaller, masked, inputs(*shape))


def windows(m: Any, x: Tensor) -> Tensor:
    y = m.point(m.conv(x).relu()).permute(0, 2, 3, 1)
    b, h, w, c = y.shape
    y = functional.pad(y, (0, 0, 0, -w % 4, 0, -h % 4))
    _, high, wide, _ = y.shape
    y = y.view(b, high // 4, 4, wide // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
    y = hidden(m, y).view(b, high // 4, wide // 4, 4, 4, c)
    y = y.permute(0, 1, 3, 2, 4, 5).reshape(b, high, wide, c)
    result: Tensor = m.c(y[:, :h, :w, :].contiguous())
    return result


def shuffled(m: Any, x: Tensor) -> Tensor:
    y = m.conv(x)
    b, c, h, w = y.shape
    y = y.view(b, 3, c // 3, h, w).transpose(1, 2).contiguous().view(b, -1, h, w)
    result: Tensor = m.point(y)
    return result


IMAGES: dict[str, Forward] = {
    "windows": windows,
    "shuffled channels": shuffled,
    "a pool made by hand": lambda m, x: m.c(
        functional.avg_pool2d(m.point(m.conv(x)), x.shape[2:]).view(x.size(0), -1)
    ),
    "the size of another": lambda m, x: functional.interpolate(
        m.point(functional.max_pool2d(m.conv(x), 2)), size=x.shape[-2:], mode="bilinear"
    ),
    "a pool of one side": lambda m, x: functional.adaptive_avg_pool2d(
        m.point(m.conv(x)), (None, 2)
    ),
}


@pytest.mark.parametrize("name", IMAGES)
def test_a_graph_takes_other_images(name: str) -> None:
    smaller, masked = graph_of(net(IMAGES[name]), inputs(2, 3, 8, 8))
    for shape in ((2, 3, 8, 8), (1, 3, 8, 8), (5, 3, 8, 8), (2, 3, 11, 8), (2, 3, 10, 13)):
        agree(smaller, masked, inputs(*shape))


def test_a_view_of_what_a_real_run_leaves_as_it_is() -> None:
    """On real tensors ``contiguous()`` is no operator where it has nothing to do."""

    def run(m: Any, x: Tensor) -> Tensor:
        y = m.c(x[..., torch.tensor([True, False, True, True, False, True, True, True])])
        q, k, v = (layer(y).view(*y.shape[:2], 3, -1).transpose(1, 2) for layer in (m.q, m.k, m.v))
        found = functional.scaled_dot_product_attention(q, k, v)
        return m.o(found.permute(0, 2, 1, 3).contiguous().view(*y.shape[:2], -1))

    wide = {name: nn.Linear(6, 12) for name in "qkv"}
    model = proving.Net(run, c=nn.Linear(6, 6), **wide, o=nn.Linear(12, 5)).double().eval()
    x = inputs(2, 7, 8)
    plan = planc.compile(model, x, ratios={"q.weight*": 0.75, "v.weight*": 0.5}, target="graph")
    smaller, masked = planc.apply(plan, model), planc.mask(plan, model)
    assert smaller.q.weight.shape[0] != smaller.v.weight.shape[0]
    planc.verify(plan, model, smaller, x)
    agree(smaller, masked, inputs(5, 4, 8))


# -- what is refused ----------------------------------------------------------------------------


def unheard_product(m: Any, x: Tensor) -> Tensor:
    result: Tensor = m.c(hidden(m, x)) * float(np.prod(x.shape))
    return result


REFUSED: dict[str, tuple[Forward, tuple[int, int], tuple[int, int], tuple[int, int]]] = {
    # the traced sizes, others that are taken, others that are refused
    "a branch": (
        lambda m, x: m.c(hidden(m, x) if x.shape[0] > 4 else -hidden(m, x)),
        *((2, 4), (4, 6), (5, 4)),
    ),
    "a truth value": (
        lambda m, x: m.c(hidden(m, x) if x.shape[1] % 3 else -hidden(m, x)),
        *((2, 4), (3, 5), (2, 6)),
    ),
    "a comparison of numbers with fractions": (
        lambda m, x: m.c(hidden(m, x) if x.shape[1] / x.shape[0] > 1.5 else -hidden(m, x)),
        *((2, 4), (3, 5), (4, 4)),
    ),
    "int": (
        lambda m, x: m.c(hidden(m, x).reshape(int(x.shape[0]) * x.shape[1], -1)),
        *((2, 4), (2, 6), (3, 4)),
    ),
    "len": (lambda m, x: m.c(hidden(m, x)) / len(x), (2, 4), (2, 6), (3, 4)),
    "an unrolled loop": (
        lambda m, x: m.c(sum(hidden(m, x)[:, t] for t in range(x.shape[1]))),
        *((2, 4), (5, 4), (2, 3)),
    ),
    "a list": (
        lambda m, x: m.c(hidden(m, x)) * sum([1.0] * x.shape[1]),
        *((2, 4), (5, 4), (2, 3)),
    ),
    "an array": (
        lambda m, x: m.c(hidden(m, x)) + torch.from_numpy(np.arange(x.shape[1])).view(-1, 1),
        *((2, 4), (5, 4), (2, 3)),
    ),
    "a product that another library makes": (unheard_product, (2, 4), (2, 4), (2, 3)),
    "a bit": (lambda m, x: m.c(hidden(m, x)) * (x.shape[1] & 1), (2, 4), (5, 4), (2, 3)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_size_that_cannot_be_followed_is_refused_by_the_graph_itself(name: str) -> None:
    run, traced, taken, refused = REFUSED[name]
    model = net(run)
    smaller, masked = graph_of(model, inputs(*traced, 6))
    agree(smaller, masked, inputs(*taken, 6))
    dim = next(d for d in (0, 1) if traced[d] != refused[d])
    masked(inputs(*refused, 6))  # the original takes them
    said = rf"input x has size {refused[dim]} in dimension {dim}, traced with {traced[dim]}"
    with pytest.raises(SizeMismatch, match=said) as caught:
        smaller(inputs(*refused, 6))
    assert isinstance(caught.value, PlancError | ValueError)
    assert 'target="module"' in str(caught.value)


def test_literals_of_the_code_are_no_sizes() -> None:
    model = net(lambda m, x: m.c(hidden(m, x)).reshape(2, -1))
    smaller, masked = graph_of(model, inputs(2, 4, 6))
    agree(smaller, masked, inputs(4, 4, 6))


def test_a_guard_survives_what_removes_unused_nodes() -> None:
    smaller, _ = graph_of(net(REFUSED["a branch"][0]), inputs(2, 4, 6))
    smaller.graph.eliminate_dead_code()
    smaller.recompile()
    with pytest.raises(SizeMismatch, match="in dimension 0"):
        smaller(inputs(5, 4, 6))


def test_a_model_of_fixed_sizes_has_no_guards_and_no_sizes() -> None:
    smaller, _ = graph_of(net(lambda m, x: m.c(m.b(m.a(x).view(-1, 8)))), inputs(2, 4, 6))
    assert not [n for n in smaller.graph.nodes if n.target in ("size", check, operator.mul)]


def test_nested_inputs_are_named_by_their_place() -> None:
    model = net(lambda m, x: hidden(m, x["x"][1]) / len(x["x"][1]))
    given = {"x": [inputs(2, 6), inputs(2, 6)]}
    smaller = planc.apply(plan_for(model, given), model, args=(given,))
    with pytest.raises(SizeMismatch, match=r"input x\['x'\]\[1\] has size 3 in dimension 0"):
        smaller({"x": [inputs(2, 6), inputs(3, 6)]})


# -- what is done with such graphs ---------------------------------------------------------------


@pytest.mark.parametrize("run", [TOKENS["a tensor of sizes"], TOKENS["a class token"], windows])
def test_copies_of_a_graph_compute_sizes_as_well(run: Forward) -> None:
    traced, other = (inputs(2, 4, 6), inputs(3, 5, 6))
    if run is windows:
        traced, other = inputs(2, 3, 8, 8), inputs(3, 3, 9, 9)
    smaller, masked = graph_of(net(run), traced)
    for again in (copy.deepcopy(smaller), pickle.loads(pickle.dumps(smaller))):
        agree(again, masked, other)


def test_guards_are_copied_and_pickled() -> None:
    smaller, _ = graph_of(net(REFUSED["a branch"][0]), inputs(2, 4, 6))
    for again in (copy.deepcopy(smaller), pickle.loads(pickle.dumps(smaller))):
        again(inputs(3, 4, 6))
        with pytest.raises(SizeMismatch, match="in dimension 0"):
            again(inputs(5, 4, 6))


def test_plans_for_graphs_of_graphs_keep_sizes_and_guards() -> None:
    def run(m: Any, x: Tensor) -> Any:
        y = hidden(m, x) + m.row.expand(x.shape[0], x.shape[1], -1)
        return m.c(y if x.shape[0] < 5 else -y) * torch.tensor(x.shape[1])

    model, x = net(run), inputs(2, 4, 6)
    first = planc.compile(model, x, ratio=0.25, target="graph")
    between = planc.apply(first, model)
    second = planc.compile(between, x, ratio=0.25, target="graph")
    smallest = planc.apply(second, between)
    at_once = planc.apply(planc.compose(first, second), model)
    agree(smallest, at_once, inputs(4, 3, 6))
    for graph in (smallest, at_once):
        with pytest.raises(SizeMismatch, match="size 6 in dimension 0, traced with 2"):
            graph(inputs(6, 4, 6))


def test_a_graph_exports_with_any_batch() -> None:
    smaller, masked = graph_of(net(TOKENS["a class token"]), inputs(2, 4, 6))
    free = ({0: torch.export.Dim("batch", min=2, max=64)},)
    program = torch.export.export(smaller, (inputs(2, 4, 6),), dynamic_shapes=free)
    agree(program.module(), masked, inputs(5, 4, 6))


# -- the law --------------------------------------------------------------------------------------

STEPS: list[Forward] = [
    lambda m, y: hidden(m, y),
    lambda m, y: y + m.row.expand(y.shape[0], -1, -1),
    lambda m, y: y + m.table[: y.shape[1]],
    lambda m, y: y[:, : max(y.shape[1] - 1, 1)],
    lambda m, y: y[:, y.shape[1] // 2 :],
    lambda m, y: y.reshape(y.shape[0] * y.shape[1], -1).view(y.shape[0], -1, 6),
    lambda m, y: y / y.shape[1],
    lambda m, y: y * torch.tensor([y.shape[0], 1]).sum(),
    lambda m, y: y + torch.arange(y.shape[1]).view(1, -1, 1),
    lambda m, y: y.view(y.shape[0], y.shape[1], 2, -1).transpose(2, 3).reshape(y.shape),
    lambda m, y: y if y.shape[1] > 3 else -y,
    lambda m, y: y * int(y.shape[1]),
    lambda m, y: sum(y.roll(t, 1) for t in range(y.shape[0])),
    lambda m, y: torch.cat([y, y[:, :1].expand(-1, y.shape[0], -1)], 1)[:, : y.shape[1]],
    lambda m, y: y.flip(1) if y.shape[0] % 2 else y,
]


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.integers(0, len(STEPS) - 1), min_size=1, max_size=5),
    st.lists(st.tuples(st.integers(1, 6), st.integers(1, 7)), min_size=1, max_size=4),
)
def test_a_graph_computes_what_its_original_does_or_refuses(
    steps: list[int], others: list[tuple[int, int]]
) -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        for step in steps:
            x = STEPS[step](m, x)
        result: Tensor = m.c(hidden(m, x))
        return result

    model = net(run)
    plan = plan_for(model, inputs(2, 4, 6))
    smaller, masked = planc.apply(plan, model), planc.mask(plan, model)
    agree(smaller, masked, inputs(2, 4, 6))
    for shape in others:
        try:
            result = smaller(inputs(*shape, 6))
        except SizeMismatch:
            assert not {*steps}.isdisjoint({3, 10, 11, 12, 14}), "nothing here needs a guard"
            continue
        torch.testing.assert_close(result, masked(inputs(*shape, 6)))


def test_trials_change_alone_what_may_and_together_what_must() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(6, 8)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            result: Tensor = self.a(x + y) * sum([1.0] * x.shape[1])
            return result

    model, call = Two(), ((torch.randn(2, 4, 6), torch.randn(2, 4, 6)), {})
    graph = planc.trace(model, *call)
    (found,) = bindings(graph, model, call)
    assert found.dimensions == ((0, 1), (1, 1))
    assert found.reason.startswith("aten.mul")
