"""Random masks for models, structured in part: what a from_masks must tell apart."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn.utils import prune

from planc.analysis import Analysis
from planc.modules.tables import tensors_of
from planc.plan.masks import MaskPlan, mask_plan


def covering(model: nn.Module, analysis: Analysis, seed: int) -> MaskPlan:
    """Masks that cover random units of random groups, in all members of some and in random ones of
    others, with a few single elements besides.
    """
    rng = np.random.default_rng(seed)
    tensors = tensors_of(model)
    specs = {spec.name: spec for spec in tensors}
    removed = {spec.name: np.zeros(spec.shape, dtype=bool) for spec in tensors}
    for group in analysis.groups:
        units = np.flatnonzero(rng.random(group.size) < rng.choice([0, 0.3, 0.6]))
        share = rng.choice([0.5, 0.8, 1.0])
        for member in group.members:
            if specs[member.tensor].kind == "buffer" or rng.random() > share:
                continue
            own, indices = member.expand()
            chosen = indices[np.isin(own, units)]
            where = [slice(None)] * len(specs[member.tensor].shape)
            if member.over is not None:
                where[member.over.dim] = slice(member.over.start, member.over.stop)
            view = removed[member.tensor][tuple(where)]
            np.moveaxis(view, member.dim, 0)[chosen] = True
    for spec in tensors:
        if spec.kind == "parameter" and rng.random() < 0.3:
            removed[spec.name] |= rng.random(spec.shape) < 0.1
    return mask_plan(tensors, removed)


def prune_all(model: nn.Module, amount: float = 0.3) -> nn.Module:
    """``model`` with a mask on every parameter of every module that prune can take, in place."""
    for module in list(model.modules()):
        for name in list(dict(module.named_parameters(recurse=False))):
            prune.l1_unstructured(module, name, amount)  # type: ignore[no-untyped-call]
    return model


def outputs_equal(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-9) -> bool:
    return bool((a - b).abs().max() <= tolerance * max(1.0, float(b.abs().max())))
