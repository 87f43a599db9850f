"""Rankings other than the global one, and ratios for parts of a model."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import planc
from planc.analysis import Analysis
from planc.criteria import Magnitude, Random, Scores
from planc.errors import PolicyError
from planc.policy import Global, Isomorphic, Keep, PerCost, Ranking, Ratios, Uniform
from planc.policy.order import by_rank
from planc.policy.ranking import topology
from tests.support.small import MODELS, build

RATIOS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.999)


def analysed(name: str) -> tuple[Analysis, Scores]:
    model, inputs = build(name)
    analysis = planc.analyze(planc.trace(model, inputs))
    return analysis, planc.score(analysis, model, Magnitude(2))


# -- orders ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranking", [Uniform, Global, Isomorphic, PerCost])
@pytest.mark.parametrize("name", MODELS)
def test_an_order_removes_units_one_by_one_down_to_the_last(
    name: str, ranking: type[Uniform]
) -> None:
    analysis, scores = analysed(name)
    order = ranking().order(analysis, scores)
    assert (np.diff(order.shares) >= 0).all()
    last = order.kept(len(order.groups))
    for g, group in enumerate(analysis.groups):
        assert last[g] == (group.cells if g in analysis.grouping.rowed else 1)
    counts = [order.at(ratio) for ratio in RATIOS]
    for ratio, found in zip(RATIOS, counts, strict=True):
        assert found == ranking(ratio)(analysis, scores)
    for more, less in itertools.pairwise(counts):
        assert all(a >= b for a, b in zip(more, less, strict=True))


# -- isomorphic ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["residual", "vit", "swin", "dense", "shuffle"])
def test_each_class_of_groups_loses_its_lowest_scores(name: str) -> None:
    analysis, scores = analysed(name)
    classes: dict[object, list[int]] = {}
    for g in range(len(analysis.groups)):
        if g not in analysis.grouping.rowed:
            classes.setdefault(topology(analysis, g), []).append(g)
    for ratio in RATIOS:
        counts = Isomorphic(ratio)(analysis, scores)
        for members in classes.values():
            entries = sorted(
                (value, g)
                for g in members
                for value in by_rank(analysis.groups[g].rows, scores.units[g])[:-1].tolist()
            )
            left = ratio * sum(analysis.groups[g].size for g in members) + 1e-9
            lost = dict.fromkeys(members, 0)
            for _, g in entries:
                left -= analysis.groups[g].rows
                if left < 0:
                    break
                lost[g] += 1
            assert {g: analysis.groups[g].cells - counts[g] for g in members} == lost


def test_similar_groups_belong_to_similar_layers() -> None:
    analysis, _ = analysed("residual")
    keys = [topology(analysis, g) for g in range(len(analysis.groups))]
    names = [group.name for group in analysis.groups]
    inner = [keys[names.index(f"blocks.{i}.0.weight:0")] for i in (0, 1)]
    assert inner[0] == inner[1]  # of 6 and of 4 channels
    assert keys[names.index("stem.0.weight:0")] not in inner


# -- score per unit of cost ------------------------------------------------------------------------


@pytest.mark.parametrize("of", ["macs", "params", "bytes"])
@pytest.mark.parametrize("name", ["residual", "grouped", "dense", "vit"])
def test_the_ratio_of_the_removable_cost_is_removed(name: str, of: str) -> None:
    analysis, scores = analysed(name)
    order = PerCost(of=of).order(analysis, scores)

    def price(counts: tuple[int, ...]) -> int:
        return int(getattr(analysis.cost.price(counts), of))

    path = [price(tuple(order.kept(n).tolist())) for n in range(len(order.groups) + 1)]
    most = max(a - b for a, b in itertools.pairwise(path)) / (path[0] - path[-1])
    for ratio in (0.25, 0.5, 0.75):
        found = price(PerCost(ratio, of)(analysis, scores))
        assert (path[0] - found) / (path[0] - path[-1]) == pytest.approx(ratio, abs=2 * most)


def test_the_unit_with_the_lowest_score_per_cost_is_removed_first() -> None:
    analysis, _ = analysed("residual")
    rng = np.random.default_rng(0)
    scores = Scores(tuple(rng.random(group.size) for group in analysis.groups), "by hand")
    whole = [group.cells for group in analysis.groups]
    full = analysis.cost.price(whole).macs
    quotients = []
    for g, group in enumerate(analysis.groups):
        saved = full - analysis.cost.price([n - (i == g) for i, n in enumerate(whole)]).macs
        quotients.append(by_rank(group.rows, scores.units[g])[0] / saved)
    order = PerCost().order(analysis, scores)
    assert order.groups[0] == int(np.argmin(quotients))


def test_an_unknown_cost_is_refused() -> None:
    analysis, scores = analysed("residual")
    with pytest.raises(PolicyError, match="of 'flops': choose one of macs, params, bytes"):
        PerCost(0.5, of="flops")(analysis, scores)


# -- parts of a model ------------------------------------------------------------------------------


def test_a_scope_loses_its_own_ratio() -> None:
    analysis, scores = analysed("residual")
    names = [group.name for group in analysis.groups]
    policy = Ratios(Uniform(0.5), (("blocks.0", 0.0), ("stem*", 0.25)))
    counts = dict(zip(names, policy(analysis, scores), strict=True))
    assert counts == {
        "stem.0.weight:0": 6,
        "blocks.0.0.weight:0": 6,
        "blocks.1.0.weight:0": 2,
    }


def test_the_last_matching_scope_counts() -> None:
    analysis, scores = analysed("residual")
    names = [group.name for group in analysis.groups]
    policy = Ratios(Uniform(0.5), (("blocks*", 0.0), ("blocks.1.*", 0.75)))
    counts = dict(zip(names, policy(analysis, scores), strict=True))
    assert (counts["blocks.0.0.weight:0"], counts["blocks.1.0.weight:0"]) == (6, 1)


def test_groups_of_a_scope_compete_by_the_inner_policy() -> None:
    analysis, scores = analysed("residual")
    names = [group.name for group in analysis.groups]
    inside = [names.index(f"blocks.{i}.0.weight:0") for i in (0, 1)]
    counts = Ratios(Global(0.0), (("blocks*", 0.5),))(analysis, scores)
    alone = Global(0.5).order(analysis, scores, inside).at(0.5)
    assert [counts[g] for g in inside] == [alone[g] for g in inside]
    assert sum(analysis.groups[g].cells - counts[g] for g in inside) == 5


def test_ratios_belong_next_to_a_ranking() -> None:
    analysis, scores = analysed("residual")
    assert not isinstance(Keep(Uniform(0.5), ("stem",)), Ranking)
    with pytest.raises(PolicyError, match="does not rank units"):
        Ratios(Keep(Uniform(0.5), ("stem",)), (("blocks*", 0.1),))(analysis, scores)
    with pytest.raises(PolicyError, match="near misses: blocks"):
        Ratios(Uniform(0.5), (("block", 0.1),))(analysis, scores)
    with pytest.raises(PolicyError, match=r"ratio of 'blocks\*' 1.5 is not in"):
        Ratios(Uniform(0.5), (("blocks*", 1.5),))(analysis, scores)


def test_rows_follow_the_common_ratio_on_request() -> None:
    analysis, scores = analysed("attention")
    kinds = [group.kind for group in analysis.groups]
    for ranking in (Uniform, Global, Isomorphic, PerCost):
        assert ranking(0.9)(analysis, scores)[kinds.index("heads")] == 4
        assert ranking(0.9, rows=("heads",))(analysis, scores)[kinds.index("heads")] < 4
    with pytest.raises(PolicyError, match="no group is of kind 'experts'"):
        Uniform(0.5, rows=("experts",))(analysis, scores)
    with pytest.raises(PolicyError, match="have a ratio of their own"):
        Uniform(0.5, kinds=(("heads", 0.5),), rows=("heads",))(analysis, scores)


def test_random_scores_rank_too() -> None:
    analysis, _ = analysed("residual")
    scores = Scores(Random(3)(analysis, {}), "random")
    assert Global(0.5)(analysis, scores) != Global(0.5)(
        analysis, Scores(Random(6)(analysis, {}), "random")
    )
