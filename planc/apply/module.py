"""Plans on live modules: a plan and a model in, a new model of the same class out.

The model given is only read. The new one is a deep copy of it, with hooks, training mode and
buffer flags, in which tensors and structural attributes are replaced; gradients are not carried
over, for they belong to weights that are no more.
"""

from __future__ import annotations

from typing import Any, Literal, overload

import torch
from torch import nn

from planc.apply.matching import check_model, result_difference
from planc.apply.renewal import (
    Masking,
    Removed,
    Renewal,
    Restoration,
    collect_removed,
    storage_id,
    trainable_results,
)
from planc.apply.tensors import cut_tensor
from planc.errors import PlancError
from planc.modules.attributes import set_attributes
from planc.modules.copies import clone
from planc.modules.forgetting import forget_tensors
from planc.modules.held import held_objects
from planc.modules.tables import not_the_result, tensors_of
from planc.modules.tree import owned_tensors
from planc.plan.fingerprint import first_difference, tensors_after
from planc.plan.plan import AttributeChange, Cut, Plan, TensorSpec


@overload
def apply_module(
    plan: Plan, model: nn.Module, keep_removed: Literal[False] = False
) -> nn.Module: ...


@overload
def apply_module(
    plan: Plan, model: nn.Module, keep_removed: Literal[True]
) -> tuple[nn.Module, Removed]: ...


@overload
def apply_module(
    plan: Plan, model: nn.Module, keep_removed: bool
) -> nn.Module | tuple[nn.Module, Removed]: ...


def apply_module(
    plan: Plan, model: nn.Module, keep_removed: bool = False
) -> nn.Module | tuple[nn.Module, Removed]:
    """The model without what the plan removes; with ``keep_removed`` also what was removed.

    Raises:
        StalePlan: the plan was made for another model; names the first difference.
        AlreadyApplied: the model is what the plan makes of its source.
        MalformedFile: the plan asks for an attribute that no plan may change.
        PlancError: the class of the model does not let itself be copied.
    """
    check_model(plan, model)
    smaller = rebuilt(model, Renewal(plan.tensors, plan.cuts, named_tensors(model), cut_tensor))
    check_objects(model, smaller)
    set_attributes(smaller, plan.attributes)
    check_copy(model, smaller, tensors_after(plan.tensors, plan.cuts))
    if not keep_removed:
        return smaller
    with trainable_results():
        return smaller, collect_removed(plan, named_tensors(model))


def mask_module(plan: Plan, model: nn.Module) -> nn.Module:
    """The model in its full shape, with zeros at every coordinate that the plan removes.

    Raises:
        StalePlan, AlreadyApplied, PlancError: as for :func:`apply_module`.
    """
    check_model(plan, model)
    masked = rebuilt(model, Masking(plan, named_tensors(model)))
    check_copy(model, masked, plan.tensors)
    return masked


def restore_module(plan: Plan, smaller: nn.Module, removed: Removed) -> nn.Module:
    """The model that ``apply_module(plan, model, keep_removed=True)`` came from, bit for bit.

    A model that was trained meanwhile is restored with its new weights at the kept coordinates.

    Raises:
        StalePlan: the model is not one that the plan produces, or the removed values do not fit.
        PlancError: the class of the model does not let itself be copied.
    """
    difference = result_difference(plan, smaller)
    if difference is not None:
        raise not_the_result(difference)
    model = rebuilt(smaller, Restoration(plan, named_tensors(smaller), removed))
    back = [AttributeChange(c.module, c.name, c.after, c.before) for c in plan.attributes]
    check_objects(smaller, model)
    set_attributes(model, back)
    check_copy(smaller, model, plan.tensors)
    return model


def copy_module(model: nn.Module) -> nn.Module:
    """An equal model that shares no memory with ``model``; gradients are not carried over.

    Raises:
        PlancError: the class of the model does not let itself be copied.
    """
    tensors = tensors_of(model)
    nothing: dict[str, Cut] = {}
    copied = rebuilt(model, Renewal(tensors, nothing, named_tensors(model), cut_tensor))
    check_copy(model, copied, tensors)
    return copied


def named_tensors(model: nn.Module) -> list[tuple[str, torch.Tensor]]:
    return [(owned.names[0], owned.tensor) for owned in owned_tensors(model)]


def rebuilt(model: nn.Module, renewal: Renewal[Any]) -> nn.Module:
    with trainable_results():
        copied = clone(model, renewal, apart=False)
        forget_tensors(copied)
        return copied


def check_objects(model: nn.Module, copied: nn.Module) -> None:
    """What the copy holds of plain data is its own: to change it must not change the original."""
    old = {id(held) for _, _, held in held_objects(model)}
    for path, name, held in held_objects(copied):
        if id(held) in old:
            full = f"{path}.{name}" if path else name
            raise PlancError(
                f"{type(model).__name__} does not copy itself truly: {full} ({type(held).__name__})"
                " of the copy is the original's; see to its __deepcopy__"
            )


def check_copy(model: nn.Module, copied: nn.Module, expected: tuple[TensorSpec, ...]) -> None:
    """A class with a ``__deepcopy__`` of its own may return anything; only a true copy leaves."""
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
