"""Plans on state dicts: build the pruned, masked or restored copy of a mapping from names to
tensors.

Only names and shapes are checked, since a state dict has nothing more. Non-persistent buffers may
be missing, and so may all but one name of a tied tensor. Names with shared memory share it in the
result; other entries are copied. The name prefix of a wrapper is recognised and kept.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
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
from planc.plan.depth import Depth, depth_of
from planc.plan.fingerprint import check_state_dict, result_tensors, shape_difference
from planc.plan.plan import Plan, TensorSpec

State = Mapping[str, Any]
Renamed = Callable[[str], str | None]
"""The new name of a tensor or module; None if it is removed."""


def _same(name: str) -> str | None:
    return name


def apply_state_dict(plan: Plan, state: State) -> dict[str, Any]:
    """Return the state without the removed units.

    Raises:
        StalePlan: the plan was made for other tensors; names the first difference.
        AlreadyApplied: the shapes are those of the plan's result.
    """
    found = entries_of(plan.tensors, state)
    check_state_dict(plan, shapes_of(found.own))
    depth = depth_of(plan)
    return found.renewed(plan.tensors, cutting(plan.cuts, depth), depth.renamed)


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
    depth, after = depth_of(plan), result_tensors(plan)
    found = entries_of(after, smaller)
    difference = shape_difference(after, shapes_of(found.own))
    if difference is not None:
        raise not_the_result(difference)
    if depth:
        found = _with_places(plan, depth, found, removed)
    return found.renewed(plan.tensors, restoring(plan, removed))


def _with_places(plan: Plan, depth: Depth, found: Entries, removed: Removed) -> Entries:
    """Return the entries under their names in the source, with empty tensors for those of removed
    blocks, in the order of the modules.
    """
    own = {depth.original(name): value for name, value in found.own.items()}
    for spec in plan.tensors:
        if depth.renamed(spec.name) is None and any(name in removed.values for name in spec.names):
            own |= {name: removed.of(spec.names).new_empty(0) for name in spec.names}
    order = {module.path: number for number, module in enumerate(plan.modules)}
    names = sorted(own, key=lambda name: order.get(name.rpartition(".")[0], -1))
    like: dict[str, Any] = OrderedDict() if isinstance(found.state, OrderedDict) else {}
    like.update((name, own[name]) for name in names)
    metadata = getattr(found.state, "_metadata", None)
    if metadata is not None and isinstance(like, OrderedDict):
        whole = {depth.original(path): held for path, held in metadata.items()}
        vars(like)["_metadata"] = whole
    if not found.prefix:
        return Entries(like, "", like)
    others = {n: v for n, v in found.state.items() if not n.startswith(found.prefix)}
    return Entries(
        {**others, **{f"{found.prefix}{n}": v for n, v in like.items()}}, found.prefix, like
    )


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

    def renewed(
        self, tensors: Iterable[TensorSpec], changes: Changes, renamed: Renamed = _same
    ) -> dict[str, Any]:
        """Return the state with the changes to the model's own entries, under new names; those
        ``renamed`` to None are left out.
        """
        result = _rebuilt(self.own, Renewal(tensors, self.named, changes), renamed)
        if not self.prefix:
            return result
        wrapped: dict[str, Any] = OrderedDict() if isinstance(self.state, OrderedDict) else {}
        for name, value in self.state.items():
            if not name.startswith(self.prefix):
                wrapped[name] = copy.deepcopy(value)
            elif (new := renamed(name[len(self.prefix) :])) is not None:
                wrapped[f"{self.prefix}{new}"] = result[new]
        return wrapped


def entries_of(tensors: Iterable[TensorSpec], state: State) -> Entries:
    """Return the entries of the model with these ``tensors``."""
    known = {name for spec in tensors for name in spec.names}
    prefix = prefix_of([name for name in state if isinstance(name, str)], known)
    if not prefix:
        return Entries(state, "", state)
    own = {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}
    return Entries(state, prefix, own)


def _rebuilt(state: State, renewal: Renewal, renamed: Renamed) -> dict[str, Any]:
    result: dict[str, Any] = OrderedDict() if isinstance(state, OrderedDict) else {}
    with trainable_results():
        for name, value in state.items():
            if (new := renamed(name)) is not None:
                tensor = isinstance(value, torch.Tensor)
                result[new] = renewal.renew(value, name) if tensor else copy.deepcopy(value)
    metadata = getattr(state, "_metadata", None)  # versions of the modules, for load_state_dict
    if metadata is not None and isinstance(result, OrderedDict):
        vars(result)["_metadata"] = type(metadata)(
            (new, copy.deepcopy(held))
            for path, held in metadata.items()
            if (new := renamed(path)) is not None
        )
    return result
