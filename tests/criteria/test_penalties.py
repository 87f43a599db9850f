"""Penalties are what their papers say, and units that they drove to zero can go."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

import planc
from planc.criteria.penalties import BatchNormPenalty, GroupNorm, Growing, UnitSquares
from planc.errors import AnalysisError, PolicyError, StalePlan
from planc.policy import Zeros
from tests.criteria import brute
from tests.support.small import MODELS, build


@pytest.mark.parametrize("name", MODELS)
def test_unit_squares_sum_over_all_members(name: str) -> None:
    model, inputs = build(name, torch.float64)
    analysis = planc.analyze(planc.trace(model, inputs))
    tensors = brute.parameters(model)
    expected = brute.by_member(
        analysis,
        tensors,
        lambda name, dim, mask, group: float((tensors[name][mask] ** 2).sum()),
        sum,
    )
    found = UnitSquares(analysis)(model).detach().numpy()
    np.testing.assert_allclose(found, np.concatenate(expected), rtol=1e-10)


@pytest.mark.parametrize("alpha", [1.0, 4.0])
@pytest.mark.parametrize("name", ["residual", "grouped", "attention"])
def test_group_norm_and_its_gradient_match_the_paper(name: str, alpha: float) -> None:
    model, inputs = build(name, torch.float64)
    analysis = planc.analyze(planc.trace(model, inputs))
    tensors = brute.parameters(model)
    penalty = GroupNorm(analysis, alpha)
    gradient = {name: np.zeros_like(values) for name, values in tensors.items()}
    total = 0.0
    for g, group in enumerate(analysis.groups):
        masks = [list(brute.member_masks(group, u, tensors)) for u in range(group.size)]
        norms = [
            np.sqrt(sum((tensors[name][mask] ** 2).sum() for name, _, mask in own)) for own in masks
        ]
        for own, norm in zip(masks, norms, strict=True):
            gamma = 2 ** (alpha * (max(norms) - norm) / (max(norms) - min(norms)))
            if g in analysis.grouping.rowed:
                continue  # its cells are penalised
            total += gamma * norm**2
            for name, _, mask in own:
                gradient[name][mask] += 2 * gamma * tensors[name][mask]
    value = penalty(model)
    assert value.item() == pytest.approx(total, rel=1e-10)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    penalty(model).backward()
    for name, parameter in model.named_parameters():
        found = np.zeros_like(tensors[name]) if parameter.grad is None else parameter.grad.numpy()
        np.testing.assert_allclose(found, gradient[name], rtol=1e-9, atol=1e-12)
    kept = penalty.strengths(model)
    assert not kept.requires_grad
    assert penalty(model, kept).item() == pytest.approx(total, rel=1e-10)
    assert kept.max().item() == pytest.approx(2**alpha)
    assert kept.min().item() == pytest.approx(1)


def test_the_batch_norm_penalty_is_the_absolute_sum_of_the_scales() -> None:
    model, inputs = build("depthwise")
    analysis = planc.analyze(planc.trace(model, inputs))
    penalty = BatchNormPenalty(analysis)(model)
    assert penalty.item() == pytest.approx(model.norm.weight.abs().sum().item(), rel=1e-6)
    penalty.backward()
    torch.testing.assert_close(model.norm.weight.grad, model.norm.weight.detach().sign())
    assert model.norm.bias.grad is None


def test_growing_regularisation_grows_by_steps_up_to_its_ceiling() -> None:
    model, inputs = build("residual")
    analysis = planc.analyze(planc.trace(model, inputs))
    plan = planc.compile(model, inputs)
    penalty = Growing(analysis, plan, delta=0.25, every=4, ceiling=0.6)
    assert [penalty.strength(t) for t in (0, 3, 4, 8, 11, 12, 1000)] == [
        0, 0, 0.25, 0.5, 0.5, 0.6, 0.6,
    ]  # fmt: skip
    squares = UnitSquares(analysis)(model).split([group.size for group in analysis.groups])
    gone = sum(
        own[list(group.removed)].sum().item()
        for own, group in zip(squares, plan.groups, strict=True)
    )
    assert penalty(model, 8).item() == pytest.approx(0.25 * gone, rel=1e-5)


def trained(
    model: nn.Module, penalty: Callable[[nn.Module, int], torch.Tensor], steps: int, rate: float
) -> None:
    """Trains a model to give its own first answers, under a penalty."""
    drawn = torch.Generator().manual_seed(5)
    images = torch.randn(16, 3, 8, 8, generator=drawn)
    wanted = model(images).detach()
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    for step in range(steps):
        optimizer.zero_grad()
        loss = (model(images) - wanted).square().mean() + penalty(model, step)
        loss.backward()
        optimizer.step()


def without_zeros(model: nn.Module, inputs: tuple[torch.Tensor, ...], least: int) -> None:
    """Removes all units that are zero, at least so many, and compares the outputs."""
    plan = planc.compile(model, inputs, criterion="l2", policy=Zeros(1e-6))
    assert sum(len(group.removed) for group in plan.groups) >= least
    smaller = planc.apply(plan, model)
    assert smaller.stem[0].out_channels == plan.groups[0].kept
    images = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(6))
    with torch.no_grad():
        torch.testing.assert_close(smaller(images), model(images), rtol=1e-4, atol=1e-5)


def test_units_driven_to_zero_by_growing_regularisation_are_removed_losslessly() -> None:
    model, inputs = build("residual")
    plan = planc.compile(model, inputs, ratio=0.5)
    analysis = planc.analyze(planc.trace(model, inputs))
    trained(model, Growing(analysis, plan, delta=1.0, every=5, ceiling=20.0), 300, 0.02)
    again = planc.compile(model, inputs, ratio=0.5)
    assert [group.removed for group in again.groups] == [group.removed for group in plan.groups]
    without_zeros(model, inputs, sum(len(group.removed) for group in plan.groups))


@pytest.mark.long
def test_units_driven_to_zero_by_the_group_norm_are_removed_losslessly() -> None:
    model, inputs = build("residual")
    analysis = planc.analyze(planc.trace(model, inputs))
    penalty = GroupNorm(analysis)
    trained(model, lambda model, step: 0.01 * penalty(model), 1500, 0.05)
    without_zeros(model, inputs, 3)


def test_invalid_penalties_are_refused() -> None:
    model, inputs = build("residual")
    other, others = build("dense")
    analysis = planc.analyze(planc.trace(model, inputs))
    with pytest.raises(StalePlan, match=r"compile a plan for this model"):
        Growing(analysis, planc.compile(other, others))
    with pytest.raises(StalePlan, match=r"weights: stem\.0\.weight is missing; give the traced"):
        GroupNorm(analysis)(other)
    with pytest.raises(PolicyError, match="alpha 0 is not a finite number above 0"):
        GroupNorm(analysis, 0)
    with pytest.raises(PolicyError, match=r"strengths of shape \(3,\) for 18 units"):
        GroupNorm(analysis)(model, torch.ones(3))
    plain, vectors = build("shared")
    with pytest.raises(AnalysisError, match="no channels that may go have a batch normalization"):
        BatchNormPenalty(planc.analyze(planc.trace(plain, vectors)))
