"""A comparison in double precision is one of first runs: values cached by earlier runs, in the
model's own precision, do not enter it, and none of its own stay behind.
"""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import planc
from planc.errors import VerificationError
from planc.verify.rounding import Pair, settled
from tests.support.proving import randomise

X = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0))
FAILURE = VerificationError("output 0 differs")
TABLES: dict[int, Tensor] = {}
LIMITS = {5: 0.5, 7: 0.25}


def angles(n: int) -> Tensor:
    return (torch.arange(n, dtype=torch.get_default_dtype()) / 3).sin()[:, None]


@functools.lru_cache
def remembered(n: int) -> Tensor:
    return angles(n)


class Cached(nn.Module):
    """Two layers with positions between, computed on the first run."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 4)

    def positions(self, n: int) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(self.up(x).relu() * self.positions(x.shape[1]))
        return y


class ByShape(Cached):
    shape: Any = None

    def positions(self, n: int) -> Tensor:
        if self.shape != n:
            self.shape, self.table = n, angles(n)
        return self.table


class Declared(Cached):
    """Attributes of the class until the first run, as anchors of detectors are."""

    shapes: ClassVar[list[int]] = []
    table = torch.empty(0)

    def positions(self, n: int) -> Tensor:
        if self.shapes != [n]:
            self.table = angles(n)
            self.shapes = [n]  # type: ignore[misc]
        return self.table


class Empty(Cached):
    """A tensor of the class that says by its size whether there was a run."""

    table = torch.empty(0)

    def positions(self, n: int) -> Tensor:
        if self.table.shape[0] != n:
            self.table = angles(n)
        return self.table


class InDictionary(Cached):
    def __init__(self) -> None:
        super().__init__()
        self.tables: dict[int, Tensor] = {}

    def positions(self, n: int) -> Tensor:
        if n not in self.tables:
            self.tables[n] = angles(n)
        return self.tables[n]


class OfProcess(Cached):
    def positions(self, n: int) -> Tensor:
        if n not in TABLES:
            TABLES[n] = angles(n)
        return TABLES[n]


class OfFunction(Cached):
    def positions(self, n: int) -> Tensor:
        return remembered(n)


class Needed(Cached):
    """A table by sizes that is filled elsewhere: without it a run decides otherwise."""

    def positions(self, n: int) -> Tensor:
        LIMITS.setdefault(3, 1.0)
        return angles(n) * LIMITS.get(n, 2.0)


KINDS = [ByShape, Declared, Empty, InDictionary, OfProcess, OfFunction, Needed]


def built(kind: type[Cached]) -> Cached:
    model = kind().eval()
    randomise(model, seed=0)
    return model


@pytest.fixture(autouse=True)
def _cleared() -> None:
    TABLES.clear()
    remembered.cache_clear()


@pytest.mark.parametrize("kind", KINDS)
def test_what_an_earlier_run_cached_is_no_difference_in_double_precision(
    kind: type[Cached],
) -> None:
    model, fresh = built(kind), built(kind)
    model(X)
    error, _ = settled(FAILURE, Pair(model, fresh, ((X,), {})), 1e-4)
    assert error <= 1e-12


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_another_precision_is_left_to_later_runs(kind: type[Cached]) -> None:
    model = built(kind)
    settled(FAILURE, Pair(model, built(kind), ((X,), {})), 1e-4)
    assert model(X).dtype == torch.float32
    assert all(table.dtype == torch.float32 for table in TABLES.values())


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_behind_a_cache_is_found(kind: type[Cached]) -> None:
    model, other = built(kind), built(kind)
    with torch.no_grad():
        other.down.weight[0, 0] += 1e-2
    other(X)
    with pytest.raises(VerificationError, match="output 0 differs"):
        settled(FAILURE, Pair(other, model, ((X,), {})), 1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_plan_made_after_a_run_is_the_plan_made_before(kind: type[Cached]) -> None:
    model = built(kind)
    plan = planc.compile(model, X, ratio=0.5)
    assert plan.cost_after.params < plan.cost_before.params
    model(X[:, :3])
    assert planc.compile(model, X, ratio=0.5) == plan
    smaller = planc.apply(plan, model)
    smaller(X[:, :4])
    planc.verify(plan, model, smaller, X)
