"""Conversion between mask plans and the masks of torch.nn.utils.prune.

A model with pruning hooks keeps its zeros in training; :func:`planc.bake` folds them in.
"""

from __future__ import annotations

from typing import TypeVar, cast

import torch
from torch import nn
from torch.nn.utils import prune

from planc.apply.module import copy_module
from planc.apply.renewal import trainable_results
from planc.errors import PlancError
from planc.masks.baking import bake
from planc.modules.given import module
from planc.modules.hooks import Masked, masked_tensors, refresh
from planc.modules.tables import tensors_of
from planc.plan.arguments import takes
from planc.plan.masks import Elements, MaskPlan, check_masked, mask_plan, masks_given

Model = TypeVar("Model", bound=nn.Module)


@takes(masks=masks_given, model=module)
def attach(masks: MaskPlan, model: Model) -> Model:
    """Return a new model with the plan as masks of torch.nn.utils.prune. ``model`` is unchanged.

    The hooks keep masked elements at zero in training. If a module reads the weight of a part
    without calling it, as ``nn.MultiheadAttention`` reads ``out_proj.weight``, the masks of its
    parts are applied before each of its runs. An existing mask of a tensor stays in force beside
    the new one.

    Args:
        masks: the mask plan, made for this model.
        model: the module.

    Raises:
        StalePlan: the plan was made for other tensors; names the first difference.
        PlancError: a buffer is to be masked, which prune does not support, or the model cannot be
            copied.
    """
    check_masked(masks, tensors_of(model))
    copied = copy_module(model)
    hooked = {masked.original: masked for masked in masked_tensors(copied)}
    for mask in masks.masks:
        spec = masks.specs[mask.tensor]
        if spec.kind != "parameter":
            raise PlancError(
                f"{spec.name} is a buffer, torch.nn.utils.prune masks parameters: apply the mask "
                "plan with planc.masks.apply, or leave the buffer out"
            )
        kept = torch.from_numpy(~masks.elements(spec.name))
        for name in spec.names:
            path, _, own = name.rpartition(".")
            module = copied.get_submodule(path)
            name_there = hooked[name].name if name in hooked else own
            device = module._parameters[own].device  # type: ignore[union-attr]
            with torch.inference_mode(False), torch.enable_grad():
                prune.custom_from_mask(module, name_there, kept.to(device))  # type: ignore[no-untyped-call]
            refresh(copied, path)
    return cast("Model", copied)


@takes(model=module)
def read(model: nn.Module) -> MaskPlan:
    """Return the masks of torch.nn.utils.prune in ``model`` as a mask plan for ``bake(model)``.

    Args:
        model: a module, with or without masks.

    Raises:
        PlancError: a hook's parameter or mask is missing.
    """
    baked = tensors_of(bake(model))
    removed = {masked.full_name: hidden(masked) for masked in masked_tensors(model)}
    return mask_plan(baked, removed)


def hidden(masked: Masked) -> Elements:
    """Return the elements set to zero by a mask.

    Raises:
        PlancError: the mask is on the meta device, or has values that are not finite.
    """
    with trainable_results():
        masked.compute()  # raises if a tensor is missing
        mask = masked.module._buffers[f"{masked.name}_mask"]
        assert mask is not None
        if mask.is_meta:
            raise PlancError(f"{masked.mask} is on the meta device: load the weights first")
        if not bool(mask.isfinite().all()):
            raise PlancError(f"{masked.mask} has values that are NaN or inf: prune it again")
        elements: Elements = (mask == 0).cpu().numpy()
    return elements
