"""Branches that were not taken: what only a decision reads in the traced run stays whole, for
another run may return it; what flows on may shrink.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import planc
from tests.support.proving import randomise, reasons

X = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
CLASSES = 4
Confident = Callable[[torch.Tensor, float], Any]


class Early(nn.Module):
    """Returns early from a head where that is sure."""

    def __init__(self, confident: Confident, limit: float = 2.0) -> None:
        super().__init__()
        self.confident, self.limit = confident, limit
        self.first, self.exit = nn.Linear(8, 16), nn.Linear(16, CLASSES)
        self.second, self.last = nn.Linear(16, 20), nn.Linear(20, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        y: torch.Tensor = self.exit(x)
        if self.confident(y.softmax(-1), self.limit):
            return y
        out: torch.Tensor = self.last(torch.relu(self.second(x)))
        return out


class Deep(Early):
    """The head has a hidden layer."""

    def __init__(self, confident: Confident, limit: float = 2.0) -> None:
        super().__init__(confident, limit)
        self.exit = nn.Sequential(nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, CLASSES))


class Several(nn.Module):
    """Two exits inside parts, each of which says whether it is sure."""

    def __init__(self, confident: Confident, limit: float = 2.0) -> None:
        super().__init__()
        self.limit = limit
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 20)
        self.exits = nn.ModuleList([Part(16, confident), Part(20, confident)])
        self.last = nn.Linear(20, CLASSES)

    def forward(self, x: torch.Tensor) -> Any:
        x = torch.relu(self.first(x))
        found = self.exits[0](x, self.limit)
        if found is not None:
            return {"early": found}
        x = torch.relu(self.second(x))
        found = self.exits[1](x, self.limit)
        return {"late": found} if found is not None else {"out": self.last(x)}


class Part(nn.Module):
    def __init__(self, features: int, confident: Confident) -> None:
        super().__init__()
        self.confident = confident
        self.scores = nn.Linear(features, CLASSES)

    def forward(self, x: torch.Tensor, limit: float) -> torch.Tensor | None:
        y: torch.Tensor = self.scores(x)
        return y if self.confident(y.softmax(-1), limit) else None


CONFIDENT: dict[str, Confident] = {
    "truth value": lambda p, limit: bool(p.max() > limit),
    "comparison": lambda p, limit: p.max() > limit,
    "item": lambda p, limit: p.max().item() > limit,
    "float": lambda p, limit: float(p.max()) > limit,
    "all": lambda p, limit: (p.max(-1).values > limit).all(),
    "nonzero": lambda p, limit: len(torch.nonzero(p > limit)) > 0,
    "entropy": lambda p, limit: -(p * p.log()).sum(-1).mean().item() < 0.0 or limit < 0,
    "numpy": lambda p, limit: p.detach().numpy().max() > limit,
    "scalar array": lambda p, limit: p.max().detach().numpy() > limit,
    "list": lambda p, limit: max(map(max, p.tolist())) > limit,
}


def built(kind: type[nn.Module], confident: str, limit: float = 2.0) -> nn.Module:
    model = kind(CONFIDENT[confident], limit)
    randomise(model, seed=0)
    return model.eval()


def rows(model: nn.Module) -> dict[str, int]:
    parts = model.named_modules()
    return {name: part.out_features for name, part in parts if isinstance(part, nn.Linear)}


def tensors(result: Any) -> list[torch.Tensor]:
    return list(result.values()) if isinstance(result, dict) else [result]


@pytest.mark.long
@pytest.mark.parametrize("confident", CONFIDENT)
@pytest.mark.parametrize("kind", [Early, Deep, Several])
def test_the_branch_that_was_not_taken_returns_what_it_did(kind: Any, confident: str) -> None:
    model = built(kind, confident)
    plan = planc.compile(model, X, ratio=0.5)
    smaller = planc.apply(plan, model, args=X)
    planc.verify(plan, model, smaller, X)
    assert rows(smaller)["first"] == 8
    masked: Any = planc.mask(plan, model)
    for limit in (2.0, -1.0):
        for each in (smaller, masked):
            each.limit = limit
        for found, expected in zip(tensors(smaller(X)), tensors(masked(X)), strict=True):
            assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("confident", ["truth value", "item", "float", "scalar array"])
def test_an_exit_that_was_taken_leaves_whole_what_the_rest_reads(confident: str) -> None:
    model = built(Early, confident, limit=-1.0)
    plan = planc.compile(model, X, ratio=0.5)
    smaller: Any = planc.apply(plan, model, args=X)
    model.limit = smaller.limit = 2.0  # type: ignore[assignment]
    assert torch.allclose(smaller(X), model(X), atol=1e-5)
    found = planc.analyze(planc.trace(built(Early, confident, limit=-1.0), X))
    assert "held at a decision that may go on to second.weight" in reasons(found, "first.weight", 0)


def test_the_reason_says_that_only_a_decision_reads_it() -> None:
    found = planc.analyze(planc.trace(built(Early, "item"), X))
    said = reasons(found, "exit.weight", 0)
    assert said.startswith("only a decision reads it in the traced run: aten.")
    assert "exit" in said
    assert not reasons(found, "exit.weight", 1)


class Guarded(nn.Module):
    """Looks at its features before it goes on with them."""

    def __init__(self, sure: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.sure = sure
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        if self.sure(x):
            x = x.clamp(-1, 1)
        y: torch.Tensor = self.last(x)
        return y


@pytest.mark.parametrize(
    "sure",
    [
        lambda x: x.isinf().any(),
        lambda x: x.abs().max() > 1e4,
        lambda x: float(x.square().sum()) > 1e9,
        lambda x: bool(x.norm() > 1e9),
    ],
)
def test_features_that_a_decision_reads_and_that_flow_on_may_shrink(sure: Any) -> None:
    model = Guarded(sure).eval()
    plan = planc.compile(model, X, ratio=0.5)
    assert rows(planc.apply(plan, model, args=X)) == {"first": 8, "last": 3}


class Remembering(nn.Module):
    """Writes what it decides by into a buffer that the output is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 3)
        self.register_buffer("seen", torch.zeros(16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        assert float(x.sum()) >= 0
        self.seen.copy_(x.mean(0))
        y: torch.Tensor = self.last(x)
        return y


@pytest.mark.long
def test_what_is_written_to_a_buffer_flows_on() -> None:
    model = Remembering().eval()
    found = planc.analyze(planc.trace(model, X))
    assert not reasons(found, "first.weight", 0)
