"""Proven removals: numbers invisible to the tracer."""

from __future__ import annotations

import math
from math import log, sqrt
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import planc
from planc.errors import VerificationError
from tests.support.proving import (
    TOKENS,
    Net,
    prove,
    prunable,
    together,
)

PLAIN: dict[str, Any] = {
    "float": lambda m, y: y / float(y.shape[-1]),
    "float of an attribute": lambda m, y: (y / float(m.width)).view(2, 5, m.width),
    "int of a quotient": lambda m, y: y * int(y.shape[-1] / 3),
    "round": lambda m, y: y * round(y.shape[-1] * 0.3),
    "square root, imported before": lambda m, y: y / sqrt(y.shape[-1]),
    "a function of NumPy": lambda m, y: y / float(np.sqrt(y.shape[-1])),
    "length": lambda m, y: y / len(y[0, 0]),
}


@pytest.mark.parametrize("name", PLAIN)
def test_sizes_that_are_made_plain_numbers_stay(name: str) -> None:
    parts = {"a": nn.Linear(6, 8), "b": nn.Linear(8, 2), "width": 8}
    found = prove(Net(lambda m, x: m.b(PLAIN[name](m, m.a(x))), **parts), TOKENS)
    assert prunable(found, "module") == set()
    assert prunable(found, "graph") == {"a.weight:0"}
    reason = next(c.reason for c in found.equations("module").constraints)
    assert "made a plain number (by float(), int(), len(), ...)" in reason


@pytest.mark.parametrize("name", ["sqrt", "log", "log2", "log10"])
def test_functions_of_sizes_are_computed_again(name: str) -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        return m.b((y := m.a(x)) * getattr(math, name)(y.shape[-1]))  # type: ignore[no-any-return]

    found = prove(Net(run, a=nn.Linear(6, 8), b=nn.Linear(8, 2)), TOKENS)
    for target in ("module", "graph"):
        assert prunable(found, target) == {"a.weight:0"}
    assert found.mixing(0, "module") == "its width is used as a number"
    assert found.mixing(0, "graph") == ""


UNSEEN: dict[str, Any] = {
    "a float divided by it": lambda y: y * (1.0 / y.shape[-1]),
    "a function imported before": lambda y: y * log(y.shape[-1]),
}


@pytest.mark.parametrize("name", UNSEEN)
def test_numbers_that_were_made_unseen_are_found_when_the_plan_is_applied(name: str) -> None:
    net = Net(lambda m, x: m.b(UNSEEN[name](m.a(x))), a=nn.Linear(6, 8), b=nn.Linear(8, 2)).eval()
    plan = planc.compile(net, TOKENS, ratio=0.5)
    with pytest.raises(VerificationError, match="its code makes the number of sizes in a way"):
        planc.apply(plan, net)
    planc.apply(planc.compile(net, TOKENS, ratio=0.5, keep="a.*"), net)


def test_a_number_taken_from_a_value() -> None:
    net = Net(
        lambda m, x: m.b((y := m.a(x)) * y.abs().sum().item()),
        a=nn.Linear(6, 8),
        b=nn.Linear(8, 2),
    )
    assert together(prove(net, TOKENS), "a.weight:0", "b.weight:1")


@pytest.mark.parametrize(
    "index",
    [[3, 1, 0], [[0, 1], [1, 3]], [True, False, True, True], np.array([3, 1]), np.array([[2, 0]])],
    ids=str,
)
def test_an_index_that_is_a_list_of_positions(index: Any) -> None:
    net = Net(
        lambda m, x: m.b(m.a(x)[:, index].flatten(1, -2).sum(1)),
        a=nn.Linear(6, 8),
        b=nn.Linear(8, 2),
    )
    found = prove(net, torch.randn(2, 4, 6))
    assert together(found, "a.weight:0", "b.weight:1")
