"""Element-wise sparsity: mask plans made, applied and restored, and what models carry of
torch.nn.utils.prune, baked in or turned into structured plans.

* :func:`select` chooses elements (:class:`PerTensor`, :class:`GlobalElements`, :class:`NofM`)
* :func:`apply` makes them zero, or sparse tensors of the others; :func:`restore` undoes it
* :func:`attach` makes a plan the masks of hooks, :func:`read` and :func:`bake` go back
* :func:`from_masks` turns structured masks into a :class:`planc.plan.Plan`, :func:`after` takes a
  mask plan to what a structured plan leaves
"""

from planc.masks.baking import bake
from planc.masks.choose import ElementCriterion, ElementMagnitude, RandomElements, select
from planc.masks.executor import Form, apply, restore
from planc.masks.hooks import attach, read
from planc.masks.policies import GlobalElements, MaskPolicy, NofM, PerTensor
from planc.masks.slicing import after
from planc.masks.structured import FromMasks, Refused, from_masks

__all__ = [
    "ElementCriterion",
    "ElementMagnitude",
    "Form",
    "FromMasks",
    "GlobalElements",
    "MaskPolicy",
    "NofM",
    "PerTensor",
    "RandomElements",
    "Refused",
    "after",
    "apply",
    "attach",
    "bake",
    "from_masks",
    "read",
    "restore",
    "select",
]
