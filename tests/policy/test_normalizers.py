"""Rankings take scores as they are, and normalizations have the effect of their names.

Torch-Pruning's pruner with the same importances is the reference, where its normalizers are defined
alike. Its gaussian divides by n - 1, planc's by n.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import planc
from planc.analysis import Analysis
from planc.criteria import Additive, Lamp, Magnitude, Normalized, Reduced, Scores
from planc.criteria.scores import Criterion, Opinions, Weights
from planc.criteria.sources import Sources
from planc.ir.graph import Tensor
from planc.policy import Global, PerCost
from tests.support.small import build, randomised

tp = pytest.importorskip("torch_pruning")


class Chain(nn.Module):
    """Three widths in a row."""

    def __init__(self) -> None:
        super().__init__()
        widths = (4, 10, 14, 24, 3)
        self.layers = nn.ModuleList(
            nn.Linear(a, b, bias=False) for a, b in itertools.pairwise(widths)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        return self.layers[-1](x)


class Convolutions(nn.Module):
    """Convolutions with batch norms, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.b1 = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.c2, self.b2 = nn.Conv2d(8, 12, 3, bias=False), nn.BatchNorm2d(12)
        self.head = nn.Linear(12, 5, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.b1(self.c1(x)))
        return self.head(functional.relu(self.b2(self.c2(x))).mean((2, 3)))


class Residual(nn.Module):
    """A block on a residual stream."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1, bias=False)
        self.inner = nn.Conv2d(8, 20, 1, bias=False)
        self.outer = nn.Conv2d(20, 8, 1, bias=False)
        self.head = nn.Conv2d(8, 4, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head(x + self.outer(self.inner(x).relu()))


@dataclass(frozen=True, slots=True)
class Powers(Additive):
    """The sum of w^2 over the weights of a unit, without biases."""

    root: bool = False

    def __str__(self) -> str:
        return "powers"

    def element(self, sources: Sources, tensor: Tensor) -> torch.Tensor | None:
        return None if tensor.name.endswith("bias") else sources.weight(tensor) ** 2

    def finish(self, sums: np.ndarray) -> np.ndarray:
        return np.sqrt(sums) if self.root else sums


@dataclass(frozen=True, slots=True)
class Rooted:
    """The square root of another criterion's scores."""

    criterion: Criterion

    def __call__(self, analysis: Analysis, weights: Weights) -> Opinions:
        return [np.sqrt(own) for own in self.criterion(analysis, weights) if own is not None]


MODELS: dict[str, tuple[type[nn.Module], tuple[int, ...]]] = {
    "chain": (Chain, (2, 4)),
    "convolutions": (Convolutions, (2, 3, 6, 6)),
    "residual": (Residual, (2, 3, 4, 4)),
}
ALIKE: dict[str, Callable[[Criterion], Criterion]] = {
    "mean": lambda criterion: criterion,
    "sum": lambda criterion: Normalized(criterion, "sum"),
    "max": lambda criterion: Normalized(criterion, "max"),
    "standarization": lambda criterion: Normalized(criterion, "standardization"),
    "none": lambda criterion: Normalized(criterion, "none"),
    "lamp": lambda criterion: Lamp(Rooted(criterion)),
}


def theirs(
    model: nn.Module, x: torch.Tensor, normalizer: str, ratio: float
) -> dict[str, list[int]]:
    by = None if normalizer == "none" else normalizer
    importance = tp.importance.GroupMagnitudeImportance(p=2, normalizer=by)
    last = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
    pruner = tp.pruner.BasePruner(
        model, x, importance, global_pruning=True, pruning_ratio=ratio, ignored_layers=[last]
    )
    paths = {module: path for path, module in model.named_modules()}
    found = pruner.step(interactive=True)
    removed = {paths[group[0].dep.target.module]: sorted(group[0].idxs) for group in found}
    return {path: units for path, units in removed.items() if units}


@pytest.mark.parametrize("normalizer", ALIKE)
@pytest.mark.parametrize("name", MODELS)
def test_a_global_ranking_removes_the_units_of_the_peer(name: str, normalizer: str) -> None:
    kind, shape = MODELS[name]
    model, x = randomised(kind(), seed=3), torch.zeros(shape)
    criterion = ALIKE[normalizer](Reduced(Powers(), "mean"))
    plan = planc.compile(model, x, ratio=0.25, ranking="global", criterion=criterion)
    ours = {
        group.name.removesuffix(".weight:0"): list(group.removed)
        for group in plan.groups
        if group.removed
    }
    assert ours == theirs(model, x, normalizer, 0.25)


def given(*units: list[float]) -> Criterion:
    return lambda analysis, weights: [np.array(own) for own in units]


@pytest.mark.parametrize("more", [0.0, 1e-15, -1e-15])
def test_signed_scores_are_ranked_as_given(more: float) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))
    criterion = given([-3, -1, 1, 3 + more], [-30, -10, 10, 30])
    x = torch.randn(1, 4)
    plan = planc.compile(model.eval(), x, ratio=0.25, ranking="global", criterion=criterion)
    assert [group.removed for group in plan.groups] == [(), (0, 1)]
    plan = planc.compile(model, x, ratio=0.25, ranking="per_cost", criterion=criterion)
    assert [group.removed for group in plan.groups] == [(), (0,)]


@pytest.mark.parametrize("criterion", [Magnitude(2), Normalized(Magnitude(2), "mean")], ids=str)
def test_the_mean_is_the_default_scale(criterion: Criterion) -> None:
    model, inputs = build("residual")
    analysis = planc.analyze(planc.trace(model, inputs))
    for policy in (Global(0.4), PerCost(0.4)):
        counts = policy(analysis, planc.score(analysis, model, criterion))
        assert counts == policy(analysis, planc.score(analysis, model, "l2"))


def test_raw_scores_need_no_positive_mean() -> None:
    model, inputs = build("residual")
    analysis = planc.analyze(planc.trace(model, inputs))
    raw = planc.score(analysis, model, Normalized(Magnitude(2), "none"))
    low = Scores(tuple(units - 100 for units in raw.units), "lower")
    assert Global(0.5)(analysis, raw) == Global(0.5)(analysis, low)
