"""Validation of a plan beyond its types.

A valid plan is harmless: every index lies within a tensor of its table, no group is emptied, every
predicted shape is positive, and the digests match its own tables. Indices are expanded only after
their number is known to be within the limits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from planc.errors import MalformedFile
from planc.files.disk.limits import Limits
from planc.files.formats.layers import check_layers
from planc.files.formats.membership import Tables, check_membership, check_ranges
from planc.files.formats.records import check_features
from planc.files.formats.shapes import shapes_after
from planc.files.formats.specification import check_specification
from planc.ir.plain import leaves, same_types
from planc.ir.units import Units, marked
from planc.plan.depth import BLOCKS, REMOVED_BLOCKS, depth_of, is_list
from planc.plan.fingerprint import (
    attributes_digest,
    canonical,
    modules_after,
    structure_digest,
    tensors_digest,
)
from planc.plan.plan import (
    ORIGINS,
    AttributeChange,
    Attributes,
    OutputChange,
    Plan,
    PlanGroup,
    Provenance,
    TensorSpec,
    WidthConstraint,
    is_public,
)
from planc.plan.specification import INPUT_VALUES, INTEGERS, features

_AGAIN = "compile the plan again"
_INTEGERS = INTEGERS["int64"]
_TARGETS = ("module", "graph")
_KINDS = ("parameter", "buffer")
_LISTS = 1_024  # most lists of blocks: each change of a sequence is compared with all of them


def check_plan(plan: Plan, limits: Limits) -> None:
    """Check that ``plan`` is valid.

    Raises:
        UnsupportedVersion: it requires a feature unknown to this reader.
        LimitExceeded: part of it exceeds ``limits``.
        MalformedFile: two fields contradict each other; both are named.
    """
    check_features(plan.requires)
    if plan.target not in _TARGETS:
        raise MalformedFile(f"target: {plan.target!r}, known are {_TARGETS}; {_AGAIN}")
    check_tensors(plan.tensors, limits)
    _check_modules(plan, limits)
    _check_lists(plan)
    _check_changes(plan.attributes, plan, limits)
    _check_constraints(plan.constraints, limits)
    check_specification(plan.inputs, limits)
    if (INPUT_VALUES in plan.requires) != (INPUT_VALUES in features(plan.inputs)):
        raise MalformedFile(
            f"requires: {list(plan.requires)}, inputs: {list(features(plan.inputs))}; {_AGAIN}"
        )
    check_provenance(plan.provenance, limits)
    if plan.latency is not None:
        limits.check_name(plan.latency.machine, "latency.machine")
    _check_outputs(plan.outputs, limits)
    tables = _check_groups(plan, limits)
    after = shapes_after(plan, tables)
    _check_digests(plan, after)
    check_layers(plan, after)


def check_tensors(tensors: Sequence[TensorSpec], limits: Limits) -> None:
    """Check names, kinds and shapes of a tensor table; names must be unique."""
    limits.check("tensors", len(tensors), "tensors")
    for i, spec in enumerate(tensors):
        where = f"tensors[{i}]"
        if not spec.names or not all(spec.names):
            raise MalformedFile(f"{where}.names: a tensor without a name; {_AGAIN}")
        for name in spec.names:
            limits.check_name(name, f"{where}.names")
        if spec.kind not in _KINDS:
            raise MalformedFile(f"{where}.kind: {spec.kind!r}, known are {_KINDS}; {_AGAIN}")
        limits.check_shape(spec.shape, f"{where}.shape")
    check_unique((name for spec in tensors for name in spec.names), "tensors")


def _check_modules(plan: Plan, limits: Limits) -> None:
    limits.check("modules", len(plan.modules), "modules")
    rows: dict[int, tuple[int, Attributes]] = {}  # by identity: modules share attribute rows
    for i, module in enumerate(plan.modules):
        limits.check_name(module.path, f"modules[{i}].path")
        rows.setdefault(id(module.attributes), (i, module.attributes))
    for i, attributes in rows.values():
        where = f"modules[{i}].attributes"
        names = [name for name, _ in attributes]
        if names != sorted(set(names)):
            raise MalformedFile(f"{where}: not sorted and distinct: {names}; {_AGAIN}")
        for name, value in attributes:
            limits.check_name(name, where)
            check_value(value, f"{where}.{name}", limits)
    check_unique((module.path for module in plan.modules), "modules")


def _check_changes(changes: Sequence[AttributeChange], plan: Plan, limits: Limits) -> None:
    rows, depth = {module.path: module.attributes for module in plan.modules}, depth_of(plan)
    listed_in: dict[int, dict[str, Any]] = {}  # by row; modules share rows
    for i, change in enumerate(changes):
        where = f"attributes[{i}]"
        if change.module not in rows:
            raise MalformedFile(f"{where}.module: {change.module!r} is no module; {_AGAIN}")
        if not is_public(change.name):
            raise MalformedFile(f"{where}.name: {change.name!r} is not a public name; {_AGAIN}")
        check_value(change.before, f"{where}.before", limits)
        check_value(change.after, f"{where}.after", limits)
        if depth.renamed(change.module) is None:
            raise MalformedFile(f"{where}.module: {change.module!r} is removed; {_AGAIN}")
        same = same_types(change.before, change.after) or change.adds_field
        if not same and not depth.shortened(change.before, change.after):
            raise MalformedFile(
                f"{where}.after: {change.after!r} is not of the type of {change.before!r}; {_AGAIN}"
            )
        row = rows[change.module]
        if id(row) not in listed_in:
            listed_in[id(row)] = dict(row)
        listed = listed_in[id(row)]
        if change.name in listed:
            if canonical(listed[change.name]) != canonical(change.before):
                raise MalformedFile(
                    f"{where}.before: {change.before!r}, the table of modules has "
                    f"{listed[change.name]!r}; {_AGAIN}"
                )
        elif _is_structural(change.before) and "." not in change.name:
            raise MalformedFile(
                f"{where}.name: {change.module!r} has no attribute {change.name!r} in the table "
                f"of modules; {_AGAIN}"
            )
    check_unique(((change.module, change.name) for change in changes), "attributes")


def _check_constraints(constraints: Sequence[WidthConstraint], limits: Limits) -> None:
    limits.check("constraints", len(constraints), "constraints")
    for i, constraint in enumerate(constraints):
        limits.check_string(constraint.text, f"constraints[{i}].text")
        limits.check_string(constraint.reason, f"constraints[{i}].reason")
    check_unique(((c.text, c.reason) for c in constraints), "constraints")


def check_provenance(provenance: Sequence[Provenance], limits: Limits) -> None:
    """Check that seeds fit 64 bits, origins are known and strings are names within the limit."""
    for i, entry in enumerate(provenance):
        where = f"provenance[{i}]"
        if entry.seed not in _INTEGERS:
            raise MalformedFile(f"{where}.seed: {entry.seed} has more than 64 bits; {_AGAIN}")
        for text in (entry.criterion, entry.policy, *(t for pair in entry.versions for t in pair)):
            limits.check_name(text, where)
        if entry.origin not in ORIGINS:
            raise MalformedFile(f"{where}.origin: {entry.origin!r}, known are {ORIGINS}; {_AGAIN}")
        for text in entry.decisions:
            limits.check_decision(text, f"{where}.decisions")


def _check_outputs(outputs: Sequence[OutputChange], limits: Limits) -> None:
    """Each keeps some indices of a dimension, not all."""
    limits.check("outputs", len(outputs), "outputs")
    for i, output in enumerate(outputs):
        where = f"outputs[{i}]"
        limits.check_name(output.name, where)
        limits.check("rank", output.dim + 1, where)
        if not 0 < len(output.kept) < output.size:
            raise MalformedFile(
                f"{where}: {len(output.kept)} indices kept of {output.size}; an output that "
                f"shrinks keeps one at least, and not all; {_AGAIN}"
            )
    check_unique(((output.name, output.dim) for output in outputs), "outputs")


def _check_groups(plan: Plan, limits: Limits) -> Tables:
    limits.check("groups", len(plan.groups), "groups")
    tables = Tables(plan, limits)
    for i, group in enumerate(plan.groups):
        where = f"groups[{i}]"
        limits.check("members", len(group.members), f"{where}.members")
        limits.check_name(group.name, where)
        limits.check_name(group.kind, where)
        limits.check_string(group.mixing, where)
        _check_removed(group, f"{where}.removed")
        _check_scores(group, f"{where}.scores")
        if not is_list(group):
            check_membership(group, where, tables)
    check_unique((group.name for group in plan.groups), "groups")
    check_ranges(plan.groups)
    return tables


def _check_lists(plan: Plan) -> None:
    """Lists of blocks are of that kind, in one row, and have the children of their modules."""
    lists = [group for group in plan.groups if is_list(group)]
    if REMOVED_BLOCKS not in plan.requires:
        if lists:
            raise MalformedFile(
                f"groups: {lists[0].name}: no members, {lists[0].size} units lie nowhere; {_AGAIN}"
            )
        return
    if not any(group.removed for group in lists) or len(lists) > _LISTS:
        count = sum(len(group.removed) for group in lists)
        raise MalformedFile(
            f"requires: {list(plan.requires)}, and {len(lists)} lists of at most {_LISTS} lose "
            f"{count} {BLOCKS}; {_AGAIN}"
        )
    for group in lists:
        _check_removed(group, f"groups: {group.name}")
        if group.kind != BLOCKS or group.rows != 1:
            raise MalformedFile(
                f"groups: {group.name}: {group.kind} in {group.rows} rows without members; only "
                f"{BLOCKS} have none; {_AGAIN}"
            )
    check_unique((group.name for group in lists), "groups")
    try:
        depth_of(plan)
    except ValueError as error:
        raise MalformedFile(f"groups: {error}; {_AGAIN}") from None


def _check_removed(group: PlanGroup, where: str) -> None:
    """Removed units are sorted, in range, equally many in each row, and never all."""
    if group.size < 1 or group.rows < 1 or group.size % group.rows:
        raise MalformedFile(f"{where}: {group.size} units in {group.rows} rows; {_AGAIN}")
    if not group.removed:
        return
    if not isinstance(group.removed, Units):
        in_range = min(group.removed) >= 0 and max(group.removed) < group.size
        units = np.array(group.removed if in_range else ())  # larger integers fit no array
        if not in_range or (np.diff(units) <= 0).any():
            raise MalformedFile(f"{where}: not distinct units below {group.size}, sorted; {_AGAIN}")
    marks = marked(group.removed, group.size)
    if marks.all():
        raise MalformedFile(f"{where}: all {group.size} units, at least one must stay; {_AGAIN}")
    counts = set(marks.reshape(group.rows, group.cells).sum(axis=1).tolist())
    if len(counts) > 1:  # all rows losing all units is refused above
        raise MalformedFile(
            f"{where}: rows of {group.cells} lose {sorted(counts)} units, all must lose equally "
            f"many and keep one; {_AGAIN}"
        )


def _check_scores(group: PlanGroup, where: str) -> None:
    """One finite float32 for each unit, or none at all."""
    if group.scores is None:
        return
    if len(group.scores) != 4 * group.size:
        raise MalformedFile(
            f"{where}: {len(group.scores)} bytes, {group.size} units need {4 * group.size}; "
            f"{_AGAIN}"
        )
    broken = np.flatnonzero(~np.isfinite(np.frombuffer(group.scores, dtype="<f4")))
    if len(broken):
        raise MalformedFile(f"{where}: the score of unit {broken[0]} is not finite; {_AGAIN}")


def _check_digests(plan: Plan, shapes: Mapping[str, tuple[int, ...]]) -> None:
    depth = depth_of(plan)
    after = depth.modules(modules_after(plan.modules, plan.attributes))
    for field, found, expected in (
        ("source.tensors", plan.source.tensors, tensors_digest(plan.tensors)),
        ("source.attributes", plan.source.attributes, attributes_digest(plan.modules)),
        ("source.structure", plan.source.structure, structure_digest(plan.groups)),
        (
            "result.tensors",
            plan.result.tensors,
            tensors_digest(
                depth.tensors(
                    TensorSpec(spec.names, shapes.get(spec.name, spec.shape), spec.kind)
                    for spec in plan.tensors
                )
            ),
        ),
        ("result.attributes", plan.result.attributes, attributes_digest(after)),
    ):
        if found != expected:
            raise MalformedFile(
                f"{field}: the digest is {found.hex()[:16]}..., its table has "
                f"{expected.hex()[:16]}...; {_AGAIN}"
            )


def check_value(value: Any, where: str, limits: Limits) -> None:
    """Check an attribute's value: 64-bit integers, finite floats, a bounded number of leaves."""
    found = list(leaves(value))
    limits.check("leaves", len(found), where)
    for leaf in found:
        if isinstance(leaf, str):
            limits.check_string(leaf, where)
        elif isinstance(leaf, float) and not math.isfinite(leaf):
            raise MalformedFile(f"{where}: {leaf} is not finite; {_AGAIN}")
        elif isinstance(leaf, int) and leaf not in _INTEGERS:
            raise MalformedFile(f"{where}: {leaf} has more than 64 bits; {_AGAIN}")


def check_unique(keys: Iterable[Any], where: str) -> None:
    """Raise MalformedFile for the first repeated key."""
    seen = set()
    for key in keys:
        if key in seen:
            raise MalformedFile(f"{where}: {key!r} is there twice; {_AGAIN}")
        seen.add(key)


def _is_structural(value: Any) -> bool:
    """True if the module table lists such a value: integers, booleans and strings only."""
    return all(isinstance(leaf, bool | int | str) for leaf in leaves(value))
