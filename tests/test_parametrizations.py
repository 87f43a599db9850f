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
from tests.proving import prove, prunable, randomise, reasons, together

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
def test_removing_is_zeroing_unless_the_norm_of_nothing_is_taken(name: str) -> None:
    found = planc.analyze(planc.trace(changed(NORMS[name][0], nn.Linear).eval(), inputs(nn.Linear)))
    mixing = {group.name: group.mixing for group in found.groups}
    undefined = {"weight norm": "2.bias:0", "weight norm as a hook": "2.bias:0",
                 "weight norm over inputs": "0.weight:0"}  # fmt: skip
    for group, reason in mixing.items():
        expected = "division by removed coordinates" if undefined.get(name) == group else ""
        assert reason == expected


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
