"""Composition of plans that remove blocks: the lists, names and groups of both in the original's
terms.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from planc.ir.groups import apart, joined
from planc.plan.depth import REMOVED_BLOCKS, ROOT, Depth, is_list, path_of
from planc.plan.plan import ModuleSpec, Plan, PlanGroup, TensorSpec

_NAME = re.compile(r"(.*):\d+(.*)")


def in_names_of(depth: Depth, plan: Plan) -> Plan:
    """A plan for the result of another one, with the names of that one's source.

    Args:
        depth: of the other plan.
        plan: the plan for its result.
    """
    old = depth.original
    return plan.replace(
        tensors=tuple(TensorSpec(tuple(map(old, t.names)), t.shape, t.kind) for t in plan.tensors),
        modules=tuple(ModuleSpec(old(spec.path), spec.attributes) for spec in plan.modules),
        groups=tuple(renamed_group(group, old) for group in plan.groups),
        attributes=tuple(replace(change, module=old(change.module)) for change in plan.attributes),
    )


def renamed_group(group: PlanGroup, new: Callable[[str], str]) -> PlanGroup:
    """A group with other names of its tensors, or a list of blocks with another path."""
    if is_list(group):
        return replace(group, name=new(path_of(group)) or ROOT)
    tensor, dim, rest = group.name.partition(":")
    members = tuple(replace(member, tensor=new(member.tensor)) for member in group.members)
    return replace(group, name=new(tensor) + dim + rest, members=members)


def merged_lists(first: Plan, second: Plan) -> tuple[PlanGroup, ...]:
    """The lists of blocks of both plans, in the order of the modules.

    Args:
        first: a plan.
        second: a plan for its result, in the names of the first one's source.
    """
    found = {group.name: group for group in first.groups if is_list(group)}
    for group in second.groups:
        if not is_list(group):
            continue
        if group.name not in found:
            found[group.name] = group
            continue
        before = found[group.name]
        kept = [unit for unit in range(before.size) if unit not in set(before.removed)]
        removed = sorted({*before.removed, *(kept[unit] for unit in group.removed)})
        mixing = joined(sorted({*apart(before.mixing), *apart(group.mixing)}))
        found[group.name] = replace(before, removed=tuple(removed), mixing=mixing)
    order = {spec.path: i for i, spec in enumerate(first.modules)}
    return tuple(sorted(found.values(), key=lambda group: order.get(path_of(group), 0)))


def remaining(groups: Iterable[PlanGroup], depth: Depth) -> list[PlanGroup]:
    """The groups without their members in removed blocks, named by their first member left."""
    left = []
    for group in groups:
        members = tuple(m for m in group.members if depth.renamed(m.tensor) is not None)
        if members == group.members:
            left.append(group)
        elif members:
            head, match = members[0], _NAME.fullmatch(group.name)
            rest = match[2] if match else ""
            left.append(replace(group, name=f"{head.tensor}:{head.dim}{rest}", members=members))
    return left


def features(first: Plan, second: Plan, lists: Sequence[PlanGroup]) -> tuple[str, ...]:
    """The features required of a reader of the composed plan."""
    blocks = {REMOVED_BLOCKS} if any(group.removed for group in lists) else set()
    return tuple(sorted({*first.requires, *second.requires, *blocks}))
