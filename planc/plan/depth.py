"""Depth: the modules and tensors that go with removed blocks, and the new names of the others.

A *list of blocks* is a group of a plan without members: its name is the path of a container, its
units are the container's children in order. A removed child goes with all modules and tensors under
its path, and the children after it move up: numbered names stay consecutive.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from planc.errors import PlancError
from planc.ir.groups import Group
from planc.plan.plan import ModuleSpec, Plan, PlanGroup, TensorSpec

BLOCKS = "blocks"
"""The kind of lists of blocks."""
REMOVED_BLOCKS = "removed blocks"
"""The feature required of a reader of plans that remove blocks."""
ROOT = "."
"""The name of the list of blocks whose container is the model itself."""
_HELD = "_depth"  # on a plan, like its cached properties
_NUMBERED = re.compile(r"(.*?)(0|[1-9][0-9]*)")


def is_list(group: Group) -> bool:
    """True for a list of blocks, False for a group of units in tensors."""
    return not group.members


def path_of(group: Group) -> str:
    """The path of the container of a list of blocks."""
    return "" if group.name == ROOT else group.name


def below(path: str, name: str) -> str:
    """The path of the child ``name`` of a module."""
    return f"{path}.{name}" if path else name


def children(path: str, paths: Iterable[str]) -> tuple[str, ...]:
    """The names of the direct children of the module ``path``, in the order of ``paths``."""
    inside = f"{path}." if path else ""
    found = (other[len(inside) :] for other in paths if other and other.startswith(inside))
    return tuple(name for name in found if "." not in name)


def new_names(names: Sequence[str], removed: Iterable[int]) -> tuple[str | None, ...]:
    """The name of each child after the removal, None for those removed.

    Names of one word and consecutive numbers ("0", "1"; "layer_0", "layer_1") stay consecutive;
    other names are kept.
    """
    gone = set(removed)
    kept = [i for i in range(len(names)) if i not in gone]
    parts = [_NUMBERED.fullmatch(name) for name in names]
    numbered = [(part[1], int(part[2])) for part in parts if part]
    first = numbered[0] if numbered else ("", 0)
    if numbered == [(first[0], first[1] + i) for i in range(len(names))]:
        after = {i: names[k] for k, i in enumerate(kept)}
    else:
        after = {i: names[i] for i in kept}
    return tuple(after.get(i) for i in range(len(names)))


class Depth:
    """The names after the removal of blocks.

    Args:
        paths: the paths of all modules of the source, in order.
        lists: the lists of blocks, with their removed units.

    Raises:
        ValueError: a list has another number of children than units.
    """

    def __init__(self, paths: Iterable[str], lists: Iterable[PlanGroup]) -> None:
        self.lists = tuple(group for group in lists if group.removed)
        self.names: dict[str, tuple[str, ...]] = {}
        self._kept: dict[int, set[tuple[int, ...]]] = {}
        found: dict[str, list[str]] = {path_of(group): [] for group in self.lists}
        for path in paths if found else ():
            parent, _, name = path.rpartition(".")
            if name and parent in found:
                found[parent].append(name)
        self._new: dict[tuple[str, str], str | None] = {}
        self._old: dict[tuple[str, str], str] = {}
        for group in self.lists:
            path = path_of(group)
            names = tuple(found[path])
            if len(names) != group.size:
                raise ValueError(f"{group.name} has {len(names)} children, {group.size} blocks")
            self.names[path] = names
            gone = set(group.removed)
            kept = tuple(unit for unit in range(group.size) if unit not in gone)
            self._kept.setdefault(group.size, set()).add(kept)
            for name, new in zip(names, new_names(names, group.removed), strict=True):
                self._new[path, name] = new
                if new is not None:
                    self._old[path, new] = name

    def __bool__(self) -> bool:
        return bool(self.lists)

    def child(self, path: str, name: str) -> str | None:
        """The new name of a child of a list; None if it is removed."""
        return self._new[path, name]

    def renamed(self, name: str) -> str | None:
        """The new name of a module or tensor of the source; None if it goes with a block."""
        if not self.lists:
            return name
        old, new = "", list[str]()
        for part in name.split("."):
            after = self._new.get((old, part), part)
            if after is None:
                return None
            new.append(after)
            old = below(old, part)
        return ".".join(new)

    def original(self, name: str) -> str:
        """The name in the source of a module or tensor of the result."""
        if not self.lists:
            return name
        old = ""
        for part in name.split("."):
            before = self._old.get((old, part), part)
            old = below(old, before)
        return old

    def removed_paths(self) -> tuple[str, ...]:
        """The paths of all removed blocks."""
        return tuple(
            below(path_of(group), self.names[path_of(group)][unit])
            for group in self.lists
            for unit in group.removed
        )

    def tensors(self, table: Iterable[TensorSpec]) -> tuple[TensorSpec, ...]:
        """The tensor table without the removed blocks, under the new names."""
        if not self.lists:
            return tuple(table)
        pairs = ((spec, tuple(filter(None, map(self.renamed, spec.names)))) for spec in table)
        return tuple(TensorSpec(names, spec.shape, spec.kind) for spec, names in pairs if names)

    def modules(self, table: Iterable[ModuleSpec]) -> tuple[ModuleSpec, ...]:
        """The module table without the removed blocks, under the new paths."""
        if not self.lists:
            return tuple(table)
        pairs = ((spec, self.renamed(spec.path)) for spec in table)
        return tuple(ModuleSpec(path, spec.attributes) for spec, path in pairs if path is not None)

    def shortened(self, before: Any, after: Any) -> bool:
        """True if ``after`` is ``before`` without the entries of the blocks of one list."""
        if not isinstance(before, tuple) or not isinstance(after, tuple):
            return False
        return any(
            after == tuple(before[unit] for unit in kept)
            for kept in self._kept.get(len(before), ())
        )


def depth_of(plan: Plan) -> Depth:
    """The names after a plan.

    Raises:
        ValueError: the plan contradicts itself.
    """
    held = vars(plan)
    if _HELD not in held:
        lists = [group for group in plan.groups if is_list(group)]
        held[_HELD] = Depth((spec.path for spec in plan.modules), lists)
    found: Depth = held[_HELD]
    return found


def refuse_blocks(plan: Plan, what: str, advice: str) -> None:
    """Raise PlancError for a plan that removes blocks."""
    if depth_of(plan):
        raise PlancError(f"{what}: the plan removes blocks, which is not supported here; {advice}")
