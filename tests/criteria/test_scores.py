"""Scores come from any criterion, over a model or its tensors; meaningless ones are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import planc
from planc.analysis import Analysis
from planc.criteria import Magnitude, Random, Weights, named
from planc.errors import PolicyError, StalePlan
from planc.ir.groups import Group
from tests.support.small import MODELS, build


@pytest.fixture(scope="module")
def residual() -> tuple[nn.Module, Analysis]:
    model, inputs = build("residual")
    return model, planc.analyze(planc.trace(model, inputs))


@pytest.mark.parametrize("name", MODELS)
def test_random_scores_follow_from_the_seed_alone(name: str) -> None:
    model, inputs = build(name)
    analysis = planc.analyze(planc.trace(model, inputs))
    first, again = (planc.score(analysis, model, Random(4)) for _ in range(2))
    other, weights = planc.score(analysis, model, Random(5)), build(name, seed=1)[0]
    elsewhere = planc.score(analysis, weights, Random(4))
    for g, group in enumerate(analysis.groups):
        assert len(first.units[g]) == group.size
        np.testing.assert_array_equal(first.units[g], again.units[g])
        np.testing.assert_array_equal(first.units[g], elsewhere.units[g])
        assert ((first.units[g] >= 0) & (first.units[g] < 1)).all()
    assert any((a != b).any() for a, b in zip(first.units, other.units, strict=True))


def test_a_state_dict_scores_as_its_model_does(residual: tuple[nn.Module, Analysis]) -> None:
    model, analysis = residual
    for weights in (model.state_dict(), dict(model.named_parameters())):
        scores = planc.score(analysis, weights, Magnitude(2))
        for a, b in zip(
            scores.units, planc.score(analysis, model, Magnitude(2)).units, strict=True
        ):
            np.testing.assert_array_equal(a, b)


def test_one_name_of_a_tied_parameter_is_enough() -> None:
    model, inputs = build("tied")
    analysis = planc.analyze(planc.trace(model, inputs))
    state = model.state_dict()
    del state["embed.weight"]
    scores = planc.score(analysis, state, Magnitude(2))
    np.testing.assert_array_equal(
        scores.units[0], planc.score(analysis, model, Magnitude(2)).units[0]
    )


def test_a_function_can_be_a_criterion(residual: tuple[nn.Module, Analysis]) -> None:
    class First:
        def __str__(self) -> str:
            return "last units first"

        def __call__(self, analysis: Analysis, weights: Weights) -> tuple[np.ndarray, ...]:
            return tuple(-np.arange(group.size, dtype=float) for group in analysis.groups)

    model, _ = residual
    plan = planc.compile(model, build("residual")[1], criterion=First())
    assert [group.removed for group in plan.groups] == [(4, 5, 6, 7), (3, 4, 5), (2, 3)]
    assert plan.provenance[0].criterion == "last units first"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("name", "place"),
    [("blocks.0.0.weight", (2, 1, 0, 0)), ("blocks.1.4.bias", (3,)), ("head.weight", (1, 4))],
)
def test_the_non_finite_parameter_is_named(name: str, place: tuple[int, ...], value: float) -> None:
    model, inputs = build("residual")
    with torch.no_grad():
        model.get_parameter(name)[place] = value
    for criterion in ("l1", "l2"):
        with pytest.raises(PolicyError) as refusal:
            planc.compile(model, inputs, criterion=criterion)
        said = f"{name} has 1 values that are NaN or inf, the first at {place}"
        assert said in str(refusal.value)
    planc.compile(model, inputs, criterion="random")


def test_an_overflowing_criterion_is_refused(residual: tuple[nn.Module, Analysis]) -> None:
    def criterion(analysis: Analysis, weights: Weights) -> tuple[np.ndarray, ...]:
        return tuple(np.full(group.size, np.inf) for group in analysis.groups)

    model, analysis = residual
    with pytest.raises(
        PolicyError, match=r"all its tensors are finite, so the criterion overflows"
    ):
        planc.score(analysis, model, criterion)


def test_scores_of_the_wrong_number_are_refused(residual: tuple[nn.Module, Analysis]) -> None:
    def few(analysis: Analysis, weights: Weights) -> tuple[np.ndarray, ...]:
        return tuple(np.zeros(group.size - 1) for group in analysis.groups)

    def fewer(analysis: Analysis, weights: Weights) -> tuple[np.ndarray, ...]:
        return (np.zeros(8),)

    model, analysis = residual
    with pytest.raises(PolicyError, match=r"stem\.0\.weight:0 .* has 8 units, its scores .*\(7,\)"):
        planc.score(analysis, model, few)
    with pytest.raises(PolicyError, match=r"scores for 1 groups, the model has 3"):
        planc.score(analysis, model, fewer)


def test_weights_of_another_model_are_refused(residual: tuple[nn.Module, Analysis]) -> None:
    model, analysis = residual
    state = model.state_dict()
    state["head.weight"] = torch.zeros(5, 31)
    with pytest.raises(StalePlan, match=r"head\.weight has shape \(5, 31\), but \(5, 32\)"):
        planc.score(analysis, state, Magnitude(2))
    del state["head.weight"]
    with pytest.raises(StalePlan, match=r"head\.weight is missing"):
        planc.score(analysis, state, Magnitude(2))


def test_an_unknown_criterion_is_refused_with_the_known_ones() -> None:
    assert [str(named(name)) for name in ("l1", "l2", "random")] == ["l1", "l2", "random"]
    with pytest.raises(PolicyError, match=r"unknown criterion 'l3': choose one of .*l1, l2, lamp"):
        named("l3")


def test_a_group_prints_its_name(residual: tuple[nn.Module, Analysis]) -> None:
    _, analysis = residual
    group: Group = analysis.groups[0]
    assert str(group) == "stem.0.weight:0 (8 channels)"
