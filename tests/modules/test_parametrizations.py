"""Weights that a module computes from others before each run: norms, as hooks and as
parametrizations, are pruned like plain weights, and what an orthogonal weight is made of stays.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, spectral_norm, weight_norm

import planc
from tests.support.proving import prove, prunable, randomise, reasons, together

Change = Callable[[Any], Any]
X = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))

# how a layer is changed, then the tensors that its weight is made of, its own shape first
NORMS: dict[str, tuple[Change, tuple[str, ...]]] = {
    "weight norm": (
        parametrizations.weight_norm,
        ("parametrizations.weight.original1", "parametrizations.weight.original0"),
    ),
    "weight norm over inputs": (
        partial(parametrizations.weight_norm, dim=1),
        ("parametrizations.weight.original1",),
    ),
    "weight norm over all": (
        partial(parametrizations.weight_norm, dim=None),
        ("parametrizations.weight.original1",),
    ),
    "weight norm as a hook": (weight_norm, ("weight_v", "weight_g")),
    "weight norm over all as a hook": (partial(weight_norm, dim=None), ("weight_v",)),
    "spectral norm": (
        parametrizations.spectral_norm,
        ("parametrizations.weight.original", "parametrizations.weight.0._u"),
    ),
    "spectral norm as a hook": (spectral_norm, ("weight_orig", "weight_u")),
}


def changed(change: Change, kind: type[nn.Module] = nn.Conv2d) -> nn.Module:
    """A model whose middle layer is changed."""
    torch.manual_seed(0)
    first, middle, last = (kind(i, o, 3) if kind is not nn.Linear else kind(i, o)  # type: ignore[call-arg]
                           for i, o in ((3, 6), (6, 8), (8, 2)))  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the old ways are deprecated
        middle = change(middle)
    return nn.Sequential(first, nn.ReLU(), middle, nn.ReLU(), last)


def inputs(kind: type[nn.Module]) -> torch.Tensor:
    return X[:, :, 0, 0] if kind is nn.Linear else torch.randn(2, 3, 8, 8)


@pytest.mark.long
@pytest.mark.parametrize("kind", [nn.Linear, nn.Conv2d])
@pytest.mark.parametrize("name", NORMS)
def test_a_normed_layer_is_pruned_like_any_other(name: str, kind: type[nn.Module]) -> None:
    change, (weight, *others) = NORMS[name]
    found = prove(changed(change, kind), inputs(kind))
    assert together(found, "0.weight:0", f"2.{weight}:1")
    assert together(found, "4.weight:1", f"2.{weight}:0", *(f"2.{other}:0" for other in others))
    for target in ("module", "graph"):
        assert prunable(found, target) == {"0.weight:0", "2.bias:0"}


@pytest.mark.parametrize("name", NORMS)
def test_removing_is_zeroing_also_where_a_norm_is_taken(name: str) -> None:
    found = planc.analyze(planc.trace(changed(NORMS[name][0], nn.Linear).eval(), inputs(nn.Linear)))
    assert [group.mixing for group in found.groups] == ["", ""]


def agree(model: nn.Module, x: torch.Tensor) -> planc.Plan:
    """Masks of the model and of its state dict compute what the pruned model computes."""
    model.double().eval()
    x = x.double()
    plan = planc.compile(model, x, ratio=0.5)
    smaller, masked = planc.apply(plan, model), planc.mask(plan, model)
    other = planc.mask(plan, model)
    other.load_state_dict(planc.mask(plan, model.state_dict()))
    for name, tensor in masked.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])
    with torch.no_grad():
        expected = smaller(x)
        for found in (masked(x), other(x)):
            assert torch.allclose(found, expected, rtol=1e-9, atol=1e-9)
    report = planc.verify(plan, model, smaller, x)
    assert report.error is not None
    assert report.error < 1e-9
    return plan


@pytest.mark.long
@pytest.mark.parametrize("kind", [nn.Linear, nn.Conv2d, nn.ConvTranspose2d])
@pytest.mark.parametrize("name", NORMS)
def test_a_mask_of_a_normed_layer_is_what_the_pruned_model_computes(
    name: str, kind: type[nn.Module]
) -> None:
    agree(changed(NORMS[name][0], kind), inputs(kind))


def chained(change: Change) -> nn.Module:
    """Layers that are all changed, so that rows and columns of each weight go."""
    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layers = [
            change(nn.Conv1d(4, 12, 3, padding=1)),
            change(nn.Conv1d(12, 12, 3, padding=1, groups=2)),
            change(nn.Conv1d(12, 8, 1)),
        ]
    parts = [part for layer in layers for part in (layer, nn.ReLU())]
    return nn.Sequential(*parts, nn.Conv1d(8, 2, 1))


@pytest.mark.parametrize("name", NORMS)
def test_masks_hold_where_rows_and_columns_of_normed_weights_go(name: str) -> None:
    agree(chained(NORMS[name][0]), torch.randn(2, 4, 8))


@pytest.mark.parametrize("old", [True, False])
def test_no_mask_makes_a_norm_zero_that_was_not(old: bool) -> None:
    change, ending = (weight_norm, "_v") if old else (parametrizations.weight_norm, "original1")
    model = changed(change, nn.Linear).eval()
    name = next(name for name, _ in model.named_parameters() if name.endswith(ending))
    plan = planc.compile(model, X[:, :, 0, 0], ratio=0.5)
    rows, columns = plan.cuts[name].kept
    assert rows is not None
    assert columns is not None
    lost, gone = (
        sorted(set(range(n)) - set(kept.tolist())) for n, kept in ((8, rows), (6, columns))
    )
    before = model.state_dict()[name]
    with torch.no_grad():  # rows that go have values only in columns that go
        before[lost] = 0
        before[lost, gone[0]] = 1
    masked = planc.mask(plan, model)
    after = masked.state_dict()[name]
    assert torch.equal(after[lost], before[lost])
    assert not after[rows][:, gone].any()
    with torch.no_grad():
        assert torch.allclose(masked(X[:, :, 0, 0]), planc.apply(plan, model)(X[:, :, 0, 0]))


class Polar(nn.Module):
    """A parametrization of one's own: a direction times a magnitude."""

    def forward(self, magnitude: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
        return direction * magnitude / direction.square().sum(1, keepdim=True).sqrt()

    def right_inverse(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return weight.norm(dim=1, keepdim=True), weight


def polar(layer: nn.Module) -> nn.Module:
    parametrize.register_parametrization(layer, "weight", Polar(), unsafe=True)
    return layer


def test_a_parametrization_of_ones_own_that_divides_by_a_norm_is_masked_alike() -> None:
    plan = agree(changed(polar, nn.Linear), inputs(nn.Linear))
    assert not any(group.mixing for group in plan.groups)


class Shifted(nn.Module):
    """A parametrization in which no zero follows from the magnitude: a mask of it is not known."""

    def forward(self, magnitude: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
        return direction * (1 + magnitude)

    def right_inverse(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros_like(weight[:, :1]), weight


def shifted(layer: nn.Module) -> nn.Module:
    parametrize.register_parametrization(layer, "weight", Shifted(), unsafe=True)
    return layer


def test_a_direction_that_keeps_its_values_counts_as_not_zero() -> None:
    model = changed(shifted, nn.Linear)
    agree(model, inputs(nn.Linear))  # the columns after it are zero
    summed = nn.Sequential(*list(model)[:3], nn.ReLU(), Total(), nn.Linear(1, 2))  # type: ignore[call-overload]
    summed.double()
    found = planc.analyze(planc.trace(summed, inputs(nn.Linear).double()))
    assert any("not zero when masked" in group.mixing for group in found.groups)


class Total(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum(1, keepdim=True)


@pytest.mark.parametrize("name", NORMS)
def test_the_pruned_layer_keeps_what_changes_it_and_trains(name: str) -> None:
    model, x = changed(NORMS[name][0], nn.Linear).eval(), inputs(nn.Linear)
    plan = planc.compile(model, x, ratio=0.5)
    smaller = planc.apply(plan, model)
    layer, old = smaller[2], model[2]  # type: ignore[index]
    assert (layer.in_features, layer.out_features) == (3, 4)
    assert layer.weight.shape == (4, 3)
    assert type(layer).__name__ == type(old).__name__
    assert parametrize.is_parametrized(layer) == parametrize.is_parametrized(old)
    smaller(x).sum().backward()
    assert all(p.grad is not None for p in layer.parameters())
    assert all(p.grad is None for p in model.parameters())
    restored = planc.restore(plan, *planc.apply(plan, model, keep_removed=True))
    assert torch.equal(restored(x), model(x))


def test_statistics_of_a_spectral_norm_in_training_are_not_misread() -> None:
    model = changed(parametrizations.spectral_norm, nn.Linear).train()
    randomise(model, seed=0)
    plan = planc.compile(model, inputs(nn.Linear), ratio=0.5)
    planc.verify(plan, model, planc.apply(plan, model), inputs(nn.Linear))


@pytest.mark.parametrize("kind", [nn.Linear, nn.Conv2d])
def test_an_orthogonal_weight_stays_whole(kind: type[nn.Module]) -> None:
    model = changed(parametrizations.orthogonal, kind)
    found = prove(model, inputs(kind), double=False)
    assert not any("parametrizations" in m.tensor for g in found.groups for m in g.members)
    why = reasons(found, "2.parametrizations.weight.original", 0)
    assert "part of an orthogonal weight is not orthogonal" in why
