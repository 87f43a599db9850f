"""Your own criterion and policy: both are pure functions.

python examples/own_criterion.py
"""

from dataclasses import dataclass

import numpy as np
import torch
from torchvision.models import mobilenet_v3_small

import planc
from planc.analysis import Analysis
from planc.criteria import Magnitude, Weights
from planc.policy import Global, Keep, Rounded


@dataclass(frozen=True)
class Relative:
    """Magnitude, relative to the largest unit of the group."""

    def __str__(self) -> str:
        return "relative l2"

    def __call__(self, analysis: Analysis, weights: Weights) -> tuple[np.ndarray, ...]:
        return tuple(units / units.max() for units in Magnitude(2)(analysis, weights))


torch.manual_seed(0)
model = mobilenet_v3_small().eval()
image = torch.randn(1, 3, 224, 224)

# one ranking over all groups, dimensions in multiples of eight, the classifier's input untouched
policy = Keep(Rounded(Global(0.4), to=8), ("classifier.0",))
plan = planc.compile(model, image, criterion=Relative(), policy=policy)
print(plan.provenance[0].criterion, "|", plan.provenance[0].policy)
for group in plan.groups:
    print(f"{group.name:40} keeps {group.kept:4} of {group.size}")
smaller = planc.apply(plan, model)
print(planc.verify(plan, model, smaller, image))
