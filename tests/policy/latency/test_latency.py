"""Latency tables interpolate what was measured, and bound what plans take by it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import planc
from planc.analysis import Analysis
from planc.errors import CorruptFile, InfeasibleBudget, MalformedFile, NotAPlancFile, PolicyError
from planc.files.disk.limits import DEFAULT
from planc.files.formats.latency import from_body, to_body
from planc.plan.latency import Grid, LatencyTable, Use
from planc.plan.plan import Latency
from planc.plan.review.figures import duration
from planc.policy import Budget, Global, Rounded, Uniform
from planc.policy.latency.clock import Timer, timer
from planc.policy.latency.measure import measure_latency
from tests.support.measure import flop_counter
from tests.support.small import MODELS, build


def macs(calls: Sequence[Callable[[], Any]]) -> list[int]:
    """A timer that counts multiply-accumulates: bilinear in widths, and the same every time."""
    found = []
    for call in calls:
        with flop_counter() as counter:
            call()
        found.append(counter.get_total_flops() // 2)
    return found


def analysed(model: nn.Module, inputs: Any) -> Analysis:
    return planc.analyze(planc.trace(model, inputs))


def chain() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 24, 3, padding=1),
        nn.BatchNorm2d(24),
        nn.ReLU(),
        nn.Conv2d(24, 40, 3),
        nn.Conv2d(40, 16, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 5),
    )
    return model.eval(), torch.randn(2, 3, 8, 8)


CHAIN = analysed(*chain())
TABLE = measure_latency(CHAIN, timed=macs)


@settings(deadline=None)
@given(st.data())
def test_multilinear_times_are_predicted_exactly(data: st.DataObject) -> None:
    kept = [data.draw(st.integers(1, group.cells)) for group in CHAIN.groups]
    predicted = TABLE.prediction(CHAIN)(np.array(kept))
    assert predicted == CHAIN.cost.price(kept).macs


@pytest.mark.parametrize("name", [name for name in MODELS if name not in ("several", "swin")])
def test_predictions_at_measured_widths_are_the_measurements(name: str) -> None:
    analysis = analysed(*build(name))
    table = measure_latency(analysis, timed=macs)
    predict = table.prediction(analysis)
    for eighths in (4, 8):  # on every grid
        kept = [max(1, round(group.cells * eighths / 8)) for group in analysis.groups]
        ops = {node.op for node in analysis.graph.nodes} & set(table.unmeasured)
        if not any(cost in op for op in ops for cost in ("conv", "linear", "matmul", "mm")):
            whole = eighths == 8
            found, exact = predict(np.array(kept)), analysis.cost.price(kept).macs
            assert (found == exact) if whole else (found == pytest.approx(exact, rel=0.15))


def test_equal_operators_are_measured_once() -> None:
    measured: list[Any] = []

    def counted(calls: Sequence[Callable[[], Any]]) -> list[int]:
        measured.extend(calls)
        return [1] * len(calls)

    model = nn.Sequential(*(nn.Linear(8, 8, bias=False) for _ in range(4))).eval()
    table = measure_latency(analysed(model, torch.randn(1, 8)), timed=counted)
    assert len(table.uses) == 4
    assert len(table.grids) == 3  # the first has no width to lose where it reads, the last none
    assert len(measured) == sum(len(grid.nanoseconds) for grid in table.grids)


def test_time_beyond_the_operators_is_added() -> None:
    model, images = chain()
    table = measure_latency(CHAIN, run=lambda: [model(images) for _ in range(3)], timed=macs)
    whole = CHAIN.cost.price([group.cells for group in CHAIN.groups]).macs
    for kept in ([group.cells for group in CHAIN.groups], [8, 20, 4]):
        expected = 2 * whole + CHAIN.cost.price(kept).macs
        assert table.prediction(CHAIN)(np.array(kept)) == expected


def test_operators_are_scaled_down_to_a_shorter_run() -> None:
    def twice(calls: Sequence[Callable[[], Any]]) -> list[int]:
        taken = zip(calls, macs(calls), strict=True)
        return [found * (1 if call is run else 2) for call, found in taken]

    model, images = chain()

    def run() -> Any:
        return model(images)

    table = measure_latency(CHAIN, run=run, timed=twice)
    for kept in ([group.cells for group in CHAIN.groups], [8, 20, 4]):
        assert table.prediction(CHAIN)(np.array(kept)) == CHAIN.cost.price(kept).macs


def test_smaller_widths_take_less_by_a_real_clock() -> None:
    model, _ = chain()
    analysis = analysed(model, torch.randn(2, 3, 64, 64))
    table = measure_latency(analysis, timed=timer(seconds=0.002))
    predict = table.prediction(analysis)
    kept = np.array([group.cells for group in analysis.groups])
    assert 0 < predict(np.maximum(kept // 8, 1)) < predict(kept)


# -- budgets ---------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(st.floats(0.1, 1), st.sampled_from([Uniform(), Global(), Rounded(Global(), 4)]))
def test_a_latency_budget_is_met(share: float, policy: Any) -> None:
    model, _ = chain()
    scores = planc.score(CHAIN, model, planc.criteria.Magnitude(2))
    budget = Budget(latency=share, table=TABLE)
    plan = planc.select(CHAIN, scores, policy, budget=budget)
    kept = np.array([group.kept // group.rows for group in plan.groups])
    limit = budget.limits(CHAIN)["latency"]
    predict = TABLE.prediction(CHAIN)
    assert predict(kept) <= limit
    if not isinstance(policy, Rounded):
        for g, group in enumerate(CHAIN.groups):
            more = kept + (np.arange(len(kept)) == g)
            assert kept[g] == group.cells or predict(more) > limit


def test_latency_combines_with_other_budgets() -> None:
    model, images = chain()
    plan = planc.compile(model, images, latency=0.7, latency_table=TABLE, params=0.4)
    assert plan.cost_after.params <= 0.4 * plan.cost_before.params
    assert plan.cost_after.macs <= 0.7 * plan.cost_before.macs  # what this clock counts
    assert plan.provenance[0].policy == "uniform within params=0.4, latency=0.7"


def test_an_infeasible_latency_names_the_closest() -> None:
    model, images = chain()
    with pytest.raises(InfeasibleBudget, match="ns at most 10: the closest that can be reached"):
        planc.compile(model, images, latency=10, latency_table=TABLE)


def test_a_latency_needs_a_table_of_the_model() -> None:
    model, images = chain()
    with pytest.raises(PolicyError, match=r"make one with planc.measure_latency"):
        planc.compile(model, images, latency=0.5)
    other, inputs = build("residual")
    with pytest.raises(PolicyError, match=r"a model of another structure \(groups [0-9a-f]{16}"):
        planc.compile(other, inputs, latency=0.5, latency_table=TABLE)
    with pytest.raises(PolicyError) as refusal:
        planc.compile(model, torch.randn(1, 3, 8, 8), latency=0.5, latency_table=TABLE)
    assert "measured for inputs float32[2, 3, 8, 8]" in str(refusal.value)
    assert "made with float32[1, 3, 8, 8]" in str(refusal.value)
    forged = replace(TABLE, uses=(Use(0, (((99, 1),), ((0, 1),))),))
    with pytest.raises(PolicyError, match="speaks of group 99"):
        planc.compile(model, images, latency=0.5, latency_table=forged)


def test_a_table_without_a_latency_is_recorded_and_bounds_nothing() -> None:
    model, images = chain()
    plan = planc.compile(model, images, ratio=0.5)
    timed = planc.compile(model, images, ratio=0.5, latency_table=TABLE)
    assert plan.latency is None
    assert timed.latency == Latency(timed.cost_after.macs, timed.cost_before.macs, TABLE.machine)
    assert timed.replace(latency=None) == plan
    assert f"latency {duration(timed.cost_before.macs)}" in str(timed)
    assert ", latency −" in repr(timed)


def test_a_composed_plan_has_a_latency_where_both_are_for_one_machine() -> None:
    model, images = chain()
    first = planc.compile(model, images, ratio=0.25, latency_table=TABLE)
    second = planc.compile(planc.apply(first, model), images, ratio=0.25)
    assert planc.compose(first, second).latency is None
    assert first.latency is not None
    later = second.replace(latency=replace(first.latency, before=7, after=5))
    assert planc.compose(first, later).latency == replace(first.latency, after=5)
    elsewhere = second.replace(latency=Latency(5, 7, "abacus"))
    assert planc.compose(first, elsewhere).latency is None


def test_a_table_of_another_machine_is_refused_by_name() -> None:
    model, images = chain()
    there = replace(TABLE, machine="abacus")
    with pytest.raises(PolicyError) as refusal:
        planc.compile(model, images, latency=0.5, latency_table=there)
    for said in ("measured on 'abacus'", repr(TABLE.machine), "machine='abacus'"):
        assert said in str(refusal.value)
    plan = planc.compile(model, images, latency=0.5, latency_table=there, machine="abacus")
    here = planc.compile(model, images, latency=0.5, latency_table=TABLE)
    assert here.latency is not None
    assert plan == here.replace(latency=replace(here.latency, machine="abacus"))
    with pytest.raises(PolicyError, match="measured on 'abacus', the plan is for machine 'sum'"):
        planc.compile(model, images, latency=0.5, latency_table=there, machine="sum")


# -- blocks ----------------------------------------------------------------------------------------


def in_blocks(size: int) -> Timer:
    """A timer of a machine that convolves so many output channels at once."""

    def one(call: Callable[[], Any]) -> int:
        counted = _Outputs()
        with counted:
            call()
        return sum(-(-width // size) * size * rest for width, rest in counted.found)

    return lambda calls: [one(call) for call in calls]


class _Outputs(TorchDispatchMode):
    """Notes the output channels of convolutions, and what each of them takes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[int, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if "convolution" in str(func):
            weight = args[1]
            self.found.append((weight.shape[0], 100 * weight[0].numel()))
        return result


@pytest.mark.parametrize("size", [8, 16, 32])
def test_a_partial_block_takes_as_long_as_a_full_one(size: int) -> None:
    model = nn.Sequential(nn.Conv2d(3, 64, 1), nn.Conv2d(64, 96, 1), nn.Flatten(), nn.Linear(96, 2))
    analysis = analysed(model.eval(), torch.randn(1, 3, 1, 1))
    table = measure_latency(analysis, timed=in_blocks(size))
    convolutions = [grid for grid in table.grids if "conv" in grid.operator]
    assert [grid.blocks for grid in convolutions] == [(size,), (1, size)]
    predict, names = table.prediction(analysis), [group.name for group in analysis.groups]
    cells = np.array([group.cells for group in analysis.groups])
    first = np.arange(len(cells)) == names.index("0.weight:0")
    for kept in range(33, 65):
        full = -(-kept // size) * size
        less = predict(cells) - predict(np.where(first, kept, cells))
        assert less == 300 * (64 - full) + 100 * 96 * (64 - kept)


def test_plans_fill_their_blocks() -> None:
    model = nn.Sequential(nn.Conv2d(3, 64, 1), nn.Conv2d(64, 96, 1), nn.Flatten(), nn.Linear(96, 2))
    images = torch.randn(1, 3, 1, 1)
    analysis = analysed(model.eval(), images)
    for share in (0.3, 0.5, 0.8):
        table = measure_latency(analysis, timed=in_blocks(16))
        plan = planc.compile(model, images, latency=share, latency_table=table)
        assert {group.name: group.kept for group in plan.groups}["1.weight:0"] % 16 == 0


def test_noise_does_not_make_smaller_widths_slower() -> None:
    number = iter(range(10**6))

    def disturbed(calls: Sequence[Callable[[], Any]]) -> list[int]:
        return [taken + (10**7 if next(number) % 7 == 3 else 0) for taken in macs(calls)]

    table = measure_latency(CHAIN, timed=disturbed)
    for grid in table.grids:
        times = np.array(grid.nanoseconds).reshape([len(axis) for axis in grid.axes])
        for dim in range(times.ndim):
            assert (np.diff(times, axis=dim) >= 0).all()


# -- files -----------------------------------------------------------------------------------------


def test_a_table_survives_its_file(tmp_path: Path) -> None:
    planc.save_latency(TABLE, tmp_path / "a.latency")
    assert planc.load_latency(tmp_path / "a.latency") == TABLE
    planc.save_latency(TABLE, tmp_path / "b.latency")
    assert (tmp_path / "a.latency").read_bytes() == (tmp_path / "b.latency").read_bytes()


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.latency"
    planc.save_latency(TABLE, path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptFile):
        planc.load_latency(path)
    model, images = chain()
    planc.save_plan(planc.compile(model, images), path)
    with pytest.raises(NotAPlancFile, match="is a plan, not a latency table"):
        planc.load_latency(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"structure": b"short"}, "structure: 5 bytes"),
        ({"grids": (Grid("op", ((2, 1),), (1, 1)),)}, r"grids\[0\].axes"),
        ({"grids": (Grid("op", ((1, 2),), (1,)),)}, "1 times for 2 combinations"),
        ({"uses": (Use(99, ()),)}, r"uses\[0\].grid: row 99"),
        ({"uses": (Use(0, ()),)}, "0 widths for the"),
        ({"grids": (Grid("op", ((1, 2),), (1, 1), (0,)),)}, r"grids\[0\].blocks: \(0,\) for 1"),
        ({"grids": (Grid("op", ((1, 2),), (1, 1), (1, 1)),)}, r"grids\[0\].blocks"),
        ({"inputs": ("tuple", 3)}, "inputs"),
        ({"machine": 5}, "machine"),
        ({"threads": -1}, "threads"),
        ({"rest": -1}, "rest"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(change: dict[str, Any], said: str) -> None:
    body = to_body(replace(TABLE, **change))
    with pytest.raises(MalformedFile, match=said):
        from_body(body, DEFAULT)


def test_a_table_is_a_plain_value() -> None:
    assert measure_latency(CHAIN, timed=macs) == TABLE
    assert hash(TABLE) == hash(LatencyTable(**{f: getattr(TABLE, f) for f in TABLE.__slots__}))
