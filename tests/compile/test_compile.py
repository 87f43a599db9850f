"""One call compiles a model: its options reach the policy, the criterion and the plan."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import planc
from planc.criteria import Magnitude, Random
from planc.errors import AnalysisError
from planc.files.formats import decode_plan, encode_plan
from planc.policy import Global, Uniform
from tests.support import small
from tests.support.proving import Net
from tests.support.small import MODELS, build


@pytest.mark.long
@pytest.mark.parametrize("name", MODELS)
def test_compile_is_the_four_steps_in_one(name: str) -> None:
    model, inputs = build(name)
    analysis = planc.analyze(planc.trace(model, inputs))
    for criterion, given in ((Magnitude(1), "l1"), (Magnitude(2), "l2"), (Random(3), "random")):
        scores = planc.score(analysis, model, criterion)
        for policy, ranking in ((Uniform(0.4), False), (Global(0.4), True)):
            for target in ("module", "graph"):
                options: Any = {"target": target, "seed": 3}
                plan = planc.select(analysis, scores, policy, **options)
                assert plan == planc.compile(
                    model, inputs, ratio=0.4, criterion=given, global_ranking=ranking, **options
                )


def test_a_policy_can_be_given_instead_of_a_ratio() -> None:
    model, inputs = build("residual")
    plan = planc.compile(model, inputs, policy=Uniform(0.25))
    assert plan == planc.compile(model, inputs, ratio=0.25)
    assert [len(group.removed) for group in plan.groups] == [2, 1, 1]


def test_half_of_all_units_is_removed_by_default() -> None:
    model, inputs = build("residual")
    plan = planc.compile(model, inputs)
    assert [(group.size, group.kept) for group in plan.groups] == [(8, 4), (6, 3), (4, 2)]
    (made,) = plan.provenance
    assert (made.criterion, made.policy, made.seed) == ("l2", "uniform(0.5)", 0)


def test_values_of_the_inputs_do_not_matter() -> None:
    model, inputs = build("residual")
    for other in (torch.zeros_like(inputs[0]), torch.full_like(inputs[0], float("nan"))):
        assert planc.compile(model, (other,)) == planc.compile(model, inputs)


class Strange(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.rot90(self.first(x), 2))


def test_an_operator_without_a_rule_pins_or_is_refused_under_strict() -> None:
    model, inputs = small.randomised(Strange()), small.vectors(2, 4)
    plan = planc.compile(model, inputs)
    assert plan.groups == ()
    with pytest.raises(AnalysisError) as refusal:
        planc.compile(model, inputs, strict=True)
    said = str(refusal.value)
    assert "aten.rot90.default" in said
    assert __file__ in said


def test_the_graph_target_removes_more_than_the_module() -> None:
    model, inputs = build("vit")
    for options in ({"kinds": {"heads": 0.5}}, {"kinds": {"head_dim": 0.5}}):
        module, graph = (
            planc.compile(model, inputs, ratio=0, target=target, **options)  # type: ignore[arg-type]
            for target in ("module", "graph")
        )
        assert module.cost_after == module.cost_before
        assert graph.cost_after.params < graph.cost_before.params
        assert graph.attributes == ()


def test_a_group_in_ranges_of_one_tensor_alone_is_saved() -> None:
    """Channels of a grouped transposed convolution that nobody reads: each range has some units."""
    model = Net(
        lambda m, x: (m.a(x), m.b(m.a(x)))[0],
        a=nn.Conv2d(3, 8, 1),
        b=nn.ConvTranspose2d(8, 4, 3, groups=2, bias=False),
    )
    plan = planc.compile(model, torch.randn(1, 3, 8, 8), ratio=0.5)
    assert [(group.rows, group.kept) for group in plan.groups] == [(2, 2)]
    assert decode_plan(encode_plan(plan)) == plan
