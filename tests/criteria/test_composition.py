"""Reductions over members and normalizations of scores compose with every criterion."""

from __future__ import annotations

import math

import numpy as np
import pytest

import planc
from planc.analysis import Analysis
from planc.criteria import (
    BatchNormScale,
    Fallback,
    Magnitude,
    Normalized,
    Random,
    Reduced,
    Taylor,
    Weights,
)
from planc.errors import PolicyError
from tests.criteria import brute
from tests.support.small import MODELS, build

REDUCTIONS = {
    "sum": sum,
    "mean": lambda values: sum(values) / len(values),
    "max": max,
    "prod": math.prod,
    "first": lambda values: values[0],
}


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", MODELS)
def test_reductions_apply_to_the_members_scores(name: str, reduction: str) -> None:
    model, inputs = build(name)
    analysis = planc.analyze(planc.trace(model, inputs))
    tensors = brute.parameters(model)
    expected = brute.by_member(
        analysis,
        tensors,
        lambda tensor, dim, mask, group: float(
            (np.abs(tensors[tensor][mask]) ** 1.5).sum() ** (2 / 3)
        ),
        REDUCTIONS[reduction],
    )
    found = planc.score(analysis, model, Reduced(Magnitude(1.5), reduction)).units
    for own, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(own, wanted, rtol=1e-5)


NORMALIZATIONS = {
    "mean": lambda x: [v / (sum(x) / len(x)) for v in x],
    "max": lambda x: [v / max(x) for v in x],
    "sum": lambda x: [v / sum(x) for v in x],
    "standardization": lambda x: [(v - min(x)) / (max(x) - min(x)) for v in x],
    "gaussian": lambda x: [
        (v - sum(x) / len(x)) / math.sqrt(sum((w - sum(x) / len(x)) ** 2 for w in x) / len(x))
        for v in x
    ],
    "none": list,
}


@pytest.mark.parametrize("by", NORMALIZATIONS)
def test_a_normalization_is_within_each_group(by: str) -> None:
    model, inputs = build("residual")
    analysis = planc.analyze(planc.trace(model, inputs))
    plain = planc.score(analysis, model, Magnitude(2)).units
    found = planc.score(analysis, model, Normalized(Magnitude(2), by)).units
    for own, scores in zip(found, plain, strict=True):
        np.testing.assert_allclose(own, NORMALIZATIONS[by](scores.tolist()), rtol=1e-12)


@pytest.mark.parametrize("by", NORMALIZATIONS)
def test_equal_scores_can_be_normalized(by: str) -> None:
    def alike(analysis: Analysis, weights: Weights) -> list[np.ndarray]:
        return [np.zeros(group.size) for group in analysis.groups]

    model, inputs = build("residual")
    analysis = planc.analyze(planc.trace(model, inputs))
    for own in planc.score(analysis, model, Normalized(alike, by)).units:
        assert not own.any()


def test_a_fallback_scores_groups_undefined_in_the_first_criterion() -> None:
    model, inputs = build("depthwise")
    analysis = planc.analyze(planc.trace(model, inputs))
    silent = BatchNormScale()(analysis, dict(model.named_parameters()))
    assert any(scores is None for scores in silent)
    assert any(scores is not None for scores in silent)
    both = planc.score(analysis, model, Fallback(BatchNormScale(), Magnitude(1)))
    for own, first, second in zip(
        both.units, silent, planc.score(analysis, model, Magnitude(1)).units, strict=True
    ):
        np.testing.assert_array_equal(own, second if first is None else first)
    assert both.criterion == "batch norm scale, else l1"


def test_a_criterion_undefined_for_a_group_is_refused_with_its_name() -> None:
    model, inputs = build("depthwise")
    with pytest.raises(PolicyError, match=r"says nothing of group .*squeeze.*Fallback"):
        planc.compile(model, inputs, criterion="batch_norm")
    wrapped = Normalized(BatchNormScale(), "max")
    with pytest.raises(PolicyError, match=r"says nothing of group .*squeeze"):
        planc.compile(model, inputs, criterion=wrapped)


def test_unknown_options_are_refused_with_the_known_ones() -> None:
    with pytest.raises(PolicyError, match="unknown reduction 'median': choose one of mean, max"):
        Reduced(Magnitude(2), "median")  # type: ignore[arg-type]
    with pytest.raises(PolicyError, match="unknown normalization 'l2': choose one of mean, max"):
        Normalized(Magnitude(2), "l2")  # type: ignore[arg-type]
    with pytest.raises(PolicyError, match="random has no scores of single members to reduce"):
        Reduced(Random(0))  # type: ignore[arg-type]
    with pytest.raises(PolicyError, match=r'per=.filter.: choose "unit" or "element"'):
        Taylor("filter")  # type: ignore[arg-type]
    with pytest.raises(PolicyError, match=r"p=3: choose 1 or 2"):
        Taylor(p=3)  # type: ignore[arg-type]
    for p in (0, -1, float("inf"), float("nan"), True):
        with pytest.raises(PolicyError, match="is not a finite number above 0"):
            Magnitude(p)


def test_compositions_name_their_parts_and_need_their_statistics() -> None:
    composed = Normalized(Fallback(Reduced(Taylor("unit"), "max"), Magnitude(2)), "sum")
    assert str(composed) == "taylor per unit, p=2, max over members, else l2, by sum"
    assert composed.needs == ("changes",)
    assert Normalized(Magnitude(2)).needs == ()
