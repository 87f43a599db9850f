"""``copy.copy`` and ``copy.deepcopy`` of tensors in a forward are operators of the trace."""

from __future__ import annotations

import copy
import queue
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import planc


class Held:
    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


COPIES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "shallow": copy.copy,
    "deep": copy.deepcopy,
    "in a list": lambda t: copy.deepcopy([t, t])[1],
    "in an object": lambda t: copy.deepcopy(Held(t)).tensor,
    "in a shallow list": lambda t: copy.copy([t])[0],
    "of a copy": lambda t: copy.copy(copy.deepcopy({"a": copy.copy(t)})["a"]),
}


class Copying(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.a, self.b, self.how = nn.Linear(4, 6), nn.Linear(6, 3), how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.b(COPIES[self.how](self.a(x).relu()))
        return y


@pytest.mark.parametrize("target", ["module", "graph"])
@pytest.mark.parametrize("how", COPIES)
def test_a_copied_tensor_is_pruned_as_itself(how: str, target: Any) -> None:
    model, x = Copying(how).eval(), torch.randn(2, 4)
    with torch.no_grad():
        plan = planc.compile(model, x, ratio=0.5, target=target)
        planc.verify(plan, model, planc.apply(plan, model), x)
    assert plan.cost_after.params == 27


def test_copies_elsewhere_are_those_without_a_trace() -> None:
    seen: queue.SimpleQueue[Any] = queue.SimpleQueue()

    class Waiting(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            outside = torch.ones(3)
            thread = threading.Thread(target=lambda: seen.put(copy.copy(outside)))
            thread.start()
            thread.join()
            return x

    assert not hasattr(torch.Tensor, "__copy__")
    planc.trace(nn.Sequential(nn.Linear(2, 2), Waiting()), torch.ones(1, 2))
    assert not hasattr(torch.Tensor, "__copy__")
    assert isinstance(seen.get(timeout=60), torch.Tensor)
