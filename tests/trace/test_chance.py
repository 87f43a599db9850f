"""A plan is made of one run: random numbers are the same each time, random control flow is none."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import planc
from planc.errors import TraceError
from planc.trace.chance import Chance

X = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
DRAWS: dict[str, Callable[[], float]] = {
    "torch": lambda: float(torch.rand(())),
    "torch, on a tensor": lambda: bool(torch.empty(1).uniform_() > 0.5),  # type: ignore[dict-item]
    "bernoulli": lambda: torch.bernoulli(torch.tensor(0.5)).item(),
    "python": random.random,
    "numpy": lambda: float(np.random.rand()),
}


class Skipping(nn.Module):
    """Skips each inner layer with a probability of one half while it is trained."""

    def __init__(self, draw: Callable[[], float], share: float = 0.5) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 4)
        self.inner = nn.ModuleList([nn.Linear(16, 16) for _ in range(4)])
        self.draw, self.share = draw, share

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for layer in self.inner:
            if not self.training or self.draw() >= self.share:
                x = x + torch.relu(layer(x))
        y: Tensor = self.last(x)
        return y


@pytest.mark.parametrize("name", DRAWS)
def test_layers_that_are_skipped_at_random_are_refused_in_words(name: str) -> None:
    for seed in range(3):
        torch.manual_seed(seed)
        with pytest.raises(TraceError, match="the model runs differently each time") as caught:
            planc.compile(Skipping(DRAWS[name]).train(), X, ratio=0.5)
        assert "put the model in eval mode" in str(caught.value)


@pytest.mark.parametrize("name", DRAWS)
def test_layers_that_are_never_skipped_are_pruned(name: str) -> None:
    for model in (Skipping(DRAWS[name]).eval(), Skipping(DRAWS[name], share=0.0).train()):
        plan = planc.compile(model, X, ratio=0.5)
        planc.verify(plan, model, planc.apply(plan, model), X)


@pytest.mark.parametrize("name", ["python", "numpy"])
def test_a_random_number_is_the_same_in_every_run(name: str) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.down(torch.relu(self.up(x))) * DRAWS[name]()
            return y

    model = Scaled()
    plans = []
    for seed in range(3):
        random.seed(seed)
        np.random.seed(seed)
        plan = planc.compile(model, X, ratio=0.5)
        planc.verify(plan, model, planc.apply(plan, model), X)
        plans.append(plan)
    assert plans[0] == plans[1] == plans[2]


def test_random_states_are_the_callers_after_a_run() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.5), nn.Linear(16, 4)).train()
    states = torch.random.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index,union-attr]
    planc.trace(model, X)
    chance = Chance(7)

    def drawn() -> None:
        with chance.seeded():
            torch.rand(1)
            random.random()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        drawn()
    assert chance.drew
    assert torch.equal(torch.random.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.random.get_state()[1].tolist() == states[2]  # type: ignore[index,union-attr]
    quiet = Chance()
    with quiet.seeded():
        torch.rand(1)
    assert not quiet.drew
