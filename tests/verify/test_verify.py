"""Verification accepts what apply makes, and refuses it with any one fault put into it or its plan.

The faults are in :mod:`tests.support.faults`; each is made with several seeds in several models.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import fx, nn

import planc
from planc.errors import AlreadyApplied, StaleError, StalePlan, VerificationError
from planc.plan.plan import Plan
from tests.scripts.promises import Goal
from tests.support import faults, small
from tests.support.faults import Case, NoRoom
from tests.support.small import MODELS, build, contents, several_call

# the least number of faults there is room for in each model, for each seed
PLANS = {"residual": 55, "grouped": 60, "tied": 55, "vit": 57, "shuffle": 55}
RESULTS = {"residual": 35, "grouped": 35, "tied": 32, "vit": 32, "shuffle": 35}
GRAPHS = {"residual": 19, "attention": 16, "tied": 13}
SEEDS = {"pr": (1, 2), "ci": (5, 4), "release": (5, 4)}  # of each fault in a plan, in a result


@cache
def compiled(name: str, target: Any = "module") -> Case:
    model, inputs = build(name)
    plan = planc.compile(model, inputs, ratio=0.5, target=target)
    smaller = planc.apply(plan, model)
    planc.verify(plan, model, smaller, inputs)
    return Case(model, inputs, plan, smaller)


def spoilt(case: Case) -> Case:
    """A case of its own for a fault."""
    return Case(copy.deepcopy(case.model), case.inputs, case.plan, copy.deepcopy(case.smaller))


def refused(plan: Plan, case: Case, smaller: nn.Module) -> bool:
    try:
        planc.verify(plan, case.model, smaller, case.inputs)
    except (VerificationError, StaleError) as error:
        return bool(str(error))
    return False


@pytest.mark.long
@pytest.mark.promise("R8 faults")
@pytest.mark.parametrize("name", PLANS)
def test_every_fault_in_a_plan_is_refused(name: str, goal: Goal) -> None:
    case, tried, missed = compiled(name), 0, []
    seeds = SEEDS[goal.tier][0]
    for number, fault in enumerate(faults.IN_PLANS):
        for seed in range(seeds):
            try:
                plan = fault(case.plan, np.random.default_rng([number, seed]))
            except NoRoom:
                continue
            assert plan != case.plan, fault.__name__
            tried += 1
            if not refused(plan, case, case.smaller):
                missed.append(f"{fault.__name__} {seed}")
    assert missed == []
    assert tried >= seeds * PLANS[name]
    goal.count(tried)


@pytest.mark.long
@pytest.mark.promise("R8 faults")
@pytest.mark.parametrize("name", RESULTS)
def test_every_fault_in_a_result_is_refused(name: str, goal: Goal) -> None:
    seeds = SEEDS[goal.tier][1]
    tried, missed = spoil(compiled(name), faults.IN_RESULTS, seeds)
    assert missed == []
    assert tried >= seeds * RESULTS[name]
    goal.count(tried)


@pytest.mark.long
@pytest.mark.promise("R8 faults")
@pytest.mark.parametrize("name", GRAPHS)
def test_every_fault_in_a_graph_is_refused(name: str, goal: Goal) -> None:
    seeds = SEEDS[goal.tier][1]
    tried, missed = spoil(compiled(name, "graph"), faults.IN_GRAPHS, seeds)
    assert missed == []
    assert tried >= seeds * GRAPHS[name]
    goal.count(tried)


def spoil(case: Case, kinds: tuple[faults.ResultFault, ...], seeds: int) -> tuple[int, list[str]]:
    """How many faults were tried, and which of them verification missed."""
    tried, missed = 0, []
    for number, fault in enumerate(kinds):
        for seed in range(seeds):
            own = spoilt(case)
            sound = described(own, own.smaller)
            try:
                smaller = fault(own, np.random.default_rng([number, seed])) or own.smaller
            except NoRoom:
                continue
            assert described(own, smaller) != sound, fault.__name__
            tried += 1
            if not refused(own.plan, own, smaller):
                missed.append(f"{fault.__name__} {seed}")
    return tried, missed


def described(case: Case, smaller: nn.Module) -> dict[str, Any]:
    """All that a fault may change."""
    tensors = faults.tensors_of(smaller)
    found: dict[str, Any] = contents(smaller) | contents_of_original(case.model)
    found |= {f"class {path}": id(type(module)) for path, module in smaller.named_modules()}
    memory = [t.untyped_storage().data_ptr() for t in tensors.values()]
    memory += [t.untyped_storage().data_ptr() for t in faults.tensors_of(case.model).values()]
    found["memory"] = [memory.index(place) for place in memory]
    found["saved"] = list(smaller.state_dict())
    found["forward"] = "forward" in vars(smaller)
    if isinstance(smaller, fx.GraphModule):
        found["code"] = [str((n.target, n.args, n.kwargs)) for n in smaller.graph.nodes]
    return found


def contents_of_original(model: nn.Module) -> dict[str, Any]:
    return {f"original {name}": value for name, value in contents(model).items()}


# -- what is accepted ------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("target", ["module", "graph"])
@pytest.mark.parametrize("name", MODELS)
def test_what_apply_makes_is_accepted(name: str, target: Any) -> None:
    model, inputs = build(name)
    plan = planc.compile(model, inputs, ratio=0.5, target=target)
    smaller = planc.apply(plan, model)
    before = contents(model), contents(smaller)
    report = planc.verify(plan, model, smaller, inputs)
    assert (contents(model), contents(smaller)) == before
    assert report.graph_error < 1e-5
    assert (report.error is None) == bool(report.mixing) == (name in small.MIXING)
    assert report.error is None or report.error < 1e-5


def test_the_masked_original_is_compared_where_nothing_mixes() -> None:
    model, inputs = build("vit", torch.float64)
    mixing = [g.name for g in planc.compile(model, inputs).groups if g.mixing]
    plan = planc.compile(model, inputs, keep=mixing, target="graph")
    report = planc.verify(plan, model, planc.apply(plan, model), inputs)
    assert report.error is not None
    assert report.error < 1e-12


def test_inputs_are_made_from_the_plan_if_none_are_given() -> None:
    case = compiled("residual")
    assert planc.verify(case.plan, case.model, case.smaller).error is not None


def test_inputs_may_have_other_shapes_than_those_of_the_plan() -> None:
    case = compiled("residual")
    for shape in ((1, 3, 8, 8), (3, 3, 12, 10)):
        images = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
        assert planc.verify(case.plan, case.model, case.smaller, images).graph_error < 1e-5


def test_keyword_arguments_and_nested_outputs_are_compared() -> None:
    model = small.randomised(small.Several())
    args, kwargs = several_call()
    plan = planc.compile(model, args, kwargs, ratio=0.5)
    smaller = planc.apply(plan, model)
    report = planc.verify(plan, model, smaller, args, kwargs)
    assert report.error is not None
    assert report.error < 1e-6


def test_a_composed_plan_is_accepted() -> None:
    case = compiled("residual")
    second = planc.compile(case.smaller, case.inputs, ratio=0.5)
    both = planc.compose(case.plan, second)
    smallest = planc.apply(second, case.smaller)
    assert planc.verify(both, case.model, smallest, case.inputs).error is not None


def test_a_tolerance_can_be_given() -> None:
    case = compiled("residual")
    with pytest.raises(VerificationError, match=r"relative, allowed 1e-30"):
        planc.verify(case.plan, case.model, case.smaller, case.inputs, tolerance=1e-30)


def test_without_numbers_everything_else_is_checked() -> None:
    case = compiled("grouped")
    model, smaller = (copy.deepcopy(m).to("meta") for m in (case.model, case.smaller))
    report = planc.verify(case.plan, model, smaller, case.inputs)
    assert "meta device" in str(report)
    smaller.get_submodule("last").stride = (2, 2)
    with pytest.raises(VerificationError, match=r"last: expected stride = \(1, 1\)"):
        planc.verify(case.plan, model, smaller, case.inputs)


@pytest.mark.parametrize("target", ["module", "graph"])
def test_models_in_training_mode_are_compared_and_keep_their_statistics(target: Any) -> None:
    model, inputs = build("residual")
    model.train()
    plan = planc.compile(model, inputs, ratio=0.5, target=target)
    smaller = planc.apply(plan, model)
    before = contents(model), contents(smaller)
    report = planc.verify(plan, model, smaller, inputs)
    assert report.graph_error < 1e-5
    assert (contents(model), contents(smaller)) == before


def test_dropout_in_training_mode_is_no_fault() -> None:
    model = small.randomised(
        nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3))
    ).train()
    inputs = small.vectors(4, 6)
    for target in ("module", "graph"):
        plan = planc.compile(model, inputs, ratio=0.5, target=target)  # type: ignore[arg-type]
        report = planc.verify(plan, model, planc.apply(plan, model), inputs)
        assert report.error is None
        assert "not compared with the masked original: its outputs are random" in str(report)


# -- what the messages say -------------------------------------------------------------------


def message(spoil: Callable[[Case], nn.Module | None], name: str = "residual") -> str:
    case = spoilt(compiled(name))
    smaller = spoil(case) or case.smaller
    with pytest.raises(VerificationError) as refusal:
        planc.verify(case.plan, case.model, smaller, case.inputs)
    return str(refusal.value)


def test_the_tensor_with_wrong_values_is_named() -> None:
    def spoil(case: Case) -> None:
        case.smaller.get_submodule("stem.0").get_parameter("weight").data[0, 0, 0, 0] += 1

    assert "stem.0.weight: its values are not the kept ones" in message(spoil)


def test_the_stale_attribute_is_named_with_both_values() -> None:
    def spoil(case: Case) -> None:
        case.smaller.get_submodule("stem.0").out_channels = 8

    assert "stem.0: expected out_channels = 4, found 8" in message(spoil)


def test_a_lost_tie_names_both_tensors() -> None:
    def spoil(case: Case) -> None:
        faults.lost_tie(case, np.random.default_rng(0))

    assert "decode.weight is no longer tied to embed.weight" in message(spoil, "tied")


def test_shared_memory_names_both_tensors() -> None:
    def spoil(case: Case) -> None:
        case.smaller.get_submodule("head").bias = nn.Parameter(case.model.head.bias.detach())

    assert "head.bias shares memory with the original's head.bias" in message(spoil)


def test_a_hook_a_class_and_a_number_are_named() -> None:
    def hook(case: Case) -> None:
        case.smaller.get_submodule("head").register_forward_hook(lambda *_: None)

    def other(case: Case) -> None:
        stem: Any = case.smaller.get_submodule("stem")
        stem[2] = nn.GELU().eval()

    def number(case: Case) -> None:
        case.smaller.get_submodule("stem.1").eps = 1e-3

    assert "head: _forward_hooks is 1, was 0" in message(hook)
    assert "stem.2" in message(other)
    assert "stem.1: eps is 0.001, was 1e-05" in message(number)


def test_a_plan_for_another_model_is_stale() -> None:
    case, other = compiled("residual"), compiled("grouped")
    with pytest.raises(StalePlan, match=r"expected .* found none"):
        planc.verify(case.plan, other.model, case.smaller, case.inputs)
    with pytest.raises(AlreadyApplied, match="stem"):
        planc.verify(case.plan, case.smaller, case.smaller, case.inputs)
