"""Fingerprints: digests of tables of tensors, modules and groups, and their first difference.

A plan fits every model with the same digests; if they differ, the tables name the difference.
Digests do not depend on the order of a table, because the effect of a plan does not either.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from operator import attrgetter
from typing import Any, Protocol

import msgpack  # type: ignore[import-untyped]  # it ships no types

from planc.errors import AlreadyApplied, StalePlan
from planc.ir.groups import Group, Member, Over, Run
from planc.plan.depth import depth_of
from planc.plan.plan import CLASS, AttributeChange, Cut, ModuleSpec, Plan, TensorSpec

Shape = tuple[int, ...]
_RUN, _OVER = attrgetter(*Run.__slots__), attrgetter(*Over.__slots__)  # all fields, in order


class TensorLike(Protocol):
    """A tensor as seen by a fingerprint.

    Implemented by :class:`planc.plan.plan.TensorSpec` and :class:`planc.ir.graph.Tensor`.
    """

    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def shape(self) -> Shape: ...
    @property
    def kind(self) -> str: ...


_PACKER = msgpack.Packer()  # made once; packb makes one for each call


def canonical(value: Any) -> bytes:
    """Canonical msgpack of plain data: shortest forms, maps in the order given."""
    packed: bytes = _PACKER.pack(value)
    return packed


def tensors_digest(tensors: Iterable[TensorLike]) -> bytes:
    """Digest of the names, ties, shapes and kinds of all tensors."""
    return _digest(tensor_rows(tensors))


def attributes_digest(modules: Iterable[ModuleSpec]) -> bytes:
    """Digest of the paths, classes and structural attributes of all modules."""
    return _digest(attribute_rows(modules))


def structure_digest(groups: Iterable[Group]) -> bytes:
    """Digest of the groups and their members, without the texts for people (kind, mixing)."""
    ordered = sorted(groups, key=lambda group: group.name)
    return _digest((g.name, g.size, g.rows, [_member(m) for m in g.members]) for g in ordered)


def pruned_structure(source: bytes, removed: tuple[tuple[int, ...], ...]) -> bytes:
    """Digest of the structure left after removing these units of each group."""
    return sha256(source + canonical(removed)).digest()


def shapes_digest(
    operators: Iterable[tuple[str, Iterable[Shape], tuple[float, ...]]],
) -> bytes:
    """Digest of operators in execution order, with result shapes and numbers of unknown origin."""
    return _digest(shape_rows(operators))


def tensor_rows(tensors: Iterable[TensorLike]) -> list[Any]:
    """The rows hashed by :func:`tensors_digest`."""
    return sorted((sorted(t.names), list(t.shape), t.kind) for t in tensors)


def attribute_rows(modules: Iterable[ModuleSpec]) -> Iterator[Any]:
    """The rows hashed by :func:`attributes_digest`."""
    for m in sorted(modules, key=lambda module: module.path):
        yield m.path, sorted(m.attributes, key=lambda pair: pair[0])


def shape_rows(
    operators: Iterable[tuple[str, Iterable[Shape], tuple[float, ...]]],
) -> Iterator[Any]:
    """The rows hashed by :func:`shapes_digest`."""
    for op, shapes, numbers in operators:
        yield op, [list(shape) for shape in shapes], list(numbers)


def tensors_after(tensors: Iterable[TensorSpec], cuts: Mapping[str, Cut]) -> tuple[TensorSpec, ...]:
    """The tensor table with the shapes after the cuts."""
    return tuple(
        TensorSpec(spec.names, cuts[spec.name].shape, spec.kind) if spec.name in cuts else spec
        for spec in tensors
    )


def modules_after(
    modules: Iterable[ModuleSpec], changes: Iterable[AttributeChange]
) -> tuple[ModuleSpec, ...]:
    """The module table with the changed attributes."""
    after = {(change.module, change.name): change.after for change in changes}
    return tuple(
        ModuleSpec(
            spec.path,
            tuple((name, after.get((spec.path, name), value)) for name, value in spec.attributes),
        )
        for spec in modules
    )


def result_tensors(plan: Plan) -> tuple[TensorSpec, ...]:
    """The tensor table of the plan's result: shapes after the cuts, names after the removal of
    blocks.
    """
    return depth_of(plan).tensors(tensors_after(plan.tensors, plan.cuts))


def result_modules(plan: Plan) -> tuple[ModuleSpec, ...]:
    """The module table of the plan's result."""
    return depth_of(plan).modules(modules_after(plan.modules, plan.attributes))


def lists_classes(modules: Iterable[ModuleSpec]) -> bool:
    """True if a module table has the modules' classes; tables of older versions have none."""
    return any(name == CLASS for spec in modules for name, _ in spec.attributes)


def modules_before(changes: Iterable[AttributeChange]) -> tuple[ModuleSpec, ...]:
    """The modules of changed attributes, with the values before; no row for an added field."""
    before: dict[str, list[tuple[str, Any]]] = {}
    for change in changes:
        if change.before is None:
            continue
        before.setdefault(change.module, []).append((change.name, change.before))
    return tuple(ModuleSpec(path, tuple(sorted(found))) for path, found in before.items())


def joined(modules: Iterable[ModuleSpec], more: Iterable[ModuleSpec]) -> tuple[ModuleSpec, ...]:
    """The module table with additional attributes of the same modules from ``more``."""
    others = {spec.path: spec.attributes for spec in more}
    return tuple(
        ModuleSpec(
            spec.path,
            tuple(sorted({**dict(others.get(spec.path, ())), **dict(spec.attributes)}.items())),
        )
        for spec in modules
    )


def shared(modules: Iterable[ModuleSpec], others: Iterable[ModuleSpec]) -> tuple[ModuleSpec, ...]:
    """The module table without attributes missing from the same module in ``others``.

    Two plans list the attributes read and written by each; older plans list more.
    """
    names = {spec.path: {name for name, _ in spec.attributes} for spec in others}
    return tuple(
        ModuleSpec(
            spec.path,
            tuple(pair for pair in spec.attributes if pair[0] in names.get(spec.path, pair)),
        )
        for spec in modules
    )


def first_difference(
    tensors: Iterable[TensorLike],
    modules: Iterable[ModuleSpec] | None,
    found_tensors: Iterable[TensorLike],
    found_modules: Iterable[ModuleSpec] | None = None,
) -> str | None:
    """The first difference between expected and found tables in words, None if they agree.

    Modules are compared if both sides have them, by the attributes of the expected table.
    """
    difference = _tensor_difference(tuple(tensors), tuple(found_tensors))
    if difference is None and modules is not None and found_modules is not None:
        difference = _module_difference(tuple(modules), tuple(found_modules))
    return difference


def compare(
    plan: Plan, tensors: Iterable[TensorLike], modules: Iterable[ModuleSpec] | None = None
) -> str | None:
    """The first difference between the plan's source and an object's tables, None if equal."""
    return first_difference(plan.tensors, plan.modules, tensors, modules)


def check_source(
    plan: Plan, tensors: Iterable[TensorLike], modules: Iterable[ModuleSpec] | None = None
) -> None:
    """Check that the tables match the source of ``plan``.

    Raises:
        AlreadyApplied: the tables match the result of the plan.
        StalePlan: they match neither; the first difference is named.
    """
    tensors = tuple(tensors)
    modules = None if modules is None else tuple(modules)
    difference = compare(plan, tensors, modules)
    if difference is None:
        return
    if first_difference(result_tensors(plan), None, tensors) is None and _changed(plan, modules):
        raise _already_applied(difference)
    raise _stale(difference)


def check_state_dict(plan: Plan, shapes: Mapping[str, Shape]) -> None:
    """Check that names and shapes match a state dict of the source of ``plan``.

    One name of a tied tensor suffices. Buffers may be missing, because some are not persistent.

    Raises:
        AlreadyApplied: the shapes match the result of the plan.
        StalePlan: they match neither; the first difference is named.
    """
    difference = shape_difference(plan.tensors, shapes)
    if difference is None:
        return
    if shape_difference(result_tensors(plan), shapes) is None:
        raise _already_applied(difference)
    raise _stale(difference)


def shape_difference(tensors: Iterable[TensorLike], shapes: Mapping[str, Shape]) -> str | None:
    """Like :func:`first_difference`, for a state dict, without kinds and ties."""
    known: set[str] = set()
    for spec in tensors:
        known.update(spec.names)
        present = [name for name in spec.names if name in shapes]
        if not present and spec.kind == "parameter":
            return f"{spec.names[0]}: expected a parameter of shape {spec.shape}, found none"
        for name in present:
            if tuple(shapes[name]) != spec.shape:
                return f"{name}: expected shape {spec.shape}, found {tuple(shapes[name])}"
    extra = next((name for name in shapes if name not in known), None)
    if extra is not None:
        return f"{extra}: expected no such tensor, found one of shape {tuple(shapes[extra])}"
    return None


def _digest(rows: Iterable[Any]) -> bytes:
    digest = sha256()
    for row in rows:  # one by one: the packed rows of a large table are never all in memory
        digest.update(canonical(row))
    return digest.digest()


def _member(member: Member) -> list[Any]:
    over = member.over and _OVER(member.over)
    return [member.tensor, member.dim, [*map(_RUN, member.runs)], over]


def _stale(difference: str) -> StalePlan:
    return StalePlan(
        f"the plan was made for another structure: {difference}; "
        "compile a plan for this model, or apply the plan to the model it was made for"
    )


def _already_applied(difference: str) -> AlreadyApplied:
    return AlreadyApplied(
        f"these are the shapes of the plan's result: {difference}; "
        "apply the plan to the original, or leave it as it is"
    )


def _changed(plan: Plan, modules: Iterable[ModuleSpec] | None) -> bool:
    """True if every attribute changed by the plan has its new value."""
    if modules is None:
        return True
    found = {(m.path, name): value for m in modules for name, value in m.attributes}
    listed = {(m.path, name) for m in plan.modules for name, _ in m.attributes}
    depth = depth_of(plan)
    return all(
        key in found and _same(change.after, found[key])
        for change in plan.attributes
        if (change.module, change.name) in listed
        and (key := (depth.renamed(change.module), change.name))
    )


def _same(left: Any, right: Any) -> bool:
    # by their bytes: Python calls True, 1 and 1.0 equal
    return canonical(left) == canonical(right)


def _tensor_difference(
    expected: tuple[TensorLike, ...], found: tuple[TensorLike, ...]
) -> str | None:
    owner = {name: spec for spec in found for name in spec.names}
    for spec in expected:
        first = spec.names[0]
        for name in spec.names:
            if name not in owner:
                return f"{name}: expected a {spec.kind} of shape {spec.shape}, found none"
            if owner[name] is not owner[first]:
                return f"{name}: expected to be tied to {first}, found a tensor of its own"
        other = owner[first]
        tied = next((name for name in other.names if name not in spec.names), None)
        if tied is not None:
            return f"{first}: expected not to be tied to {tied}, found the two tied"
        if tuple(other.shape) != tuple(spec.shape):
            return f"{first}: expected shape {tuple(spec.shape)}, found {tuple(other.shape)}"
        if other.kind != spec.kind:
            return f"{first}: expected a {spec.kind}, found a {other.kind}"
    known = {name for spec in expected for name in spec.names}
    for spec in found:
        if spec.names[0] not in known:
            return f"{spec.names[0]}: expected no such tensor, found a {spec.kind} of {spec.shape}"
    return None


def _module_difference(
    expected: tuple[ModuleSpec, ...], found: tuple[ModuleSpec, ...]
) -> str | None:
    others = {spec.path: spec for spec in found}
    for spec in expected:
        where = spec.path or "the model itself"
        if spec.path not in others:
            return f"{where}: expected a module, found none"
        values, listed = dict(others[spec.path].attributes), dict(spec.attributes)
        kind, other = listed.pop(CLASS, None), values.get(CLASS)
        if kind != other and None not in (kind, other):
            return f"{where}: expected a {kind}, found a {other}"
        for name, value in listed.items():
            if name not in values:
                return f"{where}: expected the attribute {name} = {value!r}, found none"
            if not _same(value, values[name]):
                return f"{where}: expected {name} = {value!r}, found {values[name]!r}"
    paths = {spec.path for spec in expected}
    extra = next((spec.path for spec in found if spec.path not in paths), None)
    return None if extra is None else f"{extra}: expected no such module, found one"
