"""Units chosen by number go or stay, whatever their scores; the other units follow the policy."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import planc
from planc.errors import PolicyError
from planc.plan.plan import Plan
from tests.support.small import build

STREAM, FIRST, SECOND = "stem.0.weight:0", "blocks.0.0.weight:0", "blocks.1.0.weight:0"


def removed(plan: Plan) -> dict[str, tuple[int, ...]]:
    return {group.name: tuple(group.removed) for group in plan.groups if group.removed}


@pytest.mark.parametrize(
    "name",
    [
        STREAM,
        "stem.0",
        "stem.1",
        "stem.0.bias",
        "blocks.0.3",
        "blocks.0.0:in",
        "blocks.1.0.weight:1",
    ],
)
def test_any_tensor_of_a_group_names_its_units(name: str) -> None:
    model, inputs = build("residual")
    plan = planc.compile(model, inputs, remove={name: [2, 6]})
    assert removed(plan) == {STREAM: (2, 6)}
    assert plan.provenance[0].decisions == (f"remove {STREAM} 2,6",)
    planc.verify(plan, model, planc.apply(plan, model), inputs)


def test_indices_of_a_flattened_map_name_the_channel() -> None:
    model, inputs = build("residual")  # a map of 2 x 2 before the head
    assert removed(planc.compile(model, inputs, remove={"head:in": [9]})) == {STREAM: (2,)}


def test_indices_of_a_concatenation_name_units_of_its_parts() -> None:
    model, inputs = build("dense")
    analysis = planc.analyze(planc.trace(model, inputs))
    member = next(m for g in analysis.groups[1:2] for m in g.members if m.dim == 1)
    units, indices = member.expand()
    plan = planc.compile(model, inputs, remove={str(member): [int(indices[0])]})
    assert removed(plan) == {analysis.groups[1].name: (int(units[0]),)}


@settings(max_examples=15, deadline=None)
@given(
    gone=st.sets(st.integers(0, 7), max_size=4),
    stays=st.sets(st.integers(0, 5), max_size=3),
    options=st.sampled_from(
        [{"ratio": 0.5}, {"ratio": 0.5, "ranking": "global"}, {"params": 0.6}, {"ratio": 0.0}]
    ),
)
def test_chosen_units_go_and_stay_beside_every_policy(
    gone: set[int], stays: set[int], options: dict[str, Any]
) -> None:
    model, inputs = build("residual")
    plan = planc.compile(
        model, inputs, remove={STREAM: sorted(gone)}, keep_units={FIRST: sorted(stays)}, **options
    )
    found = removed(plan)
    assert gone <= set(found.get(STREAM, ()))
    assert not stays & set(found.get(FIRST, ()))
    plain = planc.compile(model, inputs, **options)
    for group, other in zip(plan.groups, plain.groups, strict=True):
        least = len(gone) if group.name == STREAM else 0
        assert len(group.removed) <= max(least, len(other.removed)) or "params" in options
    if "params" in options:
        assert plan.cost_after.params <= 0.6 * plan.cost_before.params


def test_rows_of_a_group_lose_equally_many() -> None:
    model, inputs = build("grouped")
    analysis = planc.analyze(planc.trace(model, inputs))
    group = next(group for group in analysis.groups if group.rows > 1)
    plan = planc.compile(model, inputs, remove={group.name: [1]})
    found = removed(plan)[group.name]
    assert 1 in found
    assert len(found) == group.rows


def test_heads_are_named_by_their_group() -> None:
    model, inputs = build("vit")
    analysis = planc.analyze(planc.trace(model, inputs))
    heads = next(group for group in analysis.groups if group.kind == "heads")
    plan = planc.compile(model, inputs, remove={heads.name: [1]}, target="graph")
    assert removed(plan) == {heads.name: (1,)}
    with pytest.raises(PolicyError, match="0 may go: its width is bound by equal rows of"):
        planc.compile(model, inputs, remove={heads.name: [1]})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"remove": {"stem": [1, 99]}},
            r"no unit 99: stem\.0\.weight:0 has 8 indices, from 0 to 7",
        ),
        ({"remove": {FIRST: [6]}}, r"no unit 6: group .* has 6 units, from 0 to 5"),
        ({"remove": {"stam": [1]}}, "'stam' matches no group; near misses: stem"),
        ({"remove": {"head": [1]}}, "it reads group .*'head:in'"),
        ({"remove": {"head.weight:0": [1]}}, "head.weight:0"),
        ({"remove": {"blocks.0": [1]}}, "means several groups: name one of blocks"),
        ({"remove": {"stem": range(8)}}, "all its units are to be removed; one must stay"),
        ({"remove": {"stem": [1.5]}}, "1.5 is no index of a unit"),
        ({"remove": {"stem": [1]}, "keep_units": {"stem.1": [1]}}, "unit 1 is to be removed and"),
        (
            {"remove": {"stem": [1]}, "keep": "stem"},
            "1 of its units are chosen .* 0 may go: another",
        ),
        ({"remove": [1]}, "remove: expected a mapping from names"),
    ],
)
def test_impossible_choices_are_refused(options: dict[str, Any], said: str) -> None:
    model, inputs = build("residual")
    with pytest.raises(PolicyError, match=said):
        planc.compile(model, inputs, **options)


class Equal(nn.Module):
    """Two layers whose results are stacked, and two whose widths the code compares."""

    def __init__(self, stacked: bool) -> None:
        super().__init__()
        self.stacked = stacked
        self.a, self.b, self.out = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = self.a(x).relu(), self.b(x).relu()
        if self.stacked:
            return self.out(torch.stack([a, b], 1).reshape(len(x), -1))
        if a.shape[1] != b.shape[1]:
            raise ValueError("unequal widths")
        return self.out(torch.cat([a, b], 1))


@pytest.mark.parametrize("stacked", [True, False])
def test_widths_tied_by_the_code_shrink_together(stacked: bool) -> None:
    model, x = Equal(stacked).eval(), torch.randn(2, 4)
    plan = planc.compile(model, x, remove={"a": [3]})
    assert plan.cuts["a.weight"].shape == plan.cuts["b.weight"].shape == (5, 4)
    assert 3 not in (plan.cuts["a.weight"].kept[0] if not stacked else [])
    planc.verify(plan, model, planc.apply(plan, model), x)
    whole = planc.compile(model, x, ratio=0.0)
    edited = planc.edit(whole, model, x, remove={"b": [1, 2]})
    assert edited.cuts["a.weight"].shape == edited.cuts["b.weight"].shape == (4, 4)
