"""New tensors in place of old ones: the named tensors of a model or state dict and a way to change
one of them in, what replaces each of them out.

What was one memory before is one memory afterwards, whether it was one tensor under several names
or several tensors on one storage, as far as the plan cuts all of them alike.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import nn

from planc.apply.tensors import copy_tensor, mask_tensor, removed_values, uncut_tensor
from planc.errors import StalePlan
from planc.ir.layers import whole
from planc.modules.attributes import is_plain
from planc.modules.closures import tensor_hooks
from planc.modules.tree import storage_of
from planc.plan.plan import Cut, Plan, TensorSpec

Change = TypeVar("Change", bound=Hashable)
Named = Iterable[tuple[str, torch.Tensor]]


@dataclass(frozen=True, slots=True, eq=False)
class Removed:
    """What ``apply(..., keep_removed=True)`` took away, for ``restore``.

    ``values`` maps the name of each tensor that was cut to the values at its removed coordinates,
    one-dimensional, in C order of the coordinates.
    """

    values: Mapping[str, torch.Tensor]

    def of(self, names: tuple[str, ...]) -> torch.Tensor:
        """The values kept under the first of ``names`` that has any.

        Raises:
            StalePlan: none has.
        """
        for name in names:
            if name in self.values:
                return self.values[name]
        raise StalePlan(
            f"{names[0]}: the removed values of this tensor are missing; pass those that "
            "apply(..., keep_removed=True) returned for this plan"
        )


class Renewal(Generic[Change]):
    """Replaces tensors one by one, and remembers which memory became which.

    ``named`` pairs tensors with one of their names, which decides on the change: ``changes`` has
    them by the first names of ``tensors``, and ``change`` makes the new tensor where there is one.
    All others are copied.
    """

    def __init__(
        self,
        tensors: Iterable[TensorSpec],
        changes: Mapping[str, Change],
        named: Named,
        change: Callable[[torch.Tensor, Change], torch.Tensor],
    ) -> None:
        self._changes = changes
        self._specs = {name: spec for spec in tensors for name in spec.names}
        self._change = change
        self._names: dict[Hashable, str] = {}
        self._made: dict[Hashable, torch.Tensor] = {}
        for name, tensor in named:
            self._names.setdefault(id(tensor), name)
            self._names.setdefault(memory_of(tensor), name)

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        """The new tensor, of the same class and with the same ``requires_grad``; no ``grad``.

        One without a name that is exactly the memory of one with a name follows that one.
        """
        name = self._names.get(id(tensor)) or self._names.get(memory_of(tensor))
        return self.renew(tensor, name)

    def renew(self, tensor: torch.Tensor, name: str | None) -> torch.Tensor:
        """The same, for a tensor that is known by ``name``."""
        spec = None if name is None else self._specs.get(name)
        change = None if spec is None else self._changes.get(spec.name)
        if name is None or spec is None or change is None:
            new = self._once(memory_of(tensor), lambda: self.make(tensor, None, name))
        else:
            new = self._changed(tensor, change, name, spec)
        return _dressed(tensor, new)

    def _changed(
        self, tensor: torch.Tensor, change: Change, name: str, spec: TensorSpec
    ) -> torch.Tensor:
        key = (memory_of(tensor), _key(change))
        return self._once(key, lambda: self.make(tensor, change, name))

    def make(self, tensor: torch.Tensor, change: Change | None, name: str | None) -> torch.Tensor:
        """A tensor of its own in place of ``tensor``; ``change`` is None where it stays."""
        return copy_tensor(tensor) if change is None else self._change(tensor, change)

    def _once(self, key: Hashable, make: Callable[[], torch.Tensor]) -> torch.Tensor:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key].data  # a tensor of its own on the same memory


class Masking(Renewal[Cut]):
    """A renewal in full shapes, zero where the plan removes."""

    def __init__(self, plan: Plan, named: Named) -> None:
        super().__init__(plan.tensors, plan.cuts, named, mask_tensor)
        self._whole = whole((spec.names, spec.shape) for spec in plan.tensors)

    def make(self, tensor: torch.Tensor, change: Cut | None, name: str | None) -> torch.Tensor:
        if change is None or name is None:
            return copy_tensor(tensor)
        return mask_tensor(tensor, change, self._whole.get(name))


class Restoration(Renewal[Cut]):
    """A renewal back to the shapes of the plan's source, with the values that were removed."""

    def __init__(self, plan: Plan, named: Named, removed: Removed) -> None:
        super().__init__(plan.tensors, plan.cuts, named, lambda tensor, cut: tensor)
        self._removed = removed

    def _changed(
        self, tensor: torch.Tensor, change: Cut, name: str, spec: TensorSpec
    ) -> torch.Tensor:
        values = self._removed.of((name, *spec.names))
        key = (memory_of(tensor), _key(change), id(values))
        return self._once(key, lambda: uncut_tensor(tensor, values, change, spec.shape))


def collect_removed(plan: Plan, named: Named) -> Removed:
    """The removed values of each tensor that the plan cuts, under the name it is given with.

    Tied names of one memory get one entry, the first.
    """
    specs = specs_by_name(plan)
    values: dict[str, torch.Tensor] = {}
    made: dict[Hashable, torch.Tensor] = {}
    seen: set[Hashable] = set()
    for name, tensor in named:
        spec, memory = specs.get(name), memory_of(tensor)
        if spec is None or spec.name not in plan.cuts or (memory, spec.name) in seen:
            continue
        seen.add((memory, spec.name))
        key = (memory, _key(plan.cuts[spec.name]))
        if key not in made:
            made[key] = removed_values(tensor, plan.cuts[spec.name])
        values[name] = made[key]
    return Removed(values)


@contextmanager
def trainable_results() -> Iterator[None]:
    """While it lasts, nothing is recorded for gradients and new tensors are ordinary ones, also
    inside the caller's inference mode.
    """
    with torch.inference_mode(False), torch.no_grad():
        yield


def specs_by_name(plan: Plan) -> dict[str, TensorSpec]:
    """The tensors of the plan's source under all their names."""
    return {name: spec for spec in plan.tensors for name in spec.names}


def storage_id(tensor: torch.Tensor) -> int:
    """What tensors on one storage have in common; one without a storage is by itself."""
    storage = storage_of(tensor)
    return id(tensor) if storage is None else storage


def memory_of(tensor: torch.Tensor) -> Hashable:
    """Equal for tensors that are the same elements of one storage."""
    if tensor.layout is not torch.strided:
        return id(tensor)
    place = (storage_id(tensor), tensor.storage_offset())
    return (*place, tuple(tensor.shape), tensor.stride(), tensor.dtype)


def _key(cut: Hashable) -> Hashable:
    """Equal for changes that are the same, as for cuts that keep the same indices."""
    if not isinstance(cut, Cut):
        return cut
    dense = tuple(None if kept is None else kept.tobytes() for kept in cut.kept)
    ragged = tuple(
        (dim, over, tuple((part.start, part.stop, part.kept.tobytes()) for part in ranges))
        for dim, over, ranges in cut.ragged
    )
    return dense, ragged


def _dressed(old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """``new`` as what ``old`` was: parameter or buffer, its class, its plain marks."""
    dressed: torch.Tensor
    if type(new) is not torch.Tensor and isinstance(old, nn.Parameter):  # a compressed tensor
        dressed = nn.Parameter(new, requires_grad=old.requires_grad)
    elif issubclass(type(old), nn.Parameter):
        # not type(old)(new): a subclass may want other arguments
        dressed = torch.Tensor._make_subclass(type(old), new, old.requires_grad)
    elif isinstance(old, nn.Parameter):  # a tensor class of its own, marked as a parameter
        dressed = nn.Parameter(new, requires_grad=old.requires_grad)
    else:
        # a computed tensor (what weight_norm leaves behind) cannot be carried over as computed
        dressed = new.requires_grad_(old.requires_grad and old.is_leaf)
    for name, mark in vars(old).items():  # such as `_no_weight_decay`, which optimisers look at
        if is_plain(mark):
            vars(dressed)[name] = mark
    if dressed.requires_grad and dressed.is_leaf:
        _hooked(old, dressed)
    return dressed


def _hooked(old: torch.Tensor, new: torch.Tensor) -> None:
    """Gives ``new`` the hooks on the gradient of ``old``."""
    gradient, accumulated = tensor_hooks(old)
    for hook in (gradient or {}).values():
        new.register_hook(hook)  # type: ignore[no-untyped-call]
    for hook in (accumulated or {}).values():
        new.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]
