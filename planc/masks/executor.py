"""Mask plans on models and state dicts: build the masked or restored copy.

The target is only read. Removed elements become zeros, or are omitted from sparse tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar, cast, get_args, overload

import torch
from torch import nn

from planc.apply import removed_given
from planc.apply.module import check_copy, named_tensors, rebuilt
from planc.apply.renewal import COPY, Change, Changes, Removed, Renewal, collected
from planc.apply.state_dict import entries_of
from planc.errors import PlancError
from planc.masks.elements import put_back, sparse, taken, zeroed, zeros
from planc.modules.tables import shapes_of, tensors_of
from planc.modules.wrappers import bare
from planc.plan.arguments import a_flag, options, takes
from planc.plan.fingerprint import shape_difference
from planc.plan.masks import MaskPlan, check_masked, masks_given, stale_masks
from planc.plan.plan import TensorSpec

Target = TypeVar("Target", bound="nn.Module | Mapping[str, Any]")
Form = Literal["zeros", "csr", "coo", "semi-structured"]


@overload
def apply(
    masks: MaskPlan, target: Target, *, form: Form = "zeros", keep_removed: Literal[False] = False
) -> Target: ...


@overload
def apply(
    masks: MaskPlan, target: Target, *, form: Form = "zeros", keep_removed: Literal[True]
) -> tuple[Target, Removed]: ...


@takes(masks=masks_given, form=options(*get_args(Form)), keep_removed=a_flag)
def apply(
    masks: MaskPlan, target: Target, *, form: Form = "zeros", keep_removed: bool = False
) -> Target | tuple[Target, Removed]:
    """Return a new module or state dict without the elements removed by the plan.

    Args:
        masks: the mask plan, made for this model.
        target: an ``nn.Module``, or a mapping from names to tensors; it is unchanged and shares no
            memory with the result.
        form: "zeros" writes zeros. The other forms make each masked matrix sparse, and write zeros
            in tensors of other ranks: "csr" (accepted by ``nn.Linear``) and "coo" on any device,
            "semi-structured" for 2:4 masks on CUDA. Training overwrites the zeros and may not
            support sparse tensors; to train, see :func:`planc.masks.attach`.
        keep_removed: return also the removed values, for :func:`restore`.

    Returns:
        The new target, or ``(target, removed)`` with ``keep_removed=True``.

    Raises:
        StalePlan: the plan was made for other tensors; names the first difference.
        PlancError: the target is neither a module nor a mapping or cannot be copied, or a form
            cannot hold a tensor; says why.
    """
    target = bare(target)
    result = _renewed(masks, target, _masking(masks, form))
    return (result, _removed(masks, target, form)) if keep_removed else result


@takes(masks=masks_given, removed=removed_given)
def restore(masks: MaskPlan, masked: Target, removed: Removed) -> Target:
    """Return the exact original of ``masked, removed = apply(masks, original, keep_removed=True)``.

    Values other than the removed ones come from ``masked``, trained in between or not.

    Args:
        masks: the mask plan given to :func:`apply`.
        masked: the masked module or state dict.
        removed: the removed values.

    Raises:
        StalePlan: ``masked`` or ``removed`` do not belong to the plan.
        PlancError: ``masked`` is neither a module nor a mapping, or cannot be copied.
    """
    masked = bare(masked)
    return _renewed(masks, masked, _restoring(masks, removed))


def _renewed(masks: MaskPlan, target: Target, changes: Changes) -> Target:
    result: Any
    if isinstance(target, nn.Module):
        check_masked(masks, tensors_of(target))
        result = rebuilt(target, Renewal(masks.tensors, named_tensors(target), changes))
        check_copy(target, result, masks.tensors)
    elif isinstance(target, Mapping):
        found = entries_of(masks.tensors, target)
        difference = shape_difference(masks.tensors, shapes_of(found.own))
        if difference is not None:
            raise stale_masks(difference)
        result = found.renewed(masks.tensors, changes)
    else:
        raise PlancError(
            "a mask plan applies to an nn.Module or to a mapping from names to tensors, not to "
            f"{type(target).__name__}: pass the model, or its state_dict()"
        )
    return cast("Target", result)


def _masking(masks: MaskPlan, form: Form) -> Changes:
    def change(name: str, spec: TensorSpec) -> Change:
        mask = masks.by_name.get(spec.name)
        if mask is None:
            return COPY

        def make(tensor: torch.Tensor) -> torch.Tensor:
            elements = masks.elements(name)
            if form == "zeros" or tensor.dim() != 2:
                return zeroed(tensor, elements)
            return sparse(tensor, elements, form, spec.name)

        return Change(mask, make)

    return change


def _restoring(masks: MaskPlan, removed: Removed) -> Changes:
    def change(name: str, spec: TensorSpec) -> Change:
        mask = masks.by_name.get(spec.name)
        if mask is None:
            return COPY
        values = removed.of((name, *spec.names))
        return Change(
            (mask, id(values)), lambda tensor: put_back(tensor, masks.elements(name), values)
        )

    return change


def _removed(masks: MaskPlan, target: nn.Module | Mapping[str, Any], form: Form) -> Removed:
    """Return the removed values of each masked tensor, under all given names."""

    def change(name: str, spec: TensorSpec) -> Change | None:
        mask = masks.by_name.get(spec.name)

        def make(tensor: torch.Tensor) -> torch.Tensor:
            elements = masks.elements(name)
            if form == "semi-structured" and tensor.dim() == 2:
                elements = elements | zeros(tensor)
            return taken(tensor, elements)

        return None if mask is None else Change(mask, make)

    if isinstance(target, nn.Module):
        return collected(masks.specs, named_tensors(target), change)
    return collected(masks.specs, entries_of(masks.tensors, target).named, change)
