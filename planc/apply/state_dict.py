"""Plans on state dicts: a mapping from names to tensors in, a new mapping out.

Names and shapes are all that is checked, for a state dict has no more. Buffers that are not
persistent may be missing, and so may all but one of the names of a tied tensor. Names that shared
memory share it in the result; entries that are not tensors are copied.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Literal, overload

import torch

from planc.apply.renewal import (
    Masking,
    Removed,
    Renewal,
    Restoration,
    collect_removed,
    trainable_results,
)
from planc.apply.source import not_the_result, shapes_of
from planc.apply.tensors import cut_tensor
from planc.fingerprint import check_state_dict, shape_difference, tensors_after
from planc.plan import Plan

State = Mapping[str, Any]


@overload
def apply_state_dict(
    plan: Plan, state: State, keep_removed: Literal[False] = False
) -> dict[str, Any]: ...


@overload
def apply_state_dict(
    plan: Plan, state: State, keep_removed: Literal[True]
) -> tuple[dict[str, Any], Removed]: ...


@overload
def apply_state_dict(
    plan: Plan, state: State, keep_removed: bool
) -> dict[str, Any] | tuple[dict[str, Any], Removed]: ...


def apply_state_dict(
    plan: Plan, state: State, keep_removed: bool = False
) -> dict[str, Any] | tuple[dict[str, Any], Removed]:
    """The state without what the plan removes; with ``keep_removed`` also what was removed.

    Raises:
        StalePlan: the plan was made for other tensors; names the first difference.
        AlreadyApplied: the shapes are those that the plan makes.
    """
    check_state_dict(plan, shapes_of(state))
    smaller = rebuilt(state, Renewal(plan.tensors, plan.cuts, named_tensors(state), cut_tensor))
    if not keep_removed:
        return smaller
    with trainable_results():
        return smaller, collect_removed(plan, named_tensors(state))


def mask_state_dict(plan: Plan, state: State) -> dict[str, Any]:
    """The state in its full shapes, with zeros at every coordinate that the plan removes.

    Raises:
        StalePlan, AlreadyApplied: as for :func:`apply_state_dict`.
    """
    check_state_dict(plan, shapes_of(state))
    return rebuilt(state, Masking(plan, named_tensors(state)))


def restore_state_dict(plan: Plan, smaller: State, removed: Removed) -> dict[str, Any]:
    """The state that ``apply_state_dict(plan, state, keep_removed=True)`` came from.

    Raises:
        StalePlan: the shapes are not those that the plan makes, or the removed values do not fit.
    """
    difference = shape_difference(tensors_after(plan.tensors, plan.cuts), shapes_of(smaller))
    if difference is not None:
        raise not_the_result(difference)
    return rebuilt(smaller, Restoration(plan, named_tensors(smaller), removed))


def named_tensors(state: State) -> list[tuple[str, torch.Tensor]]:
    return [(name, value) for name, value in state.items() if isinstance(value, torch.Tensor)]


def rebuilt(state: State, renewal: Renewal[Any]) -> dict[str, Any]:
    result: dict[str, Any] = OrderedDict() if isinstance(state, OrderedDict) else {}
    with trainable_results():
        for name, value in state.items():
            tensor = isinstance(value, torch.Tensor)
            result[name] = renewal.renew(value, name) if tensor else copy.deepcopy(value)
    metadata = getattr(state, "_metadata", None)  # versions of the modules, for load_state_dict
    if metadata is not None and isinstance(result, OrderedDict):
        vars(result)["_metadata"] = copy.deepcopy(metadata)
    return result
