"""Plans on live modules: build the pruned, masked or restored copy of a module.

The module given is only read. The new one is a deep copy of the same class, with hooks, training
mode and buffer flags, whose tensors and structural attributes are replaced. Gradients are not
copied, because they belong to the old weights.
"""

from __future__ import annotations

import torch
from torch import nn

from planc.apply.depth import put_back, take_out
from planc.apply.matching import check_model, result_difference
from planc.apply.renewal import (
    Changes,
    Removed,
    Renewal,
    cutting,
    masking,
    restoring,
    storage_id,
    trainable_results,
)
from planc.errors import PlancError
from planc.modules.attributes import set_attributes
from planc.modules.copies import clone
from planc.modules.forgetting import forget_tensors
from planc.modules.held import held_objects
from planc.modules.tables import not_the_result, tensors_of
from planc.modules.tree import owned_tensors
from planc.plan.depth import Depth, depth_of
from planc.plan.fingerprint import first_difference, result_tensors
from planc.plan.plan import AttributeChange, Plan, TensorSpec


def apply_module(plan: Plan, model: nn.Module) -> tuple[nn.Module, dict[str, nn.Module]]:
    """Return the model without the removed units, and the removed blocks by their paths, without
    their tensors.

    Raises:
        StalePlan: the plan was made for another model; names the first difference.
        AlreadyApplied: the model is already the result of the plan.
        MalformedFile: the plan changes a forbidden attribute.
        PlancError: the model cannot be copied.
    """
    check_model(plan, model)
    depth = depth_of(plan)
    smaller = rebuilt(model, _renewal(plan, model, cutting(plan.cuts, depth)))
    check_objects(model, smaller)
    set_attributes(smaller, plan.attributes, depth.shortened)
    blocks = take_out(smaller, depth)
    check_copy(model, smaller, result_tensors(plan))
    return smaller, blocks


def mask_module(plan: Plan, model: nn.Module) -> nn.Module:
    """Return the model in its full shapes, with zeros at every removed coordinate.

    Raises:
        StalePlan, AlreadyApplied, PlancError: as for :func:`apply_module`.
    """
    check_model(plan, model)
    masked = rebuilt(model, _renewal(plan, model, masking(plan)))
    check_copy(model, masked, plan.tensors)
    return masked


def restore_module(plan: Plan, smaller: nn.Module, removed: Removed) -> nn.Module:
    """Return the source of ``apply_module(plan, model)``, bit for bit.

    A model trained in between keeps its new weights at the kept coordinates.

    Raises:
        StalePlan: the model is not a result of the plan, or the removed values do not fit.
        PlancError: the model cannot be copied.
    """
    difference = result_difference(plan, smaller)
    if difference is not None:
        raise not_the_result(difference)
    depth = depth_of(plan)
    model = _with_blocks(plan, depth, smaller, removed)
    check_objects(smaller, model)
    back = [AttributeChange(c.module, c.name, c.after, c.before) for c in plan.attributes]
    set_attributes(model, back, lambda before, after: depth.shortened(after, before))
    check_copy(smaller, model, plan.tensors)
    return model


def _with_blocks(plan: Plan, depth: Depth, smaller: nn.Module, removed: Removed) -> nn.Module:
    """Return a copy with the removed values and blocks."""
    named = [(depth.original(name), tensor) for name, tensor in named_tensors(smaller)]
    if not depth:
        return rebuilt(smaller, Renewal(plan.tensors, named, restoring(plan, removed)))
    for path, block in removed.blocks.items():
        named += [(f"{path}.{name}", tensor) for name, tensor in named_tensors(block)]
    # copied together: blocks hold objects, such as a configuration, in common with the model
    together = nn.ModuleList([smaller, *removed.blocks.values()])
    copied = rebuilt(together, Renewal(plan.tensors, named, restoring(plan, removed)))
    model, *blocks = copied.children()
    put_back(model, depth, dict(zip(removed.blocks, blocks, strict=True)))
    return model


def copy_module(model: nn.Module) -> nn.Module:
    """Return an equal model without memory shared with ``model``; gradients are not copied.

    Raises:
        PlancError: the model cannot be copied.
    """
    tensors = tensors_of(model)
    copied = rebuilt(model, Renewal(tensors, named_tensors(model), cutting({})))
    check_copy(model, copied, tensors)
    return copied


def _renewal(plan: Plan, model: nn.Module, changes: Changes) -> Renewal:
    return Renewal(plan.tensors, named_tensors(model), changes)


def named_tensors(model: nn.Module) -> list[tuple[str, torch.Tensor]]:
    return [(owned.names[0], owned.tensor) for owned in owned_tensors(model)]


def rebuilt(model: nn.Module, renewal: Renewal) -> nn.Module:
    with trainable_results():
        copied = clone(model, renewal, apart=False)
        forget_tensors(copied)
        return copied


def check_objects(model: nn.Module, copied: nn.Module) -> None:
    """Check the copy's plain-data objects: a change to one must not change the original."""
    old = {id(held) for _, _, held in held_objects(model)}
    for path, name, held in held_objects(copied):
        if id(held) in old:
            full = f"{path}.{name}" if path else name
            raise PlancError(
                f"{type(model).__name__} does not copy itself truly: {full} ({type(held).__name__})"
                " of the copy is the original's; see to its __deepcopy__"
            )


def check_copy(model: nn.Module, copied: nn.Module, expected: tuple[TensorSpec, ...]) -> None:
    """Check a copy, because a class with its own ``__deepcopy__`` may return anything."""
    advice = "see to its __deepcopy__, or apply the plan to its state_dict()"
    difference = first_difference(expected, None, tensors_of(copied))
    if difference is None:
        old = {storage_id(owned.tensor) for owned in owned_tensors(model)}
        for owned in owned_tensors(copied):
            if storage_id(owned.tensor) in old:
                difference = f"{owned.names[0]}: expected a copy, found the original"
    if difference is not None:
        raise PlancError(
            f"{type(model).__name__} does not copy itself truly: {difference}; {advice}"
        )
