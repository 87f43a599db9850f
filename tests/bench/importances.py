"""planc's criteria beside Torch-Pruning's importances: do they rank the units of a group alike?

    python -m tests.bench.importances [MODEL ...]

Both score the same randomised torchvision model, with the gradients of one batch where they need
any. A group of Torch-Pruning is compared with the group of planc that has all output channels of
its root layer as units. Each row is one criterion under the definition of Torch-Pruning, which
counts less than what leaves with a unit: no depthwise convolutions, and without the biases, or the
batch norms, as the row says. planc is composed to count the same. Where a channel is flattened
into many features, each of them is a member of its own there and all are one here, so ``max`` and
what is squared per member differ (the last convolution of vgg). Its ``first`` member is the root,
planc's the first one in the model: only groups where these are one are compared.

``groups`` is how many were compared, ``least`` and ``mean`` Spearman's rank correlation over them,
``below 1`` how many rank any two units differently.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch_pruning as tp
from scipy.stats import spearmanr
from torch import nn

import planc
from planc.criteria import (
    Additive,
    BatchNormScale,
    Criterion,
    Importance,
    Lamp,
    Magnitude,
    Members,
    OptimalBrainDamage,
    Reduced,
    Taylor,
    Weights,
)
from planc.criteria.members import Values
from planc.criteria.sources import Sources
from planc.ir.graph import Tensor
from tests.zoo import torchvision as zoo


@dataclass(frozen=True)
class Of(Additive):
    """A criterion by single coordinates that counts only some of the parameters."""

    inner: Additive
    counts: Callable[[Tensor], bool]

    def __str__(self) -> str:
        return f"{self.inner}, in part"

    @property
    def needs(self) -> tuple[str, ...]:
        """What the whole criterion needs."""
        return self.inner.needs

    def element(self, sources: Sources, tensor: Tensor) -> torch.Tensor | None:
        """That of the whole criterion, for parameters that count."""
        return self.inner.element(sources, tensor) if self.counts(tensor) else None

    def finish(self, sums: Values) -> Values:
        """As the whole criterion."""
        return self.inner.finish(sums)


@dataclass(frozen=True)
class OfMembers:
    """An importance of single members that counts only some of the parameters."""

    inner: Importance
    counts: Callable[[Tensor], bool]

    @property
    def needs(self) -> tuple[str, ...]:
        """What the whole one needs."""
        return getattr(self.inner, "needs", ())

    def members(
        self, analysis: planc.analysis.Analysis, weights: Weights, statistics: Any = None
    ) -> Members:
        """Those of the whole one that leave from parameters that count."""
        found, places = self.inner.members(analysis, weights, statistics), analysis.places
        of_pairs = [analysis.graph.tensors[places.places[at].tensor] for at in places.pairs.place]
        told = np.array([self.counts(tensor) for tensor in of_pairs], dtype=bool)
        return Members(analysis, found.unit[told], found.values[told])


def everything(tensor: Tensor) -> bool:
    """All but depthwise convolutions."""
    return not (len(tensor.shape) == 4 and tensor.shape[1] == 1)


def weights(tensor: Tensor) -> bool:
    """All of that but biases."""
    return everything(tensor) and not tensor.name.endswith("bias")


def matrices(tensor: Tensor) -> bool:
    """Weights of convolutions and linear layers among them."""
    return everything(tensor) and len(tensor.shape) > 1


def pairs() -> Mapping[str, tuple[Any, Criterion]]:
    """Importances of Torch-Pruning and the criteria of planc that are defined alike."""
    unscaled: dict[str, Any] = {"normalizer": None}
    magnitude, taylor = tp.importance.GroupMagnitudeImportance, tp.importance.GroupTaylorImportance
    return {
        "magnitude, sum": (
            magnitude(p=2, group_reduction="sum", bias=True, **unscaled),
            Of(Magnitude(2), everything),
        ),
        "magnitude, max, no biases": (
            magnitude(p=2, group_reduction="max", **unscaled),
            Reduced(Of(Magnitude(2), weights), "max"),
        ),
        "l1, first member": (
            magnitude(p=1, group_reduction="first", **unscaled),
            Reduced(Of(Magnitude(1), weights), "first"),
        ),
        "batch norm scale": (tp.importance.BNScaleImportance(), BatchNormScale()),
        "lamp": (
            tp.importance.LAMPImportance(group_reduction="sum", bias=True),
            Lamp(Of(Magnitude(2), everything)),
        ),
        "taylor per element, matrices": (
            taylor(group_reduction="sum", **unscaled),
            Of(Taylor("element", 1), matrices),
        ),
        "taylor per unit, matrices": (
            taylor(group_reduction="sum", multivariable=True, **unscaled),
            Reduced(OfMembers(Taylor("unit", 1), matrices), "sum"),
        ),
        "hessian, no biases": (
            tp.importance.GroupHessianImportance(group_reduction="sum", **unscaled),
            Of(OptimalBrainDamage(), weights),
        ),
    }


def main() -> int:
    """Runs the comparison and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "models", nargs="*", default=["resnet18", "vgg11_bn", "mobilenet_v2", "densenet121"]
    )
    print("| model | criterion | groups | least | mean | below 1 |")
    print("| --- | --- | ---: | ---: | ---: | ---: |", flush=True)
    torch.set_num_threads(1)
    for name in parser.parse_args().models:
        for criterion, found in compare(name).items():
            cells = f"{len(found)} | {min(found):.6f} | {np.mean(found):.6f}"
            below = sum(value < 1 - 1e-12 for value in found)
            print(f"| {name} | {criterion} | {cells} | {below} |", flush=True)
    return 0


def compare(name: str) -> dict[str, list[float]]:
    """For each criterion the rank correlation in each group."""
    model, images = zoo.build(name), zoo.example_input(name, seed=1)

    def loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        return model(batch).square().mean()

    analysis = planc.analyze(planc.trace(model, images))
    statistics = planc.calibrate(
        model, [images], ["taylor_unit", Taylor("element", 1), "obd"], loss
    )
    model.requires_grad_(True)
    loss(model, images).backward()
    last = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
    graph = tp.DependencyGraph().build_dependency(model, images)
    groups = list(graph.get_all_groups(ignored_layers=[last]))
    paths = {module: path for path, module in model.named_modules()}
    result: dict[str, list[float]] = {}
    for criterion, (importance, own) in pairs().items():
        if isinstance(importance, tp.importance.GroupHessianImportance):
            importance.accumulate_grad(model)  # last, for it overwrites the gradients
        scores = own_scores(analysis, model, own, statistics)
        for group in groups:
            root = f"{paths[group[0].dep.target.module]}.weight"
            ours = matching(analysis, root, scores, first="first" in criterion)
            theirs = None if ours is None else importance(group)
            if ours is not None and theirs is not None and len(ours) == len(theirs) > 1:
                ranks = spearmanr(ours, theirs.double().numpy()).statistic
                result.setdefault(criterion, []).append(float(ranks))
    return result


def own_scores(
    analysis: planc.analysis.Analysis, model: nn.Module, criterion: Criterion, statistics: Any
) -> list[np.ndarray | None]:
    """planc's scores of each group, None where the criterion has nothing to say."""
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    needs = getattr(criterion, "needs", ())
    return list(criterion(analysis, named, *([statistics] if needs else [])))  # type: ignore[call-arg]


def matching(
    analysis: planc.analysis.Analysis, weight: str, scores: list[np.ndarray | None], first: bool
) -> np.ndarray | None:
    """The scores of the output channels of a weight, in order, if they are one group's units (and
    the weight its ``first`` member).
    """
    for group, own in zip(analysis.groups, scores, strict=True):
        for member in group.members[:1] if first else group.members:
            if (member.tensor, member.dim, member.over) == (weight, 0, None) and own is not None:
                units, indices = member.expand()
                if len(units) == analysis.graph.tensor(weight).shape[0]:
                    return own[units[np.argsort(indices)]]
    return None


if __name__ == "__main__":
    sys.exit(main())
