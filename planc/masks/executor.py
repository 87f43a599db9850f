"""Mask plans on models and state dicts: a plan and a target in, a new target out, and back.

The target given is only read. Removed elements become zeros, or are left out of sparse tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, Literal, TypeVar, cast, get_args, overload

import torch
from torch import nn

from planc.apply import removed_given
from planc.apply.module import check_copy, named_tensors
from planc.apply.module import rebuilt as rebuilt_module
from planc.apply.renewal import Named, Removed, Renewal, memory_of, trainable_results
from planc.apply.state_dict import Entries, entries_of
from planc.apply.state_dict import named_tensors as named_entries
from planc.apply.state_dict import rebuilt as rebuilt_state
from planc.errors import PlancError
from planc.masks.elements import Layout, put_back, sparse, taken, zeroed, zeros
from planc.modules.tables import shapes_of, tensors_of
from planc.modules.wrappers import bare
from planc.plan.arguments import a_flag, options, takes
from planc.plan.fingerprint import shape_difference
from planc.plan.masks import MaskPlan, TensorMask, check_masked, masks_given, stale_masks, unpacked
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
    """A new module or state dict without the elements that the plan removes.

    Args:
        masks: the mask plan, made for this model.
        target: an ``nn.Module``, or a mapping from names to tensors; it is left as it was and
            shares no memory with the result.
        form: "zeros" writes zeros. The others make each masked *matrix* sparse, and write zeros
            elsewhere: "csr" (``nn.Linear`` runs with it) and "coo" on any device,
            "semi-structured" for 2:4 masks on CUDA. Training fills zeros again, and may not take
            sparse tensors: to train, see :func:`planc.masks.attach`.
        keep_removed: return also the removed values, for :func:`restore`.

    Raises:
        StalePlan: the plan was made for other tensors; names the first difference.
        PlancError: the target is neither a module nor a mapping, or cannot be copied, or a form
            cannot hold a tensor; says why.
    """
    change = _change(masks, form)
    result: Any
    target = bare(target)
    if isinstance(target, nn.Module):
        tensors = tensors_of(target)
        check_masked(masks, tensors)
        named = named_tensors(target)
        result = rebuilt_module(target, Renewal(masks.tensors, masks.by_name, named, change))
        check_copy(target, result, tensors)
    elif isinstance(target, Mapping):
        found = _checked_state(masks, target)
        named = named_entries(found.own)
        renewal = Renewal(masks.tensors, masks.by_name, named, change)
        result = found.wrapped(rebuilt_state(found.own, renewal))
    else:
        raise _not_a_target(target)
    if not keep_removed:
        return cast("Target", result)
    return cast("Target", result), _removed(masks, named, form)


@takes(masks=masks_given, removed=removed_given)
def restore(masks: MaskPlan, masked: Target, removed: Removed) -> Target:
    """The original of ``masked, removed = apply(masks, original, keep_removed=True)``, bit for bit.

    Other values than the removed ones are those of ``masked``, trained meanwhile or not.

    Raises:
        StalePlan: ``masked`` or ``removed`` do not belong to the plan.
        PlancError: ``masked`` is neither a module nor a mapping, or cannot be copied.
    """
    restored: Any
    masked = bare(masked)
    if isinstance(masked, nn.Module):
        check_masked(masks, tensors_of(masked))
        restored = rebuilt_module(masked, _Restoration(masks, named_tensors(masked), removed))
        check_copy(masked, restored, masks.tensors)
    elif isinstance(masked, Mapping):
        found = _checked_state(masks, masked)
        restoration = _Restoration(masks, named_entries(found.own), removed)
        restored = found.wrapped(rebuilt_state(found.own, restoration))
    else:
        raise _not_a_target(masked)
    return cast("Target", restored)


class _Restoration(Renewal[TensorMask]):
    """A renewal with the values that were removed."""

    def __init__(self, masks: MaskPlan, named: Named, removed: Removed) -> None:
        super().__init__(masks.tensors, masks.by_name, named, lambda tensor, mask: tensor)
        self._removed = removed

    def _changed(
        self, tensor: torch.Tensor, change: TensorMask, name: str, spec: TensorSpec
    ) -> torch.Tensor:
        values = self._removed.of((name, *spec.names))
        elements = unpacked(change.removed, spec.shape)
        key = (memory_of(tensor), change, id(values))
        return self._once(key, lambda: put_back(tensor, elements, values))


def _change(masks: MaskPlan, form: Form) -> Callable[[torch.Tensor, TensorMask], torch.Tensor]:
    def change(tensor: torch.Tensor, mask: TensorMask) -> torch.Tensor:
        elements = unpacked(mask.removed, masks.specs[mask.tensor].shape)
        if form == "zeros" or tensor.dim() != 2:
            return zeroed(tensor, elements)
        layout: Layout = form
        return sparse(tensor, elements, layout, mask.tensor)

    return change


def _removed(masks: MaskPlan, named: Named, form: Form) -> Removed:
    """The removed values of each masked tensor, under the names it is given with."""
    values: dict[str, torch.Tensor] = {}
    made: dict[Hashable, torch.Tensor] = {}
    with trainable_results():
        for name, tensor in named:
            spec = masks.specs.get(name)
            mask = None if spec is None else masks.by_name.get(spec.name)
            if spec is None or mask is None:
                continue
            key = (memory_of(tensor), mask)
            if key not in made:
                elements = unpacked(mask.removed, spec.shape)
                if form == "semi-structured" and tensor.dim() == 2:
                    elements |= zeros(tensor)
                made[key] = taken(tensor, elements)
            values[name] = made[key]
    return Removed(values)


def _checked_state(masks: MaskPlan, state: Mapping[str, Any]) -> Entries:
    found = entries_of(masks.tensors, state)
    difference = shape_difference(masks.tensors, shapes_of(found.own))
    if difference is not None:
        raise stale_masks(difference)
    return found


def _not_a_target(target: object) -> PlancError:
    return PlancError(
        "a mask plan applies to an nn.Module or to a mapping from names to tensors, not to "
        f"{type(target).__name__}: pass the model, or its state_dict()"
    )
