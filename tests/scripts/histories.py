"""Histories of Torch-Pruning on three large models, read as plans: the tensors of the two results.

    python -m tests.scripts.histories [resnet50 densenet121 vit_b_16]

Prints one line for each model and number of steps: the tensors that differ from those of
Torch-Pruning (none), the seconds of ``planc.from_history``, and the least confidence of
``planc.recover`` on the same pair. A last line is a history made without regard to heads.
"""

from __future__ import annotations

import sys
import time

import torch
from torch import nn
from torchvision import models

import planc
from planc.errors import PolicyError
from tests.support.peers import pruned

SIZES = {"resnet50": 64, "densenet121": 64, "vit_b_16": 224}
LAST = {"resnet50": "fc", "densenet121": "classifier", "vit_b_16": "heads.head"}


def main(names: list[str]) -> None:
    torch.manual_seed(0)
    for name in names or list(SIZES):
        model = models.get_model(name, weights=None).eval()
        images = torch.zeros(1, 3, SIZES[name], SIZES[name])
        heads = any(isinstance(part, nn.MultiheadAttention) for part in model.modules())
        for steps in (1, 2):
            _row(f"{name}, {steps} step{'s' * (steps > 1)}", name, model, images, steps, heads)
        if heads:
            _row(f"{name}, heads unknown", name, model, images, 1, False)


def _row(
    title: str, name: str, model: nn.Module, images: torch.Tensor, steps: int, heads: bool
) -> None:
    parts = {n: m for n, m in model.named_modules() if isinstance(m, nn.MultiheadAttention)}
    groups = {n: part.num_heads for n, part in parts.items()} if heads else {}
    smaller, history = pruned(model, LAST[name], images, steps, channel_groups=groups)
    start = time.perf_counter()
    try:
        plan = planc.from_history(model, images, history=history)
    except PolicyError as error:
        print(f"{title}: refused: {error}")
        return
    took = time.perf_counter() - start
    found, expected = planc.apply(plan, model).state_dict(), smaller.state_dict()
    differ = [n for n, tensor in expected.items() if not torch.equal(found[n], tensor)]
    start = time.perf_counter()
    recovered = planc.recover(model, smaller, images)
    same = [g.removed for g in recovered.plan.groups] == [g.removed for g in plan.groups]
    print(
        f"{title}: {len(expected)} tensors, {len(differ)} differ; {len(history)} records read in "
        f"{took:.1f} s; recovered in {time.perf_counter() - start:.1f} s, the same units: {same}, "
        f"confidence from {min(group.confidence for group in recovered.groups):.2f}"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
