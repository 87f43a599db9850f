"""One ranking over all groups removes what a plain sort of all normalised scores would."""

from __future__ import annotations

import numpy as np
import pytest

import planc
from planc.analysis import Analysis
from planc.criteria import Magnitude, Random, Scores
from planc.policy import Global, Uniform
from tests.support.small import MODELS, build


def brute_force(
    analysis: Analysis, scores: Scores, ratio: float, pool: list[int]
) -> dict[int, int]:
    """How many units of a row each group of the pool loses."""
    entries = []
    for g in pool:
        group = analysis.groups[g]
        rows = [sorted(row) for row in scores.units[g].reshape(group.rows, -1).tolist()]
        ranks = [sum(column) / group.rows for column in zip(*rows, strict=True)]
        mean = sum(ranks) / len(ranks)
        entries += [(rank / mean, g, i) for i, rank in enumerate(ranks[:-1])]
    entries.sort()
    left = ratio * sum(analysis.groups[g].size for g in pool) + 1e-9
    lost = dict.fromkeys(pool, 0)
    for _, g, _ in entries:
        left -= analysis.groups[g].rows
        if left < 0:
            break
        lost[g] += 1
    return lost


@pytest.mark.parametrize("criterion", [Magnitude(1), Magnitude(2), Random(3)], ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_the_lowest_normalised_scores_of_all_groups_are_removed(
    name: str, criterion: Magnitude | Random
) -> None:
    model, inputs = build(name)
    analysis = planc.analyze(planc.trace(model, inputs))
    scores = planc.score(analysis, model, criterion)
    pool = [g for g in range(len(analysis.groups)) if g not in analysis.grouping.rowed]
    for ratio in (0.0, 0.1, 0.5, 0.9, 0.999):
        counts = Global(ratio)(analysis, scores)
        lost = {g: analysis.groups[g].cells - counts[g] for g in pool}
        assert lost == brute_force(analysis, scores, ratio, pool)
        assert all(counts[g] == analysis.groups[g].cells for g in analysis.grouping.rowed)
        total = sum(analysis.groups[g].size for g in pool)
        assert sum(n * analysis.groups[g].rows for g, n in lost.items()) <= ratio * total + 1e-9


def test_a_kind_with_a_ratio_of_its_own_is_ranked_by_itself() -> None:
    model, inputs = build("vit")
    analysis = planc.analyze(planc.trace(model, inputs))
    scores = planc.score(analysis, model, Magnitude(2))
    counts = Global(0.5, (("heads", 0.5), ("features", 0.25)))(analysis, scores)
    by_kind: dict[str, list[int]] = {}
    for g, group in enumerate(analysis.groups):
        by_kind.setdefault(group.kind, []).append(g)
    for kind, ratio in (("heads", 0.5), ("features", 0.25)):
        expected = brute_force(analysis, scores, ratio, by_kind[kind])
        assert {g: analysis.groups[g].cells - counts[g] for g in by_kind[kind]} == expected
    rest = by_kind["channels"] + by_kind["head_dim"]
    expected = brute_force(analysis, scores, 0.5, sorted(rest))
    assert {g: analysis.groups[g].cells - counts[g] for g in sorted(rest)} == expected


def test_a_group_of_high_scores_stays_whole_and_keeps_its_order() -> None:
    model, inputs = build("dense")
    analysis = planc.analyze(planc.trace(model, inputs))
    sizes = [group.size for group in analysis.groups]
    flat = (
        np.array([1.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
        np.array([0.1, 3, 3, 3]),
        np.array([9, 9, 9, 0]),
    )
    assert sizes == [6, 4, 4]
    plan = planc.select(analysis, Scores(flat, "by hand"), Global(2 / 14))
    assert [group.removed for group in plan.groups] == [(), (0,), (3,)]


def test_zero_scores_do_not_divide_by_zero() -> None:
    model, inputs = build("dense")
    analysis = planc.analyze(planc.trace(model, inputs))
    zeros = tuple(np.zeros(group.size) for group in analysis.groups)
    plan = planc.select(analysis, Scores(zeros, "zero"), Global(0.5))
    assert sum(len(group.removed) for group in plan.groups) == 7
    assert all(group.kept for group in plan.groups)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("ratio", [0.0, 0.1, 1 / 3, 0.5, 0.75, 0.999])
def test_counts_without_competition_equal_those_of_the_order(name: str, ratio: float) -> None:
    model, args = build(name)
    analysis = planc.analyze(planc.trace(model, args))
    scores = planc.score(analysis, model, Random(3))
    kinds = tuple((kind, 0.4) for kind in {g.kind for g in analysis.groups} & {"heads", "features"})
    for policy in (Uniform(ratio), Uniform(ratio, kinds)):
        assert policy(analysis, scores) == policy.order(analysis, scores).at(ratio)
