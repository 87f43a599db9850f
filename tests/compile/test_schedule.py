"""Pruning in steps comes to one plan for the original, and goes on from that plan alone."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import planc
from planc.compile.schedule import Schedule, Step, next_step
from planc.errors import InfeasibleBudget, PolicyError, StalePlan
from planc.plan.plan import Cost, Latency
from planc.policy.latency.carried import Carried
from tests.policy.latency.test_latency import macs
from tests.support.small import build


def tuned(model: nn.Module, seed: int) -> nn.Module:
    """What fine-tuning leaves: the same structure in other weights."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn(parameter.shape, generator=generator) * 0.1
    return model


def taken(schedule: Schedule, model: nn.Module, inputs: Any, **options: Any) -> list[Step]:
    steps: list[Step] = []
    done = None
    while (step := next_step(schedule, model, inputs, done, **options)) is not None:
        model, done = tuned(planc.apply(step.plan, model), step.number), step.total
        steps.append(step)
    return steps


@pytest.mark.parametrize("shape", ["geometric", "linear"])
@pytest.mark.parametrize("name", ["residual", "dense", "vit", "shuffle"])
def test_the_steps_are_one_plan_for_the_original(name: str, shape: Any) -> None:
    model, inputs = build(name)
    schedule = Schedule(macs=0.4, params=0.5, steps=3, shape=shape)
    steps = taken(schedule, model, inputs)
    figures = schedule.figures(steps[0].total.cost_before)
    at_once = model
    for step in steps:
        at_once = planc.apply(step.plan, at_once)
        after = asdict(step.total.cost_after)
        assert all(after[name] <= figure for name, figure in figures[step.number - 1].items())
    last = steps[-1].total
    assert last.source == steps[0].plan.source
    assert len(last.provenance) == len(steps)
    expected, found = at_once.state_dict(), planc.apply(last, model).state_dict()
    assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())


@pytest.mark.parametrize("name", ["residual", "dense", "vit", "shuffle", "attention"])
def test_one_latency_table_serves_all_steps(name: str) -> None:
    model, inputs = build(name)
    analysis = planc.analyze(planc.trace(model, inputs))
    table = planc.measure_latency(analysis, timed=macs)
    schedule = Schedule(latency=0.5, latency_table=table, steps=3)
    steps = taken(schedule, model, inputs)
    predict = table.prediction(analysis)
    full = predict(np.array([group.cells for group in analysis.groups]))
    for step in steps:
        kept = np.array([group.kept // group.rows for group in step.total.groups])
        limit = schedule.figures(step.total.cost_before, full)[step.number - 1]["latency"]
        assert predict(kept) <= limit
        assert f"latency={limit}" in step.plan.provenance[0].policy
        assert step.total.latency == Latency(predict(kept), full, table.machine)
    assert len(steps) > 1  # small models come down in large steps, and may pass a budget
    smallest = planc.apply(steps[-1].total, model)
    planc.verify(steps[-1].total, model, smallest, inputs)


def test_a_carried_table_without_removals_is_the_originals() -> None:
    model, inputs = build("residual")
    analysis = planc.analyze(planc.trace(model, inputs))
    table = planc.measure_latency(analysis, timed=macs)
    done = planc.compile(model, inputs, ratio=0.4, criterion="random")
    smaller = planc.analyze(planc.trace(planc.apply(done, model), inputs))
    carried = Carried(table, done)
    predict, again = table.prediction(analysis), carried.prediction(smaller)
    before = {group.name: group.kept for group in done.groups}
    whole = np.array([group.cells for group in smaller.groups])
    assert again(whole) == carried.after == predict(np.array(list(before.values())))
    for g, group in enumerate(smaller.groups):
        fewer = whole - (np.arange(len(whole)) == g)
        counts = {**before, group.name: before[group.name] - 1}
        assert again(fewer) == predict(np.array(list(counts.values())))


def test_a_latency_schedule_without_a_table_or_with_another_is_refused() -> None:
    model, inputs = build("residual")
    with pytest.raises(PolicyError, match=r"make one with planc\.measure_latency"):
        next_step(Schedule(latency=0.5), model, inputs)
    other, others = build("dense")
    analysis = planc.analyze(planc.trace(other, others))
    schedule = Schedule(latency=0.5, latency_table=planc.measure_latency(analysis, timed=macs))
    with pytest.raises(PolicyError, match="a model of another structure"):
        next_step(schedule, model, inputs)
    with pytest.raises(PolicyError, match="a model of another structure"):
        next_step(schedule, model, inputs, planc.compile(model, inputs, ratio=0.2))
    with pytest.raises(InfeasibleBudget, match="ns at most 3: the closest"):
        next_step(replace(schedule, latency=3), other, others)
    with pytest.raises(PolicyError, match="the schedule says how far"):
        next_step(schedule, other, others, latency=0.5)


def test_steps_go_on_from_a_plan_file_and_the_weights(tmp_path: Path) -> None:
    model, inputs = build("residual")
    schedule = Schedule(macs=0.3, steps=4)
    steps = taken(schedule, model, inputs)
    assert len(steps) == 4
    pruned = model
    for i, step in enumerate(steps[:-1]):
        pruned = tuned(planc.apply(step.plan, pruned), step.number)
        planc.save_plan(step.total, tmp_path / "pruned.planc")
        done = planc.load_plan(tmp_path / "pruned.planc")  # all that is left after a crash,
        again = planc.apply(done, model)
        again.load_state_dict(pruned.state_dict())  # but for the weights
        assert next_step(schedule, again, inputs, done) == steps[i + 1]


def test_a_completed_schedule_has_no_next_step() -> None:
    model, inputs = build("residual")
    assert next_step(Schedule(macs=1.0, steps=3), model, inputs) is None
    (step,) = taken(Schedule(macs=0.5), model, inputs)
    smaller = planc.apply(step.plan, model)
    assert next_step(Schedule(macs=0.6, steps=2), smaller, inputs, step.total) is None


@given(
    st.integers(1, 10**15),
    st.floats(0, 1, exclude_min=True),
    st.integers(1, 12),
    st.sampled_from(["geometric", "linear"]),
)
def test_budgets_fall_from_step_to_step_to_the_last(
    full: int, share: float, steps: int, shape: Any
) -> None:
    schedule = Schedule(macs=share, steps=steps, shape=shape)
    figures = [figure["macs"] for figure in schedule.figures(Cost(full, 1, 4))]
    assert len(figures) == steps
    assert figures == sorted(figures, reverse=True)
    assert figures[0] <= full
    assert figures[-1] <= share * full + 1


def test_geometric_steps_take_equal_shares_and_linear_ones_equal_amounts() -> None:
    cost = Cost(1000, 10, 40)
    geometric = Schedule(macs=0.125, steps=3).figures(cost)
    linear = Schedule(macs=0.1, steps=3, shape="linear").figures(cost)
    assert [figure["macs"] for figure in geometric] == [500, 250, 125]
    assert [figure["macs"] for figure in linear] == [700, 400, 100]


def test_invalid_schedules_are_refused() -> None:
    model, inputs = build("residual")
    for schedule, said in (
        (Schedule(macs=0.5, steps=0), "steps 0 is below 1"),
        (Schedule(steps=2), "the budget is empty"),
        (Schedule(macs=1.5), "a share above 1"),
        (Schedule(macs=0.5, shape="cubic"), "shape 'cubic'"),  # type: ignore[arg-type]
    ):
        with pytest.raises(PolicyError, match=said):
            next_step(schedule, model, inputs)
    with pytest.raises(PolicyError, match="the schedule says how far"):
        next_step(Schedule(macs=0.5), model, inputs, ratio=0.5)
    with pytest.raises(InfeasibleBudget):
        next_step(Schedule(macs=1), model, inputs)


def test_a_plan_of_another_model_is_stale() -> None:
    model, inputs = build("residual")
    other, other_inputs = build("dense")
    (step,) = taken(Schedule(macs=0.5), other, other_inputs)
    with pytest.raises(StalePlan):
        next_step(Schedule(macs=0.1, steps=2), model, inputs, step.total)


# -- by ratio --------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("shape", ["geometric", "linear"])
@pytest.mark.parametrize("ranking", ["uniform", "global"])
@pytest.mark.parametrize("name", ["residual", "dense", "vit", "grouped"])
def test_a_ratio_is_reached_in_steps(name: str, ranking: Any, shape: Any) -> None:
    model, inputs = build(name)
    at_once = planc.compile(model, inputs, ratio=0.5, ranking=ranking)
    steps = taken(Schedule(ratio=0.5, steps=3, shape=shape), model, inputs, ranking=ranking)
    assert [step.number for step in steps] == [1, 2, 3]
    removed = [sum(len(g.removed) for g in step.total.groups) for step in steps]
    assert sorted(removed) == removed
    wanted = sum(len(group.removed) for group in at_once.groups)
    if ranking == "uniform" and name != "vit":
        assert removed[-1] == wanted
    assert removed[-1] <= wanted
    planc.verify(steps[-1].total, model, planc.apply(steps[-1].total, model), inputs)


def test_ratios_of_kinds_are_reached_in_steps_too() -> None:
    model, inputs = build("attention")
    kinds = {"heads": 0.5}
    steps = taken(Schedule(ratio=0.5, steps=2, shape="linear"), model, inputs, kinds=kinds)
    heads = [g for g in steps[-1].total.groups if g.kind == "heads"]
    assert heads
    at_once = planc.compile(model, inputs, ratio=0.5, kinds=kinds)
    found = {g.name: len(g.removed) for g in steps[-1].total.groups if g.kind == "heads"}
    assert found == {g.name: len(g.removed) for g in at_once.groups if g.kind == "heads"}


def test_a_ratio_beside_a_budget_is_refused() -> None:
    model, inputs = build("residual")
    with pytest.raises(PolicyError, match=r"ratio=0\.5 and macs: a schedule has one of them"):
        next_step(Schedule(ratio=0.5, macs=0.5), model, inputs)
    with pytest.raises(PolicyError, match=r"ratio 1.5 is not in \[0, 1\)"):
        next_step(Schedule(ratio=1.5), model, inputs)
