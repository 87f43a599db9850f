"""Plans on state dicts: build the pruned, masked or restored copy of a mapping from names to
tensors.

Only names and shapes are checked, since a state dict has nothing more. Non-persistent buffers may
be missing, and so may all but one name of a tied tensor. Names with shared memory share it in the
result; other entries are copied. The name prefix of a wrapper is recognised and kept.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from planc.apply.renewal import (
    Changes,
    Removed,
    Renewal,
    cutting,
    masking,
    restoring,
    trainable_results,
)
from planc.modules.tables import not_the_result, shapes_of
from planc.modules.wrappers import prefix_of
from planc.plan.fingerprint import check_state_dict, shape_difference, tensors_after
from planc.plan.plan import Plan, TensorSpec

State = Mapping[str, Any]


def apply_state_dict(plan: Plan, state: State) -> dict[str, Any]:
    """Return the state without the removed units.

    Raises:
        StalePlan: the plan was made for other tensors; names the first difference.
        AlreadyApplied: the shapes are those of the plan's result.
    """
    found = entries_of(plan.tensors, state)
    check_state_dict(plan, shapes_of(found.own))
    return found.renewed(plan.tensors, cutting(plan.cuts))


def mask_state_dict(plan: Plan, state: State) -> dict[str, Any]:
    """Return the state in its full shapes, with zeros at every removed coordinate.

    Raises:
        StalePlan, AlreadyApplied: as for :func:`apply_state_dict`.
    """
    found = entries_of(plan.tensors, state)
    check_state_dict(plan, shapes_of(found.own))
    return found.renewed(plan.tensors, masking(plan))


def restore_state_dict(plan: Plan, smaller: State, removed: Removed) -> dict[str, Any]:
    """Return the source of ``apply_state_dict(plan, state)``.

    Raises:
        StalePlan: the shapes are not those of the plan's result, or the removed values do not fit.
    """
    found = entries_of(plan.tensors, smaller)
    difference = shape_difference(tensors_after(plan.tensors, plan.cuts), shapes_of(found.own))
    if difference is not None:
        raise not_the_result(difference)
    return found.renewed(plan.tensors, restoring(plan, removed))


@dataclass(frozen=True, slots=True)
class Entries:
    """The entries of a model in a state dict.

    A wrapper prefixes their names (``module.``, ``_orig_mod.``), and may have entries of its own.
    """

    state: State
    prefix: str
    own: State  # under the model's names

    @property
    def named(self) -> list[tuple[str, torch.Tensor]]:
        return [
            (name, value) for name, value in self.own.items() if isinstance(value, torch.Tensor)
        ]

    def renewed(self, tensors: Iterable[TensorSpec], changes: Changes) -> dict[str, Any]:
        """Return the state with the changes to the model's own entries."""
        result = _rebuilt(self.own, Renewal(tensors, self.named, changes))
        if not self.prefix:
            return result
        wrapped: dict[str, Any] = OrderedDict() if isinstance(self.state, OrderedDict) else {}
        for name, value in self.state.items():
            mine = name.startswith(self.prefix)
            wrapped[name] = result[name[len(self.prefix) :]] if mine else copy.deepcopy(value)
        return wrapped


def entries_of(tensors: Iterable[TensorSpec], state: State) -> Entries:
    """Return the entries of the model with these ``tensors``."""
    known = {name for spec in tensors for name in spec.names}
    prefix = prefix_of([name for name in state if isinstance(name, str)], known)
    if not prefix:
        return Entries(state, "", state)
    own = {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}
    return Entries(state, prefix, own)


def _rebuilt(state: State, renewal: Renewal) -> dict[str, Any]:
    result: dict[str, Any] = OrderedDict() if isinstance(state, OrderedDict) else {}
    with trainable_results():
        for name, value in state.items():
            tensor = isinstance(value, torch.Tensor)
            result[name] = renewal.renew(value, name) if tensor else copy.deepcopy(value)
    metadata = getattr(state, "_metadata", None)  # versions of the modules, for load_state_dict
    if metadata is not None and isinstance(result, OrderedDict):
        vars(result)["_metadata"] = copy.deepcopy(metadata)
    return result
