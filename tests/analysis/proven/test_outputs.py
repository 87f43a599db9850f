"""Proven removals: outputs of all kinds."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.support.proving import (
    TOKENS,
    Net,
    prove,
    reasons,
    sizes,
    together,
)


@dataclass
class Result:
    logits: Tensor
    features: Any


Pair = namedtuple("Pair", "first second")


@pytest.mark.parametrize("kind", ["dict", "tuple", "dataclass", "namedtuple", "nested"])
def test_outputs_in_containers_are_pinned(kind: str) -> None:
    def run(m: Any, x: Tensor) -> Any:
        hidden = m.a(x)
        shown = m.b(hidden)
        out = m.c(shown)
        return {
            "dict": {"out": out, "shown": [shown]},
            "tuple": (out, (shown, None, 3)),
            "dataclass": Result(out, {"shown": shown}),
            "namedtuple": Pair(out, shown),
            "nested": [{"x": (out,)}, Result(shown, [shown])],
        }[kind]

    net = Net(run, a=nn.Linear(6, 8), b=nn.Linear(8, 4), c=nn.Linear(4, 2))
    found = prove(net, TOKENS)
    assert sizes(found) == {"a.weight:0": 8}
    assert (
        reasons(found, "b.weight", 0) == reasons(found, "c.weight", 0) == "an output of the model"
    )


def test_outputs_of_other_types() -> None:
    net = Net(
        lambda m, x: ((y := m.b(m.a(x))) > 0, y.argmax(-1), torch.complex(y, y)),
        a=nn.Linear(6, 8),
        b=nn.Linear(8, 2),
    )
    assert sizes(prove(net, TOKENS)) == {"a.weight:0": 8}


def test_inputs_may_stand_in_containers() -> None:
    net = Net(
        lambda m, batch, flag: m.b(m.a(batch["x"][0]) + m.c(batch["y"])),
        a=nn.Linear(6, 8),
        c=nn.Linear(4, 8),
        b=nn.Linear(8, 2),
    )
    found = prove(net, {"x": [TOKENS], "y": torch.randn(2, 5, 4)}, {"flag": True})
    assert together(found, "a.weight:0", "c.weight:0", "b.weight:1")


def test_an_unused_parameter_stays() -> None:
    net = Net(lambda m, x: m.b(m.a(x)), a=nn.Linear(6, 8), b=nn.Linear(8, 2), c=torch.ones(4, 5))
    found = prove(net, TOKENS)
    assert "not used" in reasons(found, "c", 1)
