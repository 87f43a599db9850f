"""Outlines say of a plan what its tables say: digests, sizes and costs, whatever goes."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest

import planc
from planc.analysis import Analysis
from planc.compile.outline import Outline, outline
from planc.errors import AnalysisError, PolicyError
from planc.plan import fingerprint
from planc.plan.plan import Plan
from tests.support.proving import TARGETS, removal
from tests.support.small import MODELS, build


def analysed(name: str) -> Analysis:
    model, args = build(name)
    return planc.analyze(planc.trace(model, args))


def random_plan(analysis: Analysis, target: Literal["module", "graph"], seed: int) -> Plan:
    some = np.random.default_rng(seed)
    wanted = tuple(int(some.integers(1, group.cells + 1)) for group in analysis.groups)
    return removal(analysis, wanted, target, seed)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", MODELS)
def test_digests_with_gaps_filled_are_those_of_the_tables(
    name: str, target: Literal["module", "graph"]
) -> None:
    analysis = analysed(name)
    for seed in range(3):
        plan = random_plan(analysis, target, seed)
        tensors = fingerprint.tensors_after(plan.tensors, plan.cuts)
        modules = fingerprint.modules_after(plan.modules, plan.attributes)
        assert plan.result.tensors == fingerprint.tensors_digest(tensors)
        assert plan.result.attributes == fingerprint.attributes_digest(modules)
        shapes = analysis.shapes(analysis.gone([group.removed for group in plan.groups]))
        assert plan.shapes == fingerprint.shapes_digest(
            (node.op, [shapes[ref.id] for ref in node.outputs if ref], node.literals)
            for node in analysis.graph.nodes
            if not node.idle
        )


@pytest.mark.parametrize("name", MODELS)
def test_units_that_go_are_told_apart_by_group_and_back(name: str) -> None:
    analysis = analysed(name)
    plan, known = random_plan(analysis, "graph", 7), outline(analysis, "graph")
    removed = tuple(group.removed for group in plan.groups)
    gone = known.gone(removed)
    assert tuple(group.removed for group in known.pruned(gone)) == removed
    assert plan.cost_after == known.price(known.counts(gone))
    kept = [(group.size - len(group.removed)) // group.rows for group in plan.groups]
    assert plan.cost_after == analysis.cost.price(kept)


def test_a_unit_that_a_group_does_not_have_is_refused() -> None:
    known = outline(analysed("residual"), "module")
    size = known.groups[0].size
    for unit in (-1, size):
        removed = ((unit,), *(() for _ in known.groups[1:]))
        with pytest.raises(PolicyError, match=f"has no unit {unit}"):
            known.gone(removed)


def test_members_that_lose_other_indices_than_the_labels_predict_are_refused() -> None:
    analysis = analysed("residual")
    first, *others = analysis.groups
    short = replace(first, members=first.members[:-1])
    grouping = replace(analysis.grouping, groups=(short, *others))
    broken = Outline(replace(analysis, grouping=grouping), "module")
    none, one = broken.gone(((), *(() for _ in others))), broken.gone(((0,), *(() for _ in others)))
    assert broken.cuts(broken.pruned(none), broken.shapes(none)) == {}
    missing = first.members[-1]
    with pytest.raises(AnalysisError, match=f"{missing.tensor}:{missing.dim}: the labels predict"):
        broken.cuts(broken.pruned(one), broken.shapes(one))
