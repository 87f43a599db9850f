"""Products of a value with itself: one index belongs to two units, and no plan removes either."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.support.proving import Net, prove, reasons

TOKENS = torch.randn(2, 5, 6)
ROWS, COLUMNS = torch.triu_indices(4, 4)


def gram(x: Tensor) -> Tensor:
    return x.transpose(1, 2) @ x


def centred(x: Tensor) -> Tensor:
    return x - x.mean(1, keepdim=True)


ITSELF: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "Gram matrix": (lambda y: gram(y).flatten(1), 16),
    "einsum over tokens": (lambda y: torch.einsum("bti,btj->bij", y, y).reshape(2, -1), 16),
    "outer products": (lambda y: torch.einsum("bi,bj->bij", y[:, 0], y[:, 0]).flatten(1), 16),
    "broadcast product": (lambda y: (y[:, 0, :, None] * y[:, 0, None]).flatten(1), 16),
    "outer": (lambda y: torch.outer(y[0, 0], y[0, 0]).flatten(), 16),
    "three times": (lambda y: torch.einsum("bi,bj,bk->bijk", *[y[:, 0]] * 3).flatten(1), 64),
    "cosine similarities": (lambda y: gram(functional.normalize(y, dim=-1)).flatten(1), 16),
    "covariance": (lambda y: gram(centred(y)).div(4).flatten(1), 16),
    "upper triangle": (lambda y: gram(y)[:, ROWS, COLUMNS], 10),
    "beside the value": (lambda y: torch.cat([y.mean(1), gram(y).flatten(1)], 1), 20),
    "sum of two": (lambda y: (gram(y) + gram(y.relu())).flatten(1), 16),
}


@pytest.mark.parametrize("name", ITSELF)
def test_a_product_of_a_value_with_itself_that_is_flattened_pins_it(name: str) -> None:
    product, size = ITSELF[name]
    net = Net(lambda m, x: m.b(product(m.a(x))), a=nn.Linear(6, 4), b=nn.Linear(size, 3))
    found = prove(net, TOKENS, seeds=(0,))
    assert not any(member.tensor == "b.weight" for g in found.groups for member in g.members)


def test_the_reason_is_the_index_of_two_units() -> None:
    net = Net(lambda m, x: m.b(gram(m.a(x)).flatten(1)), a=nn.Linear(6, 4), b=nn.Linear(16, 3))
    found = prove(net, TOKENS, seeds=(0,))
    assert "an index stands for two of its units at once" in reasons(found, "a.weight", 0)


APART: dict[str, tuple[Callable[[Any, Tensor], Tensor], int]] = {
    "bilinear pooling": (
        lambda m, x: torch.einsum("bi,bj->bij", m.a(x)[:, 0], m.c(x)[:, 0]).flatten(1),
        12,
    ),
    "correlation": (lambda m, x: (m.a(x).transpose(1, 2) @ m.c(x)).flatten(1), 12),
    "outer": (lambda m, x: torch.outer(m.a(x)[0, 0], m.c(x)[0, 0]).flatten(), 12),
}


@pytest.mark.parametrize("name", APART)
def test_both_factors_of_a_product_of_two_values_are_pruned(name: str) -> None:
    product, size = APART[name]
    net = Net(
        lambda m, x: m.b(product(m, x)),
        a=nn.Linear(6, 4),
        c=nn.Linear(6, 3),
        b=nn.Linear(size, 3),
    )
    found = prove(net, TOKENS, seeds=(0,))
    assert {group.size for group in found.groups} == {4, 3}


def test_tokens_compared_with_each_other_leave_their_features_free() -> None:
    net = Net(
        lambda m, x: m.b((m.a(x) @ m.a(x).transpose(1, 2)).flatten(1)),
        a=nn.Linear(6, 4),
        b=nn.Linear(25, 3),
    )
    assert [group.size for group in prove(net, TOKENS, seeds=(0,)).groups] == [4]
