"""Renewal: replace the tensors of a model or state dict one by one.

Shared memory stays shared, both for one tensor under several names and for several tensors on one
storage, as long as the plan cuts them alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn

from planc.apply.tensors import (
    copy_tensor,
    cut_tensor,
    mask_tensor,
    removed_values,
    uncut_tensor,
)
from planc.errors import PlancError, StalePlan
from planc.ir.layers import whole
from planc.modules.attributes import is_plain
from planc.modules.closures import tensor_hooks
from planc.modules.tree import storage_of
from planc.plan.depth import Depth, depth_of
from planc.plan.plan import Cut, Plan, TensorSpec

Named = Iterable[tuple[str, torch.Tensor]]


@dataclass(frozen=True, slots=True, eq=False)
class Removed:
    """Values removed by ``apply(..., keep_removed=True)``, for ``restore``.

    ``values`` maps the name of each cut tensor to its removed values: one-dimensional, in C order
    of the removed coordinates; tensors of removed blocks are whole. ``blocks`` are the removed
    blocks of a module by their paths, with empty tensors.
    """

    values: Mapping[str, torch.Tensor]
    blocks: Mapping[str, nn.Module] = field(default_factory=dict)

    def of(self, names: tuple[str, ...]) -> torch.Tensor:
        """Return the values stored under the first of ``names`` with an entry.

        Raises:
            StalePlan: there is no entry.
        """
        for name in names:
            if name in self.values:
                return self.values[name]
        raise StalePlan(
            f"{names[0]}: the removed values of this tensor are missing; pass those that "
            "apply(..., keep_removed=True) returned for this plan"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """A way to make a new tensor from an old one; changes with equal keys make equal ones."""

    key: Hashable
    make: Callable[[torch.Tensor], torch.Tensor]


COPY = Change(None, copy_tensor)
GONE = Change("gone", lambda tensor: tensor.new_empty(0))
"""The change of a tensor in a removed block."""
ZERO = Change("zero", torch.zeros_like)
Changes = Callable[[str, TensorSpec], Change]  # the change of a tensor, by its name and entry


class Renewal:
    """Replaces tensors one by one, and remembers the new memory of each old one.

    Args:
        tensors: the tensor table. Tensors outside it are copied.
        named: the tensors, each with one of its names.
        changes: the change of each tensor in the table.
    """

    def __init__(self, tensors: Iterable[TensorSpec], named: Named, changes: Changes) -> None:
        self._changes = changes
        self._specs = by_names(tensors)
        self._names: dict[Hashable, str] = {}
        self._made: dict[Hashable, torch.Tensor] = {}
        for name, tensor in named:
            self._names.setdefault(id(tensor), name)
            self._names.setdefault(memory_of(tensor), name)

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the new tensor, of the same class and ``requires_grad``, without ``grad``.

        An unnamed tensor on exactly the memory of a named one is replaced like that one.
        """
        name = self._names.get(id(tensor)) or self._names.get(memory_of(tensor))
        return self.renew(tensor, name)

    def renew(self, tensor: torch.Tensor, name: str | None) -> torch.Tensor:
        """Return the same, for a tensor known by ``name``."""
        spec = None if name is None else self._specs.get(name)
        change = COPY if name is None or spec is None else self._changes(name, spec)
        key = (memory_of(tensor), change.key)
        if key not in self._made:
            self._made[key] = change.make(tensor)
        return _dressed(tensor, self._made[key].data)  # a new tensor on the same memory


Cutter = Callable[[str, TensorSpec, Cut], Change]


def _of_cuts(
    cuts: Mapping[str, Cut], depth: Depth | None, removed: Changes, changed: Cutter
) -> Changes:
    """Return the changes of tensors in removed blocks and of cut tensors; all others are copied."""

    def change(name: str, spec: TensorSpec) -> Change:
        if depth and depth.renamed(spec.name) is None:
            return removed(name, spec)
        cut = cuts.get(spec.name)
        return COPY if cut is None else changed(name, spec, cut)

    return change


def cutting(cuts: Mapping[str, Cut], depth: Depth | None = None) -> Changes:
    """Return the changes to the shapes of the plan's result; tensors in removed blocks become
    empty.
    """

    def shortened(name: str, spec: TensorSpec, cut: Cut) -> Change:
        return Change(_key(cut), lambda tensor: cut_tensor(tensor, cut))

    return _of_cuts(cuts, depth, lambda name, spec: GONE, shortened)


def masking(plan: Plan) -> Changes:
    """Return the changes in full shapes, with zeros at the removed coordinates."""
    depth = depth_of(plan)
    check_zeros(depth)
    wholes = whole((spec.names, spec.shape) for spec in plan.tensors)

    def masked(name: str, spec: TensorSpec, cut: Cut) -> Change:
        return Change(_key(cut), lambda tensor: mask_tensor(tensor, cut, wholes.get(name)))

    def zeroed(name: str, spec: TensorSpec) -> Change:
        return ZERO if spec.kind == "parameter" else COPY

    return _of_cuts(plan.cuts, depth, zeroed, masked)


def restoring(plan: Plan, removed: Removed) -> Changes:
    """Return the changes back to the shapes of the plan's source, with the removed values."""

    def whole_again(name: str, spec: TensorSpec) -> Change:
        values = removed.of((name, *spec.names))
        return Change(("gone", id(values)), lambda _: whole_tensor(values, spec))

    def restored(name: str, spec: TensorSpec, cut: Cut) -> Change:
        values = removed.of((name, *spec.names))
        return Change(
            (_key(cut), id(values)), lambda tensor: uncut_tensor(tensor, values, cut, spec.shape)
        )

    return _of_cuts(plan.cuts, depth_of(plan), whole_again, restored)


def collect_removed(plan: Plan, named: Named) -> Removed:
    """Return the removed values of each cut tensor, under the name given with it.

    Tied names of one memory get one entry, the first.
    """
    depth = depth_of(plan)

    def change(name: str, spec: TensorSpec) -> Change | None:
        if depth.renamed(spec.name) is None:
            return Change("gone", lambda tensor: copy_tensor(tensor).reshape(-1))
        cut = plan.cuts.get(spec.name)
        if cut is None:
            return None
        return Change(_key(cut), lambda tensor: removed_values(tensor, cut))

    specs = by_names(plan.tensors)
    first: dict[Hashable, tuple[str, torch.Tensor]] = {}
    for name, tensor in named:
        first.setdefault((memory_of(tensor), specs.get(name)), (name, tensor))
    return collected(specs, first.values(), change)


def whole_tensor(values: torch.Tensor, spec: TensorSpec) -> torch.Tensor:
    """Return the tensor of a removed block from its values.

    Raises:
        StalePlan: there are more or fewer than the tensor has elements.
    """
    if values.numel() != math.prod(spec.shape):
        raise StalePlan(
            f"{spec.name}: {values.numel()} removed values do not make a tensor of {spec.shape}; "
            "pass what apply(..., keep_removed=True) returned"
        )
    return copy_tensor(values).reshape(spec.shape)


def check_zeros(depth: Depth) -> None:
    """Raise PlancError if zeros do not stand for the removal of a plan's blocks."""
    for group in depth.lists:
        if group.mixing:
            raise PlancError(
                f"{group.name}: zeros are no mask of its removed blocks: {group.mixing}; "
                "planc.verify compares with the original that skips them"
            )


def collected(
    specs: Mapping[str, TensorSpec],
    named: Named,
    changes: Callable[[str, TensorSpec], Change | None],
) -> Removed:
    """Return the values made of each tensor with a change."""
    values: dict[str, torch.Tensor] = {}
    made: dict[Hashable, torch.Tensor] = {}
    with trainable_results():
        for name, tensor in named:
            spec = specs.get(name)
            change = None if spec is None else changes(name, spec)
            if change is not None:
                key = (memory_of(tensor), change.key)
                if key not in made:
                    made[key] = change.make(tensor)
                values[name] = made[key]
    return Removed(values)


@contextmanager
def trainable_results() -> Iterator[None]:
    """Context without gradient recording in which new tensors are ordinary ones, even inside
    inference mode.
    """
    with torch.inference_mode(False), torch.no_grad():
        yield


def by_names(tensors: Iterable[TensorSpec]) -> dict[str, TensorSpec]:
    """Return the tensors of a table under all their names."""
    return {name: spec for spec in tensors for name in spec.names}


def storage_id(tensor: torch.Tensor) -> int:
    """Return a key common to all tensors on one storage; a tensor without storage has its own."""
    storage = storage_of(tensor)
    return id(tensor) if storage is None else storage


def memory_of(tensor: torch.Tensor) -> Hashable:
    """Return a key equal for tensors with the same elements of one storage."""
    if tensor.layout is not torch.strided:
        return id(tensor)
    place = (storage_id(tensor), tensor.storage_offset())
    return (*place, tuple(tensor.shape), tensor.stride(), tensor.dtype)


def _key(cut: Cut) -> Hashable:
    """Return a key equal for cuts with the same kept indices."""
    dense = tuple(None if kept is None else kept.tobytes() for kept in cut.kept)
    ragged = tuple(
        (dim, over, tuple((part.start, part.stop, part.kept.tobytes()) for part in ranges))
        for dim, over, ranges in cut.ragged
    )
    return dense, ragged


def _dressed(old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """Give ``new`` the class, ``requires_grad`` and plain attributes of ``old``."""
    dressed: torch.Tensor
    if type(new) is not torch.Tensor and isinstance(old, nn.Parameter):  # a compressed tensor
        dressed = nn.Parameter(new, requires_grad=old.requires_grad)
    elif issubclass(type(old), nn.Parameter):
        # not type(old)(new): a subclass may want other arguments
        dressed = torch.Tensor._make_subclass(type(old), new, old.requires_grad)
    elif isinstance(old, nn.Parameter):  # a tensor class of its own, marked as a parameter
        dressed = nn.Parameter(new, requires_grad=old.requires_grad)
    else:
        # a computed tensor (such as weight_norm's) cannot stay attached to its computation
        dressed = new.requires_grad_(old.requires_grad and old.is_leaf)
    for name, mark in vars(old).items():  # such as `_no_weight_decay`, read by optimisers
        if is_plain(mark):
            vars(dressed)[name] = mark
    if dressed.requires_grad and dressed.is_leaf:
        _hooked(old, dressed)
    return dressed


def _hooked(old: torch.Tensor, new: torch.Tensor) -> None:
    """Register the gradient hooks of ``old`` on ``new``."""
    gradient, accumulated = tensor_hooks(old)
    for hook in (gradient or {}).values():
        new.register_hook(hook)  # type: ignore[no-untyped-call]
    for hook in (accumulated or {}).values():
        new.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]
