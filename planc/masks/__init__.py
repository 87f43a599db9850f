"""Element-wise sparsity: make, apply and restore mask plans, and convert masks of
torch.nn.utils.prune.

* :func:`select` chooses elements (:class:`PerTensor`, :class:`GlobalElements`, :class:`NofM`)
* :func:`apply` sets them to zero or makes sparse tensors; :func:`restore` undoes it
* :func:`attach` installs a plan as the masks of pruning hooks; :func:`read` and :func:`bake`
  convert back
* :func:`from_masks` turns masks of whole units into a :class:`planc.plan.plan.Plan`; :func:`after`
  carries a mask plan over to the result of a structured plan
"""

from planc.masks.baking import bake
from planc.masks.choose import select
from planc.masks.criteria import ElementCriterion, ElementMagnitude, RandomElements
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
