"""Outputs that may shrink: chosen by name, listed in the plan, proven by verify."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

import planc
from planc.errors import PolicyError
from planc.files.formats import decode_plan, encode_plan
from planc.plan.plan import Plan

TOKENS = torch.arange(18).reshape(2, 9)


class Pair(NamedTuple):
    logits: Any
    hidden: Any


@dataclass
class Record:
    logits: Any
    hidden: Any


class Model(nn.Module):
    """A recurrent language model that returns its states in a form of choice."""

    def __init__(self, form: Any, kind: type[nn.Module] = nn.LSTM) -> None:
        super().__init__()
        self.form = form
        self.embed, self.head = nn.Embedding(30, 16), nn.Linear(16, 30)
        self.body = kind(16, 16, 2, batch_first=True)

    def forward(self, tokens: torch.Tensor) -> Any:
        y, state = self.body(self.embed(tokens))
        return self.form(self.head(y), state)


FORMS: dict[str, tuple[Any, str]] = {
    "tuple": (lambda logits, state: (logits, state), "0"),
    "dict": (lambda logits, state: {"logits": logits, "state": state}, "logits"),
    "named tuple": (Pair, "logits"),
    "dataclass": (Record, "logits"),
    "list": (lambda logits, state: [state, logits], "1"),
}


def share(plan: Plan) -> float:
    return plan.cost_after.params / plan.cost_before.params


@pytest.mark.long
@pytest.mark.parametrize(
    ("form", "kind"), [*((form, nn.LSTM) for form in FORMS), ("tuple", nn.GRU), ("dict", nn.RNN)]
)
def test_states_shrink_where_only_the_logits_count(form: str, kind: type[nn.Module]) -> None:
    make, name = FORMS[form]
    model = Model(make, kind).eval()
    alone = planc.compile(Model(lambda logits, _: logits, kind).eval(), TOKENS, ratio=0.5)
    whole = planc.compile(model, TOKENS, ratio=0.5)
    plan = planc.compile(model, TOKENS, ratio=0.5, outputs=name)
    assert share(plan) == share(alone) < share(whole)
    assert not whole.outputs
    assert {(o.dim, o.size, len(o.kept)) for o in plan.outputs} == {(1, 16, 8)}  # of each layer
    assert decode_plan(encode_plan(plan)) == plan
    smaller = planc.apply(plan, model)
    planc.verify(plan, model, smaller, TOKENS)


class Hidden(nn.Module):
    """An encoder that returns what its stream is after each block, and a pooled vector."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(6, 12)
        self.blocks = nn.ModuleList(nn.Linear(12, 12) for _ in range(2))
        self.pool = nn.Linear(12, 4)

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        x = self.stem(x)
        states = [x]
        for block in self.blocks:
            states.append(states[-1] + block(states[-1]).relu())
        return {"pooled": self.pool(states[-1]), "states": tuple(states)}


@pytest.mark.parametrize("target", ["module", "graph"])
@pytest.mark.parametrize(
    "options", [{"outputs": "pooled"}, {"free_outputs": "states"}, {"free_outputs": ["states.*"]}]
)
def test_a_plan_lists_the_indices_that_outputs_keep(options: Any, target: Any) -> None:
    model, x = Hidden().eval(), torch.randn(3, 6)
    plan = planc.compile(model, x, ratio=0.5, target=target, **options)
    assert [(o.name, o.dim, o.size) for o in plan.outputs] == [
        (f"states.{i}", 1, 12) for i in range(3)
    ]
    (group,) = plan.groups
    kept = sorted(set(range(12)) - set(group.removed))
    assert all(list(o.kept) == kept for o in plan.outputs)
    smaller = planc.apply(plan, model)
    planc.verify(plan, model, smaller, x)
    zeroed = planc.mask(plan, model)(x)["states"]
    for found, expected in zip(smaller(x)["states"], zeroed, strict=True):
        np.testing.assert_allclose(found.detach(), expected.detach()[:, kept], atol=1e-5)


def test_an_encoder_may_shrink_as_a_whole() -> None:
    encoder, x = (
        nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6)).eval(),
        torch.randn(1, 4),
    )
    plan = planc.compile(encoder, x, free_outputs="")
    (output,) = plan.outputs
    assert (output.name, output.dim, output.size, len(output.kept)) == ("", 1, 6, 3)
    smaller = planc.apply(plan, encoder)
    planc.verify(plan, encoder, smaller, x)
    masked = planc.mask(plan, encoder)(x)[:, list(output.kept)]
    torch.testing.assert_close(smaller(x), masked)


def test_free_outputs_that_do_not_shrink_leave_no_trace() -> None:
    model, x = Hidden().eval(), torch.randn(3, 6)
    plan = planc.compile(model, x, ratio=0.0, free_outputs="states")
    assert plan == planc.compile(model, x, ratio=0.0)
    planc.verify(plan, model, planc.apply(plan, model), x)


def test_other_names_are_refused_with_those_there_are() -> None:
    model, x = Hidden().eval(), torch.randn(3, 6)
    for options in ({"outputs": "logits"}, {"free_outputs": "logits"}):
        with pytest.raises(
            PolicyError, match=r"'logits' is no output of the model: it has pooled, "
        ):
            planc.compile(model, x, **options)  # type: ignore[arg-type]
    with pytest.raises(PolicyError, match="'pooled' is to keep its size and may shrink"):
        planc.compile(model, x, outputs="pooled", free_outputs="pooled")


def test_outputs_shrink_in_steps_to_one_plan_for_the_original() -> None:
    original, x = Hidden().eval(), torch.randn(3, 6)
    schedule, model, done = planc.Schedule(ratio=0.5, steps=2), original, None
    while (step := planc.next_step(schedule, model, x, done, outputs="pooled")) is not None:
        model, done = planc.apply(step.plan, model), step.total
    assert done is not None
    assert [(o.size, len(o.kept)) for o in done.outputs] == [(12, 6)] * 3
    planc.verify(done, original, planc.apply(done, original), x)
