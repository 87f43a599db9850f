"""Budgets are never exceeded, and nothing that still fits has been removed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import planc
from planc.analysis import Analysis
from planc.analysis.arrays import Kept, Polynomials
from planc.analysis.polynomials import Poly
from planc.criteria import Random, Scores
from planc.errors import InfeasibleBudget, PolicyError
from planc.policy import (
    Budget,
    Capped,
    Equal,
    Floor,
    Global,
    Isomorphic,
    Keep,
    PerCost,
    Policy,
    Ratios,
    Rounded,
    Uniform,
)
from planc.policy.closure import Closure, modifiers
from planc.policy.order import Order
from planc.policy.search import Prices, search
from tests.support.small import MODELS, build

RANKINGS: tuple[Policy, ...] = (Uniform(), Global(), Isomorphic(), PerCost(), PerCost(of="params"))
MEASURES = ("macs", "params", "bytes")
NAMES = sorted(MODELS)


@cache
def analysed(name: str) -> Analysis:
    model, inputs = build(name)
    return planc.analyze(planc.trace(model, inputs))


def scored(analysis: Analysis, seed: int) -> Scores:
    return Scores(Random(seed)(analysis, {}), "random")


def cost(analysis: Analysis, kept: Any = None) -> dict[str, int]:
    counts = [group.cells for group in analysis.groups] if kept is None else list(kept)
    return asdict(analysis.cost.price(counts))


def kept_in(plan: planc.Plan) -> list[int]:
    return [group.kept // group.rows for group in plan.groups]


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    policy: Policy = draw(st.sampled_from(RANKINGS))
    if draw(st.booleans()):
        policy = Floor(policy, draw(st.integers(1, 4)))
    if draw(st.booleans()):
        policy = Rounded(policy, draw(st.sampled_from([2, 3, 4])))
    if draw(st.booleans()):
        policy = Capped(policy, draw(st.sampled_from([0.3, 0.75])))
    return Equal(policy) if draw(st.booleans()) else policy


budgets = st.builds(
    Budget,
    **{name: st.none() | st.floats(0.05, 1, exclude_min=True) for name in MEASURES},  # type: ignore[arg-type]
).filter(lambda budget: budget != Budget())


@settings(max_examples=120, deadline=None)
@given(
    st.sampled_from(NAMES),
    policies(),
    budgets,
    st.sampled_from(["module", "graph"]),
    st.integers(0, 10**6),
)
def test_budget_is_met_with_no_room_for_another_unit(
    name: str, policy: Policy, budget: Budget, target: Any, seed: int
) -> None:
    analysis, limits = analysed(name), None
    scores = scored(analysis, seed)
    limits = budget.limits(analysis)
    try:
        plan = planc.select(analysis, scores, policy, target, budget=budget)
    except InfeasibleBudget:
        return
    after = asdict(plan.cost_after)
    assert all(after[measure] <= limit for measure, limit in limits.items())
    raises = tuple(modifier.raising(analysis) for modifier in modifiers(policy))
    closure = Closure(analysis, analysis.equations(target), raises)
    kept = np.array(kept_in(plan))
    assert np.array_equal(closure(kept), kept)
    for g, group in enumerate(analysis.groups):
        if kept[g] < group.cells:
            more = kept.copy()
            more[g] += 1
            found = cost(analysis, closure(more))
            assert any(found[measure] > limit for measure, limit in limits.items()), group


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(NAMES), policies(), budgets, st.integers(0, 10**6))
def test_an_infeasible_budget_names_the_closest_figure(
    name: str, policy: Policy, budget: Budget, seed: int
) -> None:
    analysis = analysed(name)
    scores = scored(analysis, seed)
    full = cost(analysis)
    try:
        planc.select(analysis, scores, policy, budget=Budget(macs=1))
    except InfeasibleBudget as refusal:
        said = str(refusal)
    closest = int(said.split("closest that can be reached is ")[1].split(" ")[0].replace(",", ""))
    assert f"of {full['macs']:,}" in said
    plan = planc.select(analysis, scores, policy, budget=Budget(macs=closest))
    assert plan.cost_after.macs == closest
    with pytest.raises(InfeasibleBudget):
        planc.select(analysis, scores, policy, budget=Budget(macs=closest - 1))


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(NAMES), policies(), budgets, st.integers(0, 10**6))
def test_equal_inputs_give_equal_plans(
    name: str, policy: Policy, budget: Budget, seed: int
) -> None:
    analysis = analysed(name)
    scores = scored(analysis, seed)
    before = [units.copy() for units in scores.units]

    def answer() -> planc.Plan | str:
        try:
            return planc.select(analysis, scores, policy, budget=budget)
        except InfeasibleBudget as refusal:
            return str(refusal)

    assert answer() == answer()
    assert all(map(np.array_equal, before, scores.units))


# -- the search, on polynomials of any kind --------------------------------------------------------


class Free:
    """No wish and no constraint."""

    bound: frozenset[int] = frozenset()

    def __call__(self, kept: Kept) -> Kept:
        return kept


@dataclass
class Problem:
    cells: list[int]
    terms: dict[tuple[int, ...], int]
    steps: list[int]
    limit: float

    def solved(self, places: list[int]) -> list[int]:
        """The solution where group g stands at place ``places[g]``, put back in order."""
        n = len(self.cells)
        cells = np.zeros(n, dtype=np.int64)
        cells[places] = self.cells
        poly = Poly.of(
            {tuple(sorted(places[g] for g in monomial)): c for monomial, c in self.terms.items()}
        )
        polys = Polynomials([poly], cells)
        limit = int(self.limit * polys.values(cells)[0])
        groups = np.array([places[g] for g in self.steps], dtype=np.int64)
        order = Order(cells, groups, np.linspace(0, 1, len(groups)))
        prices = Prices(polys, np.array([limit], dtype=object))
        if not prices.fit(order.kept(len(groups))):
            return []
        kept = search(order, Free(), prices)  # type: ignore[arg-type]
        assert polys.values(kept)[0] <= limit
        return kept[places].tolist()  # type: ignore[no-any-return]


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    cells = draw(st.lists(st.integers(1, 9), min_size=1, max_size=5))
    group = st.integers(0, len(cells) - 1)
    monomials = st.lists(group, min_size=1, max_size=3).map(lambda m: tuple(sorted(m)))
    terms = draw(st.dictionaries(monomials, st.integers(1, 50), min_size=1, max_size=6))
    steps = [g for g, n in enumerate(cells) for _ in range(n - 1)]
    return Problem(cells, terms, draw(st.permutations(steps)), draw(st.floats(0.05, 1)))


@given(problems(), st.data())
def test_plan_is_independent_of_the_numbering_of_groups(
    problem: Problem, data: st.DataObject
) -> None:
    places = data.draw(st.permutations(range(len(problem.cells))))
    assert problem.solved(list(range(len(problem.cells)))) == problem.solved(list(places))


# -- what a budget means ---------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("name", ["residual", "grouped", "vit", "swin", "shuffle", "dense"])
def test_plans_within_budgets_are_verified(name: str) -> None:
    model, inputs = build(name)
    for options in ({"macs": 0.5}, {"params": 0.6, "bytes": 0.7}, {"macs": 0.7, "round_to": 2}):
        plan = planc.compile(model, inputs, **options)  # type: ignore[arg-type]
        planc.verify(plan, model, planc.apply(plan, model), inputs)


def test_a_float_is_a_share_and_an_int_a_figure() -> None:
    model, inputs = build("residual")
    full = cost(analysed("residual"))
    assert (
        planc.compile(model, inputs, macs=0.5).groups
        == planc.compile(model, inputs, macs=full["macs"] // 2).groups
    )
    for options in ({"macs": 1.0}, {"params": full["params"]}, {"bytes": 10**15}):
        plan = planc.compile(model, inputs, **options)  # type: ignore[arg-type]
        assert not any(group.removed for group in plan.groups)


def test_all_of_several_budgets_are_met() -> None:
    model, inputs = build("residual")
    full = cost(analysed("residual"))
    plan = planc.compile(model, inputs, macs=0.9, params=0.3, bytes=0.5)
    after = asdict(plan.cost_after)
    assert after["macs"] <= 0.9 * full["macs"]
    assert after["params"] <= 0.3 * full["params"]
    assert after["bytes"] <= 0.5 * full["bytes"]


def test_removed_units_are_the_first_in_the_order() -> None:
    analysis = analysed("residual")
    scores = scored(analysis, 0)
    ratio = Global(0.4)(analysis, scores)
    budget = Budget(macs=cost(analysis, ratio)["macs"])
    plan = planc.select(analysis, scores, Global(), budget=budget)
    assert tuple(kept_in(plan)) == ratio


def test_groups_with_their_own_ratio_keep_it_within_a_budget() -> None:
    analysis = analysed("vit")
    policy = Uniform(kinds=(("heads", 0.5), ("features", 0.25)))
    plan = planc.select(analysis, scored(analysis, 0), policy, "graph", budget=Budget(macs=0.5))
    for group in plan.groups:
        if group.kind in ("heads", "features"):
            share = {"heads": 0.5, "features": 0.25}[group.kind]
            assert len(group.removed) == int(share * group.size)


def test_rows_are_removed_within_a_budget_on_request() -> None:
    analysis = analysed("attention")
    scores = scored(analysis, 0)
    for rows, gone in (((), False), (("heads",), True)):
        plan = planc.select(analysis, scores, Uniform(rows=rows), budget=Budget(macs=0.3))
        assert any(g.removed for g in plan.groups if g.kind == "heads") == gone


def test_the_plan_records_its_budget() -> None:
    model, inputs = build("residual")
    plan = planc.compile(model, inputs, macs=0.5, params=1000, round_to=2)
    assert plan.provenance[0].policy == "rounded(uniform, 2) within macs=0.5, params=1000"


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [1.5, 0, 0.0, -1, -0.5, True, "0.5", float("nan"), [0.5]])
@pytest.mark.parametrize("measure", MEASURES)
def test_invalid_budgets_are_refused(measure: str, wrong: Any) -> None:
    model, inputs = build("residual")
    with pytest.raises(PolicyError, match=f"budget {measure}="):
        planc.compile(model, inputs, **{measure: wrong})


def test_a_ratio_and_a_budget_exclude_each_other() -> None:
    model, inputs = build("residual")
    with pytest.raises(PolicyError, match=r"ratio=0.5 and a budget \(macs=0.5\)"):
        planc.compile(model, inputs, ratio=0.5, macs=0.5)


def test_a_policy_and_its_options_exclude_each_other() -> None:
    model, inputs = build("residual")
    with pytest.raises(PolicyError, match="policy uniform and round_to, keep"):
        planc.compile(model, inputs, policy=Uniform(), macs=0.5, round_to=8, keep="stem")


def test_a_budget_requires_a_ranking_policy() -> None:
    analysis = analysed("residual")

    def half(analysis: Analysis, scores: Scores) -> tuple[int, ...]:
        return tuple(group.cells // 2 for group in analysis.groups)

    with pytest.raises(PolicyError, match="needs a policy that ranks units"):
        planc.select(analysis, scored(analysis, 0), half, budget=Budget(macs=0.5))


def test_a_policy_without_ratio_needs_a_budget() -> None:
    model, inputs = build("residual")
    with pytest.raises(PolicyError, match="the policy has no ratio"):
        planc.compile(model, inputs, policy=Global())


@pytest.mark.parametrize(
    ("policy", "culprit"),
    [
        (Floor(Uniform(), 6), r"floor\(..., 6\)"),
        (Capped(Uniform(), 0.25), r"capped\(..., 0.25\)"),
        (Rounded(Uniform(), 8), r"rounded\(..., 8\)"),
        (Keep(Uniform(), ("stem",)), r"keep\(..., stem\)"),
        (Ratios(Uniform(), (("stem*", 0.1),)), "what the policy leaves whole"),
    ],
    ids=str,
)
def test_the_modifier_blocking_a_budget_is_named(policy: Policy, culprit: str) -> None:
    analysis = analysed("residual")
    with pytest.raises(InfeasibleBudget, match=culprit):
        planc.select(analysis, scored(analysis, 0), policy, budget=Budget(macs=0.05))


def test_modifiers_blocking_a_budget_only_together_are_named_together() -> None:
    analysis = analysed("residual")
    policy = Capped(Floor(Uniform(), 8), 0.05)  # either keeps all groups whole
    with pytest.raises(InfeasibleBudget, match=r"capped\(.*\) together with floor\(..., 8\)"):
        planc.select(analysis, scored(analysis, 0), policy, budget=Budget(macs=0.05))


def test_a_budget_below_the_pinned_cost_is_reported() -> None:
    analysis = analysed("residual")
    with pytest.raises(InfeasibleBudget, match="come down to its last unit"):
        planc.select(analysis, scored(analysis, 0), Uniform(), budget=Budget(macs=1))


def test_the_model_constraint_blocking_a_budget_is_named() -> None:
    analysis = analysed("vit")
    policy = Keep(Uniform(), ("encoder.layers.encoder_layer_0.self_attention.out_proj",))
    with pytest.raises(InfeasibleBudget) as refusal:
        planc.select(analysis, scored(analysis, 0), policy, budget=Budget(macs=0.05))
    assert "what the model's code demands" in str(refusal.value)
