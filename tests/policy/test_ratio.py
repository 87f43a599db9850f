"""A ratio removes that share of each group, rounded down, and whole rows on request only."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import planc
from planc.errors import PolicyError
from planc.policy import Uniform
from planc.policy.ratio import share
from tests.support.small import MODELS, build


@given(st.integers(0, 999), st.integers(1, 5000))
def test_the_share_is_exact_for_decimal_ratios(thousandths: int, size: int) -> None:
    asked = Fraction(thousandths, 1000) * size
    assert share(thousandths / 1000, size) == min(asked.__floor__(), size - 1)


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 5000))
def test_the_share_always_leaves_a_unit(ratio: float, size: int) -> None:
    assert 0 <= share(ratio, size) < size


@pytest.mark.parametrize("target", ["module", "graph"])
@pytest.mark.parametrize("name", MODELS)
def test_no_group_loses_more_than_asked_and_free_ones_no_less(name: str, target: Any) -> None:
    model, inputs = build(name)
    analysis = planc.analyze(planc.trace(model, inputs))
    scores = planc.score(analysis, model, lambda analysis, _: tuple(
        __import__("numpy").zeros(group.size) for group in analysis.groups
    ))  # fmt: skip
    equations = analysis.equations(target)
    bound = set(equations.whole).union(*(c.groups for c in equations.constraints))
    for ratio in (0.0, 0.2, 0.5, 0.77, 0.99):
        plan = planc.select(analysis, scores, Uniform(ratio), target)
        for g, group in enumerate(plan.groups):
            asked = group.rows * share(ratio, group.cells)
            if g in analysis.grouping.rowed:
                assert group.removed == ()
            elif g in bound:
                assert len(group.removed) <= asked
            else:
                assert len(group.removed) == asked


def test_heads_are_removed_on_request_only() -> None:
    model, inputs = build("attention")
    for kinds, lost in (({}, 0), ({"heads": 0.5}, 2), ({"heads": 0.74}, 2), ({"heads": 0.75}, 3)):
        plan = planc.compile(model, inputs, ratio=0, kinds=kinds)
        removed = {group.kind: len(group.removed) for group in plan.groups}
        assert removed == {"heads": lost, "head_dim": 0, "features": 0}


def test_convolution_groups_are_removed_on_request_only() -> None:
    model, inputs = build("grouped")
    plan = planc.compile(model, inputs, ratio=0.5)
    assert {g.kind: len(g.removed) for g in plan.groups if g.kind == "groups"} == {"groups": 0}
    plan = planc.compile(model, inputs, ratio=0, kinds={"groups": 0.4})
    assert [len(g.removed) for g in plan.groups if g.kind == "groups"] == [1]
    smaller = planc.apply(plan, model)
    assert smaller.get_submodule("grouped").groups == 2
    planc.verify(plan, model, smaller, inputs)


def test_a_ratio_for_a_kind_replaces_the_common_one() -> None:
    model, inputs = build("vit")
    plan = planc.compile(model, inputs, ratio=0, kinds={"features": 0.5})
    removed = {group.kind: len(group.removed) for group in plan.groups}
    assert removed == {"channels": 0, "head_dim": 0, "heads": 0, "features": 6}


def test_an_absent_kind_is_refused_with_the_present_ones() -> None:
    model, inputs = build("residual")
    with pytest.raises(PolicyError, match=r"no group is of kind 'heads': this model has channels"):
        planc.compile(model, inputs, kinds={"heads": 0.5})
    with pytest.raises(PolicyError, match=r"kinds\['channels'\] 1 is not in \[0, 1\)"):
        planc.compile(model, inputs, kinds={"channels": 1})
