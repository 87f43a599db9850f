"""Mask plans after structured pruning: translate a mask plan to the smaller model."""

from __future__ import annotations

import torch

from planc.apply.tensors import cut_tensor
from planc.plan.arguments import a_plan, takes
from planc.plan.depth import refuse_blocks
from planc.plan.fingerprint import tensors_after
from planc.plan.masks import MaskPlan, check_masked, mask_plan, masks_given
from planc.plan.plan import Plan


@takes(plan=a_plan, masks=masks_given)
def after(plan: Plan, masks: MaskPlan) -> MaskPlan:
    """Return the mask plan for ``planc.apply(plan, model)`` corresponding to ``masks`` for
    ``model``.

    Masked elements of removed units are dropped. Applying the two plans in either order gives the
    same result.

    Args:
        plan: the structured plan.
        masks: a mask plan for the same original model.

    Raises:
        StalePlan: the two were made for different models; names the first difference.
    """
    check_masked(masks, plan.tensors)
    left = {}
    for mask in masks.masks:
        name = mask.tensor
        elements, cut = masks.elements(name), plan.cuts.get(masks.specs[name].name)
        whole = torch.from_numpy(elements)
        left[name] = (whole if cut is None else cut_tensor(whole, cut)).numpy()
    refuse_blocks(plan, "masks after a plan", "make the masks for the pruned model")
    return mask_plan(tensors_after(plan.tensors, plan.cuts), left, masks.provenance)
