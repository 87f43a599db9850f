"""Plans on state dicts: a mapping from names to tensors in, a new mapping out.

Names and shapes are all that is checked, for a state dict has no more. Buffers that are not
persistent may be missing, and so may all but one of the names of a tied tensor. Names that shared
memory share it in the result; entries that are not tensors are copied. The prefix of a wrapper
before all names is seen through, and kept.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
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
from planc.apply.tensors import cut_tensor
from planc.modules.tables import not_the_result, shapes_of
from planc.modules.wrappers import prefix_of
from planc.plan.fingerprint import check_state_dict, shape_difference, tensors_after
from planc.plan.plan import Plan, TensorSpec

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
    found = entries_of(plan.tensors, state)
    check_state_dict(plan, shapes_of(found.own))
    named = named_tensors(found.own)
    renewal = Renewal(plan.tensors, plan.cuts, named, cut_tensor)
    smaller = found.wrapped(rebuilt(found.own, renewal))
    if not keep_removed:
        return smaller
    with trainable_results():
        return smaller, collect_removed(plan, named)


def mask_state_dict(plan: Plan, state: State) -> dict[str, Any]:
    """The state in its full shapes, with zeros at every coordinate that the plan removes.

    Raises:
        StalePlan, AlreadyApplied: as for :func:`apply_state_dict`.
    """
    found = entries_of(plan.tensors, state)
    check_state_dict(plan, shapes_of(found.own))
    return found.wrapped(rebuilt(found.own, Masking(plan, named_tensors(found.own))))


def restore_state_dict(plan: Plan, smaller: State, removed: Removed) -> dict[str, Any]:
    """The state that ``apply_state_dict(plan, state, keep_removed=True)`` came from.

    Raises:
        StalePlan: the shapes are not those that the plan makes, or the removed values do not fit.
    """
    found = entries_of(plan.tensors, smaller)
    difference = shape_difference(tensors_after(plan.tensors, plan.cuts), shapes_of(found.own))
    if difference is not None:
        raise not_the_result(difference)
    restoration = Restoration(plan, named_tensors(found.own), removed)
    return found.wrapped(rebuilt(found.own, restoration))


@dataclass(frozen=True, slots=True)
class Entries:
    """The entries of a model in a state dict. A wrapper puts a prefix (``module.``, ``_orig_mod.``)
    before their names, and may have entries of its own.
    """

    state: State
    prefix: str
    own: State  # under the model's names

    def wrapped(self, result: dict[str, Any]) -> dict[str, Any]:
        """``result``, made of the model's own entries, under the names of the state dict."""
        if not self.prefix:
            return result
        wrapped: dict[str, Any] = OrderedDict() if isinstance(self.state, OrderedDict) else {}
        for name, value in self.state.items():
            mine = name.startswith(self.prefix)
            wrapped[name] = result[name[len(self.prefix) :]] if mine else copy.deepcopy(value)
        return wrapped


def entries_of(tensors: Iterable[TensorSpec], state: State) -> Entries:
    """The entries of the model that has the ``tensors``."""
    known = {name for spec in tensors for name in spec.names}
    prefix = prefix_of([name for name in state if isinstance(name, str)], known)
    if not prefix:
        return Entries(state, "", state)
    own = {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}
    return Entries(state, prefix, own)


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
