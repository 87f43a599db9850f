"""Where numbers of operators came from: slices and positions of an index, functions of sizes, sizes
that become tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import planc
from planc.ir.expressions import Scalar, Size, expr_of
from planc.ir.graph import AS_IT_IS, Graph
from tests.support.proving import Net


def traced(run: Callable[[Tensor], Any], *shape: int) -> Graph:
    return planc.trace(
        Net(lambda m, x: run(x) * m.a.weight.sum(), a=nn.Linear(2, 2)), torch.randn(shape)
    )


def numbers(graph: Graph, operator: str) -> list[list[str]]:
    """The numbers behind the first of each node of an operator, as texts."""
    return [
        [str(expr_of(n)) for n in node.args[1:] if isinstance(n, int | float)]
        for node in graph.nodes
        if node.op.startswith(operator)
    ]


def test_slices_by_sizes_are_operators_at_any_size() -> None:
    def run(x: Tensor) -> Tensor:
        return x[:, : x.shape[0], :4][0]

    x = traced(run, 3, 3, 4).inputs[0].id
    for shape in ((3, 3, 4), (3, 2, 4), (3, 5, 4)):
        assert numbers(traced(run, *shape), "aten.slice.") == [["1", "0", f"size(%{x}, 0)"]]


def test_equal_bounds_of_one_index_are_told_apart() -> None:
    found = traced(lambda x: x[:, : x.shape[1] - 1, : x.shape[2] - 1], 2, 4, 4)
    x = found.inputs[0].id
    assert numbers(found, "aten.slice.") == [
        ["1", "0", f"(size(%{x}, 1) - 1)"],
        ["2", "0", f"(size(%{x}, 2) - 1)"],
    ]


def test_positions_and_slices_of_one_index_are_told_apart() -> None:
    found = traced(lambda x: x[x.shape[1] - 3, :1, 1], 2, 4, 4)
    x = found.inputs[0].id
    assert numbers(found, "aten.select.") == [["0", f"(size(%{x}, 1) - 3)"], ["1", "1"]]
    assert numbers(found, "aten.slice.") == [["0", "0", "1"]]


@pytest.mark.parametrize("index", ["whole", "mask", "ellipsis", "new", "backwards"])
def test_slices_by_sizes_give_what_the_index_says(index: str) -> None:
    def run(x: Tensor) -> Tensor:
        n = x.shape[0]
        mask = torch.tensor([True, False, True])
        return {
            "whole": lambda: x[:n],
            "mask": lambda: x[mask, : n + 1, n - 1],
            "ellipsis": lambda: x[..., : n - 1],
            "new": lambda: x[None, :, True, n - 2 : n],
            "backwards": lambda: x[:, -n:],
        }[index]()

    graph = traced(run, 3, 5, 4)
    given = torch.zeros(3, 5, 4)
    shape = tuple(run(given).shape)
    assert graph.values[graph.outputs[0].id].shape == shape


def test_what_is_assigned_has_the_shape_of_its_place() -> None:
    def run(x: Tensor) -> Tensor:
        y = x.clone()
        y[:, : x.shape[1] - 1] = 0.0
        return y

    graph = traced(run, 2, 4, 3)
    (expanded,) = (node for node in graph.nodes if node.op == "aten.expand.default")
    assert all(isinstance(n, Size) for n in expanded.args[1])


@pytest.mark.parametrize(
    ("compute", "text"),
    [
        (lambda n: math.ceil(n / 2), "ceil((size(%x, 1) / 2))"),
        (lambda n: math.floor(n / 2), "floor((size(%x, 1) / 2))"),
        (lambda n: math.trunc(n / 2), "trunc((size(%x, 1) / 2))"),
        (lambda n: abs(3 - n), "abs((3 - size(%x, 1)))"),
        (lambda n: divmod(n, 3)[1], "(size(%x, 1) % 3)"),
        (lambda n: divmod(9, n)[0], "(9 // size(%x, 1))"),
        (lambda n: math.prod((n, 2)), "((1 * size(%x, 1)) * 2)"),
    ],
)
def test_functions_of_sizes_are_followed(compute: Callable[[int], int], text: str) -> None:
    graph = traced(lambda x: x.sum() + torch.arange(compute(x.shape[1])).sum(), 2, 5)
    x = graph.inputs[0].id
    assert numbers(graph, "aten.slice.") == []
    (arange,) = (node for node in graph.nodes if node.op.startswith("aten.arange"))
    assert int(arange.args[0]) == compute(5)
    assert str(expr_of(arange.args[0])) == text.replace("%x", f"%{x}")


@pytest.mark.parametrize(
    ("ask", "relation"),
    [
        (lambda n: bool(n % 5), "=="),
        (lambda n: bool(n), "<"),
        (lambda n: n / 2 > 1.5, "<"),
        (lambda n: n > 2.5, "<"),
        (lambda n: n & 1, AS_IT_IS),
        (lambda n: round(n / 2), AS_IT_IS),
    ],
)
def test_questions_about_sizes_are_heard(ask: Callable[[int], Any], relation: str) -> None:
    graph = traced(lambda x: x * int(bool(ask(x.shape[1]))), 2, 5)
    assert [c.relation for c in graph.comparisons] == [relation]


def test_tensors_of_sizes_remember_each_of_their_numbers() -> None:
    graph = traced(lambda x: x * torch.tensor([[1, x.shape[1]], [x.shape[0], 2]]).sum(), 2, 5)
    x = graph.inputs[0].id
    (held,) = graph.numbers.values()
    assert [str(expr_of(n)) for n in held] == ["1", f"size(%{x}, 1)", f"size(%{x}, 0)", "2"]
    graph = traced(lambda x: x * torch.tensor([1 / x.shape[1]]), 2, 5)
    ((number,),) = graph.numbers.values()
    assert isinstance(number, Scalar)
    assert str(number.expr) == f"(1 / size(%{x}, 1))"
