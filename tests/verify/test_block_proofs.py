"""Proofs of plans that remove blocks: each claim about them is checked against the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

import planc
from planc.apply.validate import skipped
from planc.errors import StalePlan, VerificationError
from planc.plan.plan import Cost, Plan, PlanGroup
from planc.verify import depth as proofs
from tests.support.blocks import Choosy, Stack, inputs, sequential

Edit = Callable[[Plan], Plan]
OTHER = PlanGroup("stem", "blocks", 2, 1, ())


class Routed(Stack):
    """Chooses a way by the values of its stream, inside every block's successor."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return self.head(x) if x.sum() > 0 else self.head(-x)


def _list(plan: Plan, **changes: object) -> Plan:
    return plan.replace(groups=(replace(plan.groups[0], **changes), *plan.groups[1:]))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda plan: plan.replace(groups=(OTHER, *plan.groups)),
            "the plan has the lists of blocks",
        ),
        (lambda plan: _list(plan, mixing="by hand"), "the plan's list of blocks is"),
        (lambda plan: plan.replace(cost_before=Cost(1, 1, 1)), "cost before"),
        (lambda plan: plan.replace(attributes=()), "attributes|differ"),
        (lambda plan: plan.replace(cost_after=Cost(1, 1, 1)), "cost_after differ"),
    ],
)
def test_a_claim_about_blocks_that_is_wrong_is_found(edit: Edit, message: str) -> None:
    model, args = Stack(3, by_count=True).eval(), inputs()
    plan = planc.compile(model, args, remove={"blocks": [1]})
    with pytest.raises(VerificationError, match=message):
        planc.verify(edit(plan), model, planc.apply(plan, model), args)


def test_a_block_that_cannot_go_is_refused() -> None:
    model, args = Stack(3).eval(), inputs()
    plan = planc.compile(model, args, remove={"blocks": [1]})
    call = (args, dict[str, object]())
    with pytest.raises(VerificationError, match="there is no such block"):
        proofs.split(_list(plan, removed=(9,)), model, call, None)
    with pytest.raises(VerificationError, match="breaks a constraint"):
        proofs.split(_list(plan, removed=(2,)), Choosy(3).eval(), call, None)
    graph = planc.trace(nn.Linear(3, 2), args)
    with pytest.raises(StalePlan, match="it is no list of blocks"):
        skipped(plan, graph)
    ends = sequential(3).eval()
    plan = planc.compile(ends, args, remove={".": [2]})
    with pytest.raises(StalePlan, match="is not a value that enters it"):
        skipped(_list(plan, removed=(0,)), planc.trace(ends, args))


def test_what_cannot_be_compared_is_named() -> None:
    args = inputs()
    model = Routed(3).eval()
    plan = planc.compile(model, args, remove={"blocks": [1]})
    report = planc.verify(plan, model, planc.apply(plan, model), args, other_sizes=False)
    assert any("decides in another way" in text for text in report.not_shown)
    meta = Stack(3).eval().to("meta")
    given = planc.compile(meta, args, remove={"blocks": [1]}, criterion="random")
    report = planc.verify(given, meta, planc.apply(given, meta), args, other_sizes=False)
    assert any("there are no numbers" in text for text in report.not_shown)


def test_results_that_no_graph_can_make_are_not_compared() -> None:
    model, args = Stack(3).eval(), inputs()
    plan = planc.compile(model, args, remove={"blocks": [1]})
    found = proofs.split(plan, model, (args, {}), None)
    assert not found.not_shown
    graph = replace(found.shallow.graph, unwritable="an object of its own")
    odd = replace(found.shallow, graph=graph)
    assert proofs._not_compared(odd, model).endswith("an object of its own")


def test_other_inputs_validate_a_plan_of_blocks() -> None:
    model = Stack(3).eval()
    plan = planc.compile(model, inputs(), remove={"blocks": [1]}, ratio=0.5)
    smaller = planc.apply(plan, model, args=(torch.randn(5, 3),))
    assert smaller(torch.randn(5, 3)).shape == (5, 2)


def test_a_tensor_of_another_block_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    model, args = Stack(3).eval(), inputs()
    plan = planc.compile(model, args, remove={"blocks": [1]})
    real = proofs.shallower

    def swapped(*given: object) -> proofs.Shallow:
        found = real(*given)  # type: ignore[arg-type]
        wrong = planc.apply(plan, model)
        return replace(found, model=wrong)

    monkeypatch.setattr(proofs, "shallower", swapped)
    with pytest.raises(VerificationError, match=r"is not .* of the original"):
        proofs.split(plan, model, (args, {}), None)


def test_blocks_behind_a_norm_are_compared_with_a_run_that_skips_them() -> None:
    model, args = Stack(3, kind="post").eval(), inputs()
    plan = planc.compile(model, args, remove={"blocks": [1]})
    report = planc.verify(plan, model, planc.apply(plan, model), args)
    (text,) = (check for check in report.checks if "with them skipped" in check)
    assert "with them zero" not in text
