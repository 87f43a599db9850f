"""Criteria of gradients equal their definitions, from gradients that are taken one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import planc
from planc.analysis import Analysis
from planc.criteria import KroneckerDamage, OptimalBrainDamage, Reduced, Taylor
from planc.ir.groups import Group
from tests.criteria import brute
from tests.criteria.calibrated import Batch, case, loss
from tests.support.small import MODELS


def traced(name: str) -> tuple[nn.Module, list[Batch], Analysis]:
    model, batches = case(name)
    return model, batches, planc.analyze(planc.trace(model, batches[0]))


def products(model: nn.Module, batches: list[Batch]) -> list[brute.Tensors]:
    """For each batch weight times gradient of its own loss."""
    tensors = brute.parameters(model)
    return [
        {name: tensors[name] * gradient[name] for name in tensors}
        for gradient in brute.gradients(model, batches, loss)
    ]


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("name", MODELS)
def test_taylor_per_unit_sums_before_the_power_and_averages_after_it(name: str, p: int) -> None:
    model, batches, analysis = traced(name)
    tensors = brute.parameters(model)
    expected = [
        sum(of_batches) / len(batches)
        for of_batches in zip(
            *(
                brute.whole(analysis, tensors, changes, lambda total: abs(total) ** p)
                for changes in products(model, batches)
            ),
            strict=True,
        )
    ]
    statistics = planc.calibrate(model, batches, Taylor("unit"), loss)
    found = planc.score(analysis, model, Taylor("unit", p), statistics).units
    for own, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(own, wanted, rtol=1e-8, atol=1e-14)


@pytest.mark.parametrize("reduction", [sum, max])
@pytest.mark.parametrize("name", MODELS)
def test_taylor_of_members_is_reduced_after_the_power(name: str, reduction: Any) -> None:
    model, batches, analysis = traced(name)
    tensors, changes = brute.parameters(model), products(model, batches)
    statistics = planc.calibrate(model, batches, "taylor_unit", loss)

    def squared(tensor: str, dim: int, mask: np.ndarray, group: Group) -> float:
        return float(np.mean([own[tensor][mask].sum() ** 2 for own in changes]))

    expected = brute.by_member(analysis, tensors, squared, reduction)
    criterion = Reduced(Taylor("unit"), reduction.__name__)
    found = planc.score(analysis, model, criterion, statistics).units
    for own, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(own, wanted, rtol=1e-8, atol=1e-14)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("name", MODELS)
def test_taylor_per_element_sums_the_powers(name: str, p: int) -> None:
    model, batches, analysis = traced(name)
    tensors, taken = brute.parameters(model), products(model, batches)
    changes = {name: sum(np.abs(own[name]) ** p for own in taken) / len(taken) for name in tensors}
    criterion = Taylor("element", p)
    statistics = planc.calibrate(model, batches, criterion, loss)
    expected = brute.whole(analysis, tensors, changes, float)
    found = planc.score(analysis, model, criterion, statistics).units
    for own, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(own, wanted, rtol=1e-8, atol=1e-14)


def test_changes_of_opposite_sign_do_not_cancel_over_the_batches() -> None:
    """The gradient of one batch is that of the other, negated: their mean says nothing."""
    model, (batch, *_), analysis = traced("residual")

    def signed(model: nn.Module, sign: int) -> torch.Tensor:
        return sign * loss(model, batch)

    criterion = Taylor("unit")
    alone, both = (
        planc.score(analysis, model, criterion, planc.calibrate(model, signs, criterion, signed))
        for signs in ([1], [1, -1])
    )
    for own, wanted in zip(both.units, alone.units, strict=True):
        assert (wanted > 0).any()
        np.testing.assert_allclose(own, wanted, rtol=1e-10)


@pytest.mark.parametrize("name", MODELS)
def test_optimal_brain_damage_weighs_squares_by_the_empirical_fisher(name: str) -> None:
    model, batches, analysis = traced(name)
    tensors = brute.parameters(model)
    taken = brute.gradients(model, batches, loss)
    damage = {
        name: sum(own[name] ** 2 for own in taken) / len(taken) * tensors[name] ** 2 / 2
        for name in tensors
    }
    statistics = planc.calibrate(model, batches, "obd", loss)
    expected = brute.whole(analysis, tensors, damage, float)
    found = planc.score(analysis, model, OptimalBrainDamage(), statistics).units
    for own, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(own, wanted, rtol=1e-8, atol=1e-18)


class Watched:
    """What a layer reads and the gradient of what it gives, example by example, place by place."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.handle = module.register_forward_hook(self.see)

    def see(self, module: nn.Module, args: tuple[torch.Tensor], output: torch.Tensor) -> None:
        self.x = args[0].detach()
        output.retain_grad()
        self.y = output

    def factors(self) -> tuple[np.ndarray, np.ndarray]:
        """A and S of one batch by loops over examples and positions."""
        examples = []  # for each example, for each position: what is read, and the gradient
        gradient = self.y.grad
        if isinstance(self.module, nn.Conv2d):
            conv = self.module
            (ph, pw), (kh, kw), (sh, sw) = conv.padding, conv.kernel_size, conv.stride
            padded = nn.functional.pad(self.x, (pw, pw, ph, ph))
            for n in range(len(padded)):
                examples.append(
                    [
                        (
                            padded[n, :, i * sh : i * sh + kh, j * sw : j * sw + kw].reshape(-1),
                            gradient[n, :, i, j],
                        )
                        for i in range(gradient.shape[2])
                        for j in range(gradient.shape[3])
                    ]
                )
        else:
            for n in range(len(self.x)):
                xs = self.x[n].reshape(-1, self.x.shape[-1])
                gs = gradient[n].reshape(-1, gradient.shape[-1])
                examples.append(list(zip(xs, gs, strict=True)))
        count = len(examples)
        a = sum(np.outer(x, x) for example in examples for x, _ in example) / count
        s = sum(
            np.outer(g * count, g * count) / len(example)  # the gradient of the example's own loss
            for example in examples
            for _, g in example
        )
        return a, s / count


@pytest.mark.parametrize("name", ["residual", "dense", "grouped", "attention", "shuffle"])
def test_kronecker_damage_is_the_quadratic_form_of_the_factors(name: str) -> None:
    model, batches, analysis = traced(name)
    tensors = brute.parameters(model)
    statistics = planc.calibrate(model, batches, "obd_c", loss)
    layers = {
        f"{path}.weight": Watched(m)
        for path, m in model.named_modules()
        if isinstance(m, nn.Linear) or (isinstance(m, nn.Conv2d) and m.groups == 1)
    }
    sums: dict[str, list[np.ndarray]] = {}
    for batch in batches:
        model.zero_grad()
        loss(model, batch).backward()
        for weight, watched in layers.items():
            a, s = watched.factors()
            old = sums.get(weight, [np.zeros_like(a), np.zeros_like(s)])
            sums[weight] = [old[0] + a / len(batches), old[1] + s / len(batches)]

    def damage(tensor: str, dim: int, mask: np.ndarray, group: Group) -> float | None:
        if tensor not in sums or dim != 0:
            return None
        a, s = sums[tensor]
        rows = tensors[tensor].reshape(len(s), -1)
        own = np.flatnonzero(mask.reshape(len(s), -1).all(axis=1))
        return 0.5 * sum(s[i, j] * float(rows[i] @ a @ rows[j]) for i in own for j in own)

    expected = brute.by_member(analysis, tensors, damage, sum)
    found = KroneckerDamage()(analysis, dict(model.named_parameters()), statistics)
    assert any(own is not None for own in found)
    for own, wanted in zip(found, expected, strict=True):
        assert (own is None) == (wanted is None)
        if own is not None:
            np.testing.assert_allclose(own, wanted, rtol=1e-8, atol=1e-14)


def test_first_order_predicts_the_effect_of_a_small_unit() -> None:
    """The loss without a unit, by running the masked model, not by any formula."""
    model, batches, analysis = traced("residual")
    with torch.no_grad():
        for parameter in model.parameters():  # without zeros the expansion holds only near them
            parameter *= 1e-1
    statistics = planc.calibrate(model, batches[:1], Taylor("unit", 1), loss)
    g = next(i for i, group in enumerate(analysis.groups) if group.size == 6)
    predicted = planc.score(analysis, model, Taylor("unit", 1), statistics).units[g]
    before = loss(model, batches[0]).item()
    changes = []
    for unit in range(6):
        removed = tuple((unit,) if i == g else () for i in range(len(analysis.groups)))
        plan = planc.select(analysis, planc.score(analysis, model, _Only(removed)), _Keeps(removed))
        changes.append(abs(loss(planc.mask(plan, model), batches[0]).item() - before))
    assert np.corrcoef(predicted, changes)[0, 1] > 0.9


class _Only:
    """Scores that single out some units."""

    def __init__(self, removed: tuple[tuple[int, ...], ...]) -> None:
        self.removed = removed

    def __call__(self, analysis: Analysis, weights: object) -> list[np.ndarray]:
        return [
            np.array([0.0 if u in own else 1.0 for u in range(group.size)])
            for group, own in zip(analysis.groups, self.removed, strict=True)
        ]


class _Keeps:
    """A policy that removes as many as there are."""

    def __init__(self, removed: tuple[tuple[int, ...], ...]) -> None:
        self.removed = removed

    def __call__(self, analysis: Analysis, scores: object) -> tuple[int, ...]:
        return tuple(
            group.cells - len(own) for group, own in zip(analysis.groups, self.removed, strict=True)
        )


def test_taylor_means_elements_by_default_and_units_by_name() -> None:
    assert planc.criteria.named("taylor") == Taylor() == Taylor("element", 2)
    assert planc.criteria.named("taylor_unit") == Taylor("unit", 2)
