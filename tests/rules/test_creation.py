"""Creation: tensors filled with one value take any size, all others have fixed positions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from planc.rules.families import creation
from tests.rules.coverage import Case, unseen
from tests.support.proving import Net, prove, prunable, reasons

TOKENS = torch.randn(2, 3, 6)
Run = Callable[[Tensor], Tensor]
FILLED: dict[str, Run] = {
    "zeros": lambda y: torch.zeros(y.shape, dtype=y.dtype),
    "ones": lambda y: torch.ones(y.shape[2], dtype=y.dtype),
    "full": lambda y: torch.full((1, *y.shape[1:]), 2.0, dtype=y.dtype),
    "empty": lambda y: torch.empty(*y.shape, dtype=y.dtype).fill_(1.0),
    "new_zeros": lambda y: y.new_zeros(y.shape[-1]),
    "new_ones": lambda y: y.new_ones(y.shape),
    "new_full": lambda y: y.new_full((1, 1, y.shape[2]), 3.0),
    "new_empty": lambda y: y.new_empty(y.shape).zero_(),
    "zeros_like": torch.zeros_like,
    "ones_like": torch.ones_like,
    "full_like": lambda y: torch.full_like(y, 2.0),
    "empty_like": lambda y: torch.empty_like(y).copy_(y),
}
COUNTED: dict[str, Run] = {
    "arange": lambda y: torch.arange(8).to(y),
    "arange of a size": lambda y: torch.arange(y.shape[2]).to(y),
    "linspace": lambda y: torch.linspace(0, 1, 8, dtype=y.dtype),
    "logspace": lambda y: torch.logspace(0, 1, 8, dtype=y.dtype),
    "eye": lambda y: torch.eye(8, dtype=y.dtype)[1:2],
    "tril_indices": lambda y: torch.tril_indices(4, 2)[0, :1].to(y) + torch.arange(8),
    "triu_indices": lambda y: torch.triu_indices(4, 2)[0, :1].to(y) + torch.arange(8),
    "windows": lambda y: torch.hann_window(8).to(y) + torch.bartlett_window(8).to(y),
    "randperm": lambda y: torch.randperm(8).to(y),
    "rand": lambda y: torch.rand(8).to(y) + torch.randn(8).to(y) + torch.randint(3, (8,)).to(y),
    "scalar_tensor": lambda y: torch.scalar_tensor(3.0).to(y) + torch.arange(8),
    "meshgrid": lambda y: torch.meshgrid(torch.arange(1), torch.arange(8), indexing="ij")[1].to(y),
}
RANDOM: dict[str, Run] = {
    "rand_like": torch.rand_like,
    "randn_like": torch.randn_like,
    "randint_like": lambda y: torch.randint_like(y, 3),
}


def tokens(op: Run, combine: Any = torch.add) -> Net:
    return Net(lambda m, x: m.b(combine(y := m.a(x), op(y))), a=nn.Linear(6, 8), b=nn.Linear(8, 2))


@pytest.mark.long
@pytest.mark.parametrize("combine", [torch.add, torch.mul])
@pytest.mark.parametrize("name", FILLED)
def test_filled_tensors_follow(name: str, combine: Any) -> None:
    found = prove(tokens(FILLED[name], combine), TOKENS, seeds=(0,))
    assert prunable(found, "module") == prunable(found, "graph") == {"a.weight:0"}
    assert not found.groups[0].mixing


@pytest.mark.parametrize("name", ["ones", "full", "ones_like", "new_full"])
def test_filled_tensors_are_not_zero(name: str) -> None:
    net = Net(lambda m, x: ((y := m.a(x)) + FILLED[name](y)).sum(-1), a=nn.Linear(6, 8))
    assert "not zero" in prove(net, TOKENS).groups[0].mixing


@pytest.mark.parametrize("name", COUNTED)
def test_positions_pin(name: str) -> None:
    found = prove(tokens(COUNTED[name]), TOKENS)
    assert "cannot shrink" in reasons(found, "a.weight", 0)


def test_a_literal_size_binds_the_module_alone() -> None:
    found = prove(tokens(lambda y: torch.ones(8, dtype=y.dtype)), TOKENS)
    assert not prunable(found, "module")
    assert prunable(found, "graph") == {"a.weight:0"}


def test_every_operator_is_exercised() -> None:
    tables = {**FILLED, **COUNTED, **RANDOM}
    cases: list[Case] = [(tokens(op), (TOKENS,)) for op in tables.values()]
    assert not unseen(creation, cases)
