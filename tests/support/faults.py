"""Faults in plans and in results: each function makes one, or says that there is no room for it.

A fault in a plan takes the plan and a random generator and returns another plan; one in a result
changes the pruned module it is given, in place, or returns another one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import torch
from torch import fx, nn

import planc
from planc.ir.groups import Member
from planc.modules.tree import settings
from planc.plan.plan import AttributeChange, ModuleSpec, Plan, PlanGroup, TensorSpec

Random = np.random.Generator
Item = TypeVar("Item")


class NoRoom(Exception):
    """The fault cannot be made here (no group has rows, nothing is tied, ...)."""


@dataclass(frozen=True)
class Case:
    """A model, its plan and the module to spoil, a copy of what the plan makes of the model."""

    model: nn.Module
    inputs: tuple[torch.Tensor, ...]
    plan: Plan
    smaller: nn.Module


def pick(random: Random, items: Iterable[Item]) -> Item:
    """One of ``items``."""
    found = list(items)
    if not found:
        raise NoRoom
    return found[int(random.integers(len(found)))]


# -- plans -----------------------------------------------------------------------------------


def with_group(plan: Plan, group: PlanGroup, **changes: Any) -> Plan:
    """The plan with one group changed."""
    groups = tuple(replace(g, **changes) if g is group else g for g in plan.groups)
    return plan.replace(groups=groups)


def with_member(plan: Plan, random: Random, change: Callable[[Member], Member | None]) -> Plan:
    """The plan with one member of one group changed, or dropped."""
    changed = [
        (group, i, new)
        for group in plan.groups
        for i, member in enumerate(group.members)
        if (new := change(member)) is not member
    ]
    group, i, new = pick(random, changed)
    middle = () if new is None else (new,)
    return with_group(plan, group, members=group.members[:i] + middle + group.members[i + 1 :])


def with_run(plan: Plan, random: Random, field: str, by: int) -> Plan:
    """The plan with one field of the first run of one member changed."""

    def change(member: Member) -> Member:
        run = member.runs[0]
        return replace(
            member, runs=(replace(run, **{field: getattr(run, field) + by}), *member.runs[1:])
        )

    return with_member(plan, random, change)


def removed_unit_off_by_one(plan: Plan, random: Random) -> Plan:
    group, unit, other = pick(
        random,
        (
            (group, unit, other)
            for group in plan.groups
            for unit in group.removed
            for other in (unit - 1, unit + 1)
            if 0 <= other < group.size
            and other not in group.removed
            and other // group.cells == unit // group.cells
        ),
    )
    return with_group(plan, group, removed=tuple(sorted({*group.removed, other} - {unit})))


def removed_units_of_two_groups_exchanged(plan: Plan, random: Random) -> Plan:
    a, b = pick(
        random,
        ((a, b) for a in plan.groups for b in plan.groups if a is not b and a.removed != b.removed),
    )
    removed = {id(a): b.removed, id(b): a.removed}
    groups = tuple(replace(g, removed=removed.get(id(g), g.removed)) for g in plan.groups)
    return plan.replace(groups=groups)


def one_unit_more(plan: Plan, random: Random) -> Plan:
    group = pick(random, plan.groups)
    more = pick(random, set(range(group.size)) - set(group.removed))
    return with_group(plan, group, removed=tuple(sorted({*group.removed, more})))


def one_unit_fewer(plan: Plan, random: Random) -> Plan:
    group = pick(random, (g for g in plan.groups if g.removed))
    less = pick(random, group.removed)
    return with_group(plan, group, removed=tuple(u for u in group.removed if u != less))


def one_unit_more_in_each_row(plan: Plan, random: Random) -> Plan:
    group = pick(random, (g for g in plan.groups if g.rows > 1 and g.kept // g.rows > 1))
    more = set(group.removed)
    for row in range(group.rows):
        units = set(range(row * group.cells, (row + 1) * group.cells))
        more.add(min(units - more))
    return with_group(plan, group, removed=tuple(sorted(more)))


def unit_moved_to_another_row(plan: Plan, random: Random) -> Plan:
    group = pick(random, (g for g in plan.groups if g.rows > 1 and g.removed))
    unit = pick(random, group.removed)
    other = pick(
        random,
        (
            u
            for u in range(group.size)
            if u not in group.removed and u // group.cells != unit // group.cells
        ),
    )
    return with_group(plan, group, removed=tuple(sorted({*group.removed, other} - {unit})))


def everything_removed(plan: Plan, random: Random) -> Plan:
    group = pick(random, plan.groups)
    return with_group(plan, group, removed=tuple(range(group.size)))


def removed_backwards(plan: Plan, random: Random) -> Plan:
    group = pick(random, (g for g in plan.groups if len(g.removed) > 1))
    return with_group(plan, group, removed=group.removed[::-1])


def removed_twice(plan: Plan, random: Random) -> Plan:
    group = pick(random, (g for g in plan.groups if g.removed))
    return with_group(plan, group, removed=(group.removed[0], *group.removed))


def removed_beyond_the_end(plan: Plan, random: Random) -> Plan:
    group = pick(random, plan.groups)
    return with_group(plan, group, removed=(*group.removed[:-1], group.size))


def removed_below_zero(plan: Plan, random: Random) -> Plan:
    group = pick(random, (g for g in plan.groups if g.removed))
    return with_group(plan, group, removed=(-1, *group.removed[1:]))


def nothing_removed(plan: Plan, random: Random) -> Plan:
    return plan.replace(groups=tuple(replace(g, removed=()) for g in plan.groups))


def member_dropped(plan: Plan, random: Random) -> Plan:
    return with_member(plan, random, lambda member: None)


def member_twice(plan: Plan, random: Random) -> Plan:
    group = pick(random, plan.groups)
    return with_group(plan, group, members=(*group.members, pick(random, group.members)))


def member_with_another_dim(plan: Plan, random: Random) -> Plan:
    ranks = {spec.name: len(spec.shape) for spec in plan.tensors}

    def change(member: Member) -> Member:
        if ranks[member.tensor] == 1:
            return member
        return replace(member, dim=(member.dim + 1) % ranks[member.tensor])

    return with_member(plan, random, change)


def member_of_another_tensor(plan: Plan, random: Random) -> Plan:
    shapes = {spec.name: spec.shape for spec in plan.tensors}

    def change(member: Member) -> Member:
        for name, shape in shapes.items():
            if name != member.tensor and shape == shapes[member.tensor]:
                return replace(member, tensor=name)
        return member

    return with_member(plan, random, change)


def member_of_no_tensor(plan: Plan, random: Random) -> Plan:
    return with_member(plan, random, lambda member: replace(member, tensor="nowhere.weight"))


def range_of_a_ragged_member_off_by_one(plan: Plan, random: Random) -> Plan:
    return with_member(
        plan,
        random,
        lambda m: m if m.over is None else replace(m, over=replace(m.over, stop=m.over.stop - 1)),
    )


def range_of_a_ragged_member_dropped(plan: Plan, random: Random) -> Plan:
    return with_member(plan, random, lambda m: m if m.over is None else replace(m, over=None))


def run_start_off_by_one(plan: Plan, random: Random) -> Plan:
    return with_run(plan, random, "start", 1)


def run_step_off_by_one(plan: Plan, random: Random) -> Plan:
    return with_run(plan, random, "step", 1)


def run_span_off_by_one(plan: Plan, random: Random) -> Plan:
    return with_run(plan, random, "span", 1)


def run_unit_off_by_one(plan: Plan, random: Random) -> Plan:
    return with_run(plan, random, "unit", 1)


def run_too_short(plan: Plan, random: Random) -> Plan:
    return with_run(plan, random, "count", -1)


def run_repeated(plan: Plan, random: Random) -> Plan:
    return with_run(plan, random, "repeats", 1)


def group_too_large(plan: Plan, random: Random) -> Plan:
    group = pick(random, plan.groups)
    return with_group(plan, group, size=group.size + group.rows)


def group_with_more_rows(plan: Plan, random: Random) -> Plan:
    group = pick(random, (g for g in plan.groups if g.size % (2 * g.rows) == 0))
    return with_group(plan, group, rows=2 * group.rows)


def group_with_another_name(plan: Plan, random: Random) -> Plan:
    return with_group(plan, pick(random, plan.groups), name="other.weight:0")


def group_of_another_kind(plan: Plan, random: Random) -> Plan:
    return with_group(plan, pick(random, plan.groups), kind="experts")


def group_mixing_denied_or_claimed(plan: Plan, random: Random) -> Plan:
    group = pick(random, plan.groups)
    return with_group(plan, group, mixing="" if group.mixing else "softmax over it")


def group_dropped(plan: Plan, random: Random) -> Plan:
    group = pick(random, plan.groups)
    return plan.replace(groups=tuple(g for g in plan.groups if g is not group))


def group_twice(plan: Plan, random: Random) -> Plan:
    return plan.replace(groups=(*plan.groups, pick(random, plan.groups)))


def groups_in_another_order(plan: Plan, random: Random) -> Plan:
    if len(plan.groups) < 2:
        raise NoRoom
    return plan.replace(groups=plan.groups[::-1])


def with_change(plan: Plan, random: Random, **changes: Any) -> Plan:
    at = pick(random, range(len(plan.attributes)))
    new = replace(plan.attributes[at], **changes)
    return plan.replace(attributes=(*plan.attributes[:at], new, *plan.attributes[at + 1 :]))


def attribute_off_by_one(plan: Plan, random: Random) -> Plan:
    change = pick(random, (c for c in plan.attributes if type(c.after) is int))
    new = replace(change, after=change.after + 1)
    return plan.replace(attributes=tuple(new if c is change else c for c in plan.attributes))


def attribute_that_was_something_else(plan: Plan, random: Random) -> Plan:
    return with_change(plan, random, before=1000)


def attribute_change_dropped(plan: Plan, random: Random) -> Plan:
    change = pick(random, plan.attributes)
    return plan.replace(attributes=tuple(c for c in plan.attributes if c is not change))


def attribute_of_another_module(plan: Plan, random: Random) -> Plan:
    return with_change(plan, random, module="")


def attribute_of_another_name(plan: Plan, random: Random) -> Plan:
    return with_change(plan, random, name="padding_mode")


def attribute_changed_for_nothing(plan: Plan, random: Random) -> Plan:
    changed = {(change.module, change.name) for change in plan.attributes}
    change = pick(
        random,
        (
            AttributeChange(module.path, name, value, value + 1)
            for module in plan.modules
            for name, value in module.attributes
            if type(value) is int and (module.path, name) not in changed
        ),
    )
    return plan.replace(attributes=tuple(sorted((*plan.attributes, change), key=str)))


def with_digest(plan: Plan, of: str, field: str) -> Plan:
    fingerprints = getattr(plan, of)
    digest = getattr(fingerprints, field)
    wrong = bytes([digest[0] ^ 1]) + digest[1:]
    return plan.replace(**{of: replace(fingerprints, **{field: wrong})})


def source_tensors_digest_wrong(plan: Plan, random: Random) -> Plan:
    return with_digest(plan, "source", "tensors")


def source_attributes_digest_wrong(plan: Plan, random: Random) -> Plan:
    return with_digest(plan, "source", "attributes")


def source_structure_digest_wrong(plan: Plan, random: Random) -> Plan:
    return with_digest(plan, "source", "structure")


def result_tensors_digest_wrong(plan: Plan, random: Random) -> Plan:
    return with_digest(plan, "result", "tensors")


def result_attributes_digest_wrong(plan: Plan, random: Random) -> Plan:
    return with_digest(plan, "result", "attributes")


def result_structure_digest_wrong(plan: Plan, random: Random) -> Plan:
    return with_digest(plan, "result", "structure")


def shapes_digest_wrong(plan: Plan, random: Random) -> Plan:
    return plan.replace(shapes=bytes(32))


def cost_before_wrong(plan: Plan, random: Random) -> Plan:
    field = pick(random, ("macs", "params", "bytes"))
    cost = plan.cost_before
    return plan.replace(cost_before=replace(cost, **{field: getattr(cost, field) - 1}))


def cost_after_wrong(plan: Plan, random: Random) -> Plan:
    field = pick(random, ("macs", "params", "bytes"))
    cost = plan.cost_after
    return plan.replace(cost_after=replace(cost, **{field: getattr(cost, field) + 1}))


def target_flipped(plan: Plan, random: Random) -> Plan:
    return plan.replace(target="graph" if plan.target == "module" else "module")


def target_unknown(plan: Plan, random: Random) -> Plan:
    return plan.replace(target="onnx")


def feature_required(plan: Plan, random: Random) -> Plan:
    return plan.replace(requires=("quantisation",))


def with_tensor(plan: Plan, spec: TensorSpec, *new: TensorSpec) -> Plan:
    tensors = [item for t in plan.tensors for item in (new if t is spec else (t,))]
    return plan.replace(tensors=tuple(tensors))


def tensor_of_another_shape(plan: Plan, random: Random) -> Plan:
    spec = pick(random, (t for t in plan.tensors if t.shape))
    return with_tensor(plan, spec, replace(spec, shape=(spec.shape[0] - 1, *spec.shape[1:])))


def tensor_of_another_kind(plan: Plan, random: Random) -> Plan:
    spec = pick(random, plan.tensors)
    other = "buffer" if spec.kind == "parameter" else "parameter"
    return with_tensor(plan, spec, replace(spec, kind=other))


def tensor_of_another_name(plan: Plan, random: Random) -> Plan:
    spec = pick(random, plan.tensors)
    return with_tensor(plan, spec, replace(spec, names=("other.weight", *spec.names[1:])))


def tensor_dropped(plan: Plan, random: Random) -> Plan:
    return with_tensor(plan, pick(random, plan.tensors))


def ties_cut(plan: Plan, random: Random) -> Plan:
    spec = pick(random, (t for t in plan.tensors if len(t.names) > 1))
    return with_tensor(plan, spec, *(replace(spec, names=(name,)) for name in spec.names))


def module_with_another_attribute(plan: Plan, random: Random) -> Plan:
    spec, name, value = pick(
        random,
        (
            (spec, name, value)
            for spec in plan.modules
            for name, value in spec.attributes
            if type(value) is int
        ),
    )
    attributes = tuple(sorted({**dict(spec.attributes), name: value + 1}.items()))
    modules = tuple(replace(m, attributes=attributes) if m is spec else m for m in plan.modules)
    return plan.replace(modules=modules)


def module_dropped(plan: Plan, random: Random) -> Plan:
    spec = pick(random, plan.modules)
    return plan.replace(modules=tuple(m for m in plan.modules if m is not spec))


def module_too_many(plan: Plan, random: Random) -> Plan:
    return plan.replace(modules=(*plan.modules, ModuleSpec("ghost", ())))


def inputs_of_another_shape(plan: Plan, random: Random) -> Plan:
    top, args, kwargs = plan.inputs
    kind, shape, dtype, *_ = args[1]
    return plan.replace(inputs=(top, (args[0], (kind, (shape[0] + 1, *shape[1:]), dtype)), kwargs))


def inputs_of_another_type(plan: Plan, random: Random) -> Plan:
    top, args, kwargs = plan.inputs
    kind, shape, *_ = args[1]
    return plan.replace(inputs=(top, (args[0], (kind, shape, "complex64")), kwargs))


def inputs_missing(plan: Plan, random: Random) -> Plan:
    return plan.replace(inputs=("tuple", ("tuple",), ("dict",)))


PlanFault = Callable[[Plan, Random], Plan]
IN_PLANS: tuple[PlanFault, ...] = (
    removed_unit_off_by_one,
    removed_units_of_two_groups_exchanged,
    one_unit_more,
    one_unit_fewer,
    one_unit_more_in_each_row,
    unit_moved_to_another_row,
    everything_removed,
    removed_backwards,
    removed_twice,
    removed_beyond_the_end,
    removed_below_zero,
    nothing_removed,
    member_dropped,
    member_twice,
    member_with_another_dim,
    member_of_another_tensor,
    member_of_no_tensor,
    range_of_a_ragged_member_off_by_one,
    range_of_a_ragged_member_dropped,
    run_start_off_by_one,
    run_step_off_by_one,
    run_span_off_by_one,
    run_unit_off_by_one,
    run_too_short,
    run_repeated,
    group_too_large,
    group_with_more_rows,
    group_with_another_name,
    group_of_another_kind,
    group_mixing_denied_or_claimed,
    group_dropped,
    group_twice,
    groups_in_another_order,
    attribute_off_by_one,
    attribute_that_was_something_else,
    attribute_change_dropped,
    attribute_of_another_module,
    attribute_of_another_name,
    attribute_changed_for_nothing,
    source_tensors_digest_wrong,
    source_attributes_digest_wrong,
    source_structure_digest_wrong,
    result_tensors_digest_wrong,
    result_attributes_digest_wrong,
    result_structure_digest_wrong,
    shapes_digest_wrong,
    cost_before_wrong,
    cost_after_wrong,
    target_flipped,
    target_unknown,
    feature_required,
    tensor_of_another_shape,
    tensor_of_another_kind,
    tensor_of_another_name,
    tensor_dropped,
    ties_cut,
    module_with_another_attribute,
    module_dropped,
    module_too_many,
    inputs_of_another_shape,
    inputs_of_another_type,
    inputs_missing,
)

# -- results ---------------------------------------------------------------------------------


def tensors_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers under all their names."""
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


def floating(case: Case) -> dict[str, torch.Tensor]:
    return {n: t for n, t in tensors_of(case.smaller).items() if t.is_floating_point() and t.dim()}


def put(model: nn.Module, name: str, tensor: torch.Tensor | None) -> None:
    """Puts a tensor in the place of the one with that name, whatever that was."""
    path, _, last = name.rpartition(".")
    module = model.get_submodule(path)
    module._parameters.pop(last, None)
    module._buffers.pop(last, None)
    if isinstance(tensor, nn.Parameter) or tensor is None:
        module.register_parameter(last, tensor)
    else:
        module.register_buffer(last, tensor)


def dense_dims(case: Case, name: str) -> list[tuple[int, Any]]:
    """Dimensions of a tensor that the plan shortens, with the indices that stay."""
    cut = case.plan.cuts.get(name)
    return [(d, kept) for d, kept in enumerate(cut.kept) if kept is not None] if cut else []


def one_ulp(case: Case, random: Random) -> None:
    tensor = pick(random, dict(case.smaller.named_parameters()).values()).data
    at = int(random.integers(tensor.numel()))
    flat = tensor.view(-1)
    flat[at] = torch.nextafter(flat[at], torch.tensor(100.0))


def one_ulp_in_a_buffer(case: Case, random: Random) -> None:
    buffers = [b for b in case.smaller.buffers() if b.is_floating_point()]
    flat = pick(random, buffers).view(-1)
    flat[0] = torch.nextafter(flat[0], torch.tensor(100.0))


def sign_of_a_zero(case: Case, random: Random) -> None:
    name = pick(random, (name for name in floating(case) if name not in case.plan.cuts))
    tensors_of(case.model)[name].data.view(-1)[0] = 0.0  # the case's own copy of the model
    tensors_of(case.smaller)[name].data.view(-1)[0] = -0.0


def two_rows_swapped(case: Case, random: Random) -> None:
    tensor = pick(random, (t for t in floating(case).values() if t.shape[0] > 1)).data
    tensor[[0, 1]] = tensor[[1, 0]].clone()


def two_columns_swapped(case: Case, random: Random) -> None:
    tensors = (t for t in floating(case).values() if t.dim() > 1 and t.shape[1] > 1)
    tensor = pick(random, tensors).data
    tensor[:, [0, 1]] = tensor[:, [1, 0]].clone()


def another_slice_taken(case: Case, random: Random) -> None:
    name, dim, kept = pick(
        random, ((n, d, k) for n in case.plan.cuts for d, k in dense_dims(case, n))
    )
    cut, old = case.plan.cuts[name], tensors_of(case.model)[name].detach()
    if cut.ragged:
        raise NoRoom
    for d, indices in enumerate(cut.kept):
        if d == dim:
            spare = sorted(set(range(old.shape[dim])) - set(kept.tolist()))
            indices = np.sort(np.append(kept[1:], pick(random, spare)))
        if indices is not None:
            old = old.index_select(d, torch.as_tensor(indices))
    tensors_of(case.smaller)[name].data.copy_(old)


def rows_in_another_order(case: Case, random: Random) -> None:
    tensor = pick(random, (t for t in floating(case).values() if t.shape[0] > 2)).data
    tensor.copy_(tensor.flip(0).clone())


def running_mean_not_sliced_in_order(case: Case, random: Random) -> None:
    means = [b for n, b in case.smaller.named_buffers() if n.endswith("running_mean")]
    mean = pick(random, means)
    mean.copy_(mean.roll(1).clone())


def zeroed(case: Case, random: Random) -> None:
    pick(random, floating(case).values()).data.zero_()


def stale_attribute(case: Case, random: Random) -> None:
    change = pick(random, case.plan.attributes)
    vars(case.smaller.get_submodule(change.module))[change.name] = change.before


def wrong_attribute(case: Case, random: Random) -> None:
    module, name, value = pick(
        random,
        (
            (module, name, value)
            for spec in case.plan.modules
            for module in (case.smaller.get_submodule(spec.path),)
            for name, _ in spec.attributes
            if type(value := vars(module).get(name)) is int
        ),
    )
    vars(module)[name] = value + 1


def wrong_flag(case: Case, random: Random) -> None:
    module, name, value = pick(
        random,
        (
            (module, name, value)
            for module in case.smaller.modules()
            for name in settings(module)
            if type(value := vars(module).get(name)) is bool
        ),
    )
    vars(module)[name] = not value


def wrong_number(case: Case, random: Random) -> None:
    module, name, value = pick(
        random,
        (
            (module, name, value)
            for module in case.smaller.modules()
            for name in settings(module)
            if type(value := vars(module).get(name)) is float
        ),
    )
    vars(module)[name] = value * (1 + 1e-9) + 1e-12


def lost_tie(case: Case, random: Random) -> None:
    names = pick(random, (spec.names for spec in case.plan.tensors if len(spec.names) > 1))
    put(case.smaller, names[1], nn.Parameter(tensors_of(case.smaller)[names[0]].detach().clone()))


def new_tie(case: Case, random: Random) -> None:
    tensors = dict(case.smaller.named_parameters())
    a, b = pick(
        random,
        (
            (a, b)
            for a in tensors
            for b in tensors
            if a < b and tensors[a].shape == tensors[b].shape
        ),
    )
    originals = dict(case.model.named_parameters())
    for tensor in (originals[a], originals[b], tensors[a]):  # so that no value is wrong
        tensor.data.fill_(0.5)
    put(case.smaller, b, tensors[a])


def memory_of_the_original(case: Case, random: Random) -> None:
    originals = tensors_of(case.model)
    same = [n for n, t in floating(case).items() if originals[n].shape == t.shape]
    name = pick(random, same)
    old = originals[name]
    grad = old.requires_grad
    shared = nn.Parameter(old.detach(), grad) if isinstance(old, nn.Parameter) else old
    put(case.smaller, name, shared)


def memory_shared_by_two(case: Case, random: Random) -> None:
    parameters = dict(case.smaller.named_parameters())
    names = sorted(parameters)
    a, b = pick(random, pairwise(names))
    both = torch.cat([parameters[a].detach().view(-1), parameters[b].detach().view(-1)])
    for name, part in zip((a, b), both.split([parameters[n].numel() for n in (a, b)]), strict=True):
        parameters[name].data = part.view(parameters[name].shape)


def grad_flag_flipped(case: Case, random: Random) -> None:
    parameter = pick(random, case.smaller.parameters())
    parameter.requires_grad_(not parameter.requires_grad)


def wider_type(case: Case, random: Random) -> None:
    parameter = pick(random, case.smaller.parameters())
    parameter.data = parameter.data.double()


def another_memory_format(case: Case, random: Random) -> None:
    tensor = pick(
        random,
        (
            t
            for t in case.smaller.parameters()
            if t.dim() == 4 and t.shape[1] > 1 and t.shape[2] > 1
        ),
    )
    tensor.data = tensor.data.to(memory_format=torch.channels_last)


def parameter_too_many(case: Case, random: Random) -> None:
    module = pick(random, case.smaller.modules())
    module.register_parameter("extra", nn.Parameter(torch.zeros(3)))


def captured_parameter_too_many(case: Case, random: Random) -> None:
    case.smaller.register_parameter("captured_900", nn.Parameter(torch.zeros(3)))


def buffer_too_many(case: Case, random: Random) -> None:
    module = pick(random, case.smaller.modules())
    module.register_buffer("extra", torch.zeros(3))


def parameter_missing(case: Case, random: Random) -> None:
    names = [n for n, _ in case.smaller.named_parameters() if n.endswith("bias")]
    put(case.smaller, pick(random, names), None)


def parameter_made_a_buffer(case: Case, random: Random) -> None:
    name, parameter = pick(random, case.smaller.named_parameters())
    put(case.smaller, name, parameter.detach().requires_grad_(parameter.requires_grad))


def buffer_no_longer_saved(case: Case, random: Random) -> None:
    name = pick(random, dict(case.smaller.named_buffers()))
    path, _, last = name.rpartition(".")
    case.smaller.get_submodule(path)._non_persistent_buffers_set.add(last)


def activation_exchanged(case: Case, random: Random) -> None:
    path, old = pick(
        random,
        (
            (path, module)
            for path, module in case.smaller.named_modules()
            if isinstance(module, nn.ReLU | nn.GELU)
        ),
    )
    parent, _, last = path.rpartition(".")
    new = nn.ReLU6(inplace=True) if isinstance(old, nn.ReLU) else nn.SiLU()
    setattr(case.smaller.get_submodule(parent), last, new.eval())


def subclass_in_its_place(case: Case, random: Random) -> None:
    module = pick(random, (m for m in case.smaller.modules() if type(m) in (nn.Linear, nn.Conv2d)))
    module.__class__ = type("Linear", (type(module),), {})


def another_class(case: Case, random: Random) -> None:
    case.smaller.__class__ = type(type(case.smaller).__name__, (type(case.smaller),), {})


def module_too_many_in_the_result(case: Case, random: Random) -> None:
    case.smaller.add_module("extra", nn.Identity().eval())


def one_module_in_training(case: Case, random: Random) -> None:
    pick(random, case.smaller.modules()).training = True


def hook_added(case: Case, random: Random) -> None:
    pick(random, case.smaller.modules()).register_forward_hook(lambda *_: None)


def output_scaled(case: Case, random: Random) -> None:
    forward = case.smaller.forward
    vars(case.smaller)["forward"] = lambda *args: forward(*args) * (1 + 2**-20)


def original_returned(case: Case, random: Random) -> nn.Module:
    return case.model


def copy_of_the_original(case: Case, random: Random) -> nn.Module:
    return copy.deepcopy(case.model)


def masked_instead_of_cut(case: Case, random: Random) -> nn.Module:
    return planc.mask(case.plan, case.model)


def result_of_another_plan(case: Case, random: Random) -> nn.Module:
    seed = int(random.integers(1000))
    target: Any = case.plan.target
    other = planc.compile(
        case.model, case.inputs, ratio=0.5, criterion="random", seed=seed, target=target
    )
    return planc.apply(other, case.model)


def graph_instead_of_module(case: Case, random: Random) -> nn.Module:
    if case.plan.target == "graph":
        raise NoRoom
    plan = planc.compile(case.model, case.inputs, ratio=0.5, target="graph")
    return planc.apply(plan, case.model)


ResultFault = Callable[[Case, Random], nn.Module | None]
IN_RESULTS: tuple[ResultFault, ...] = (
    one_ulp,
    one_ulp_in_a_buffer,
    sign_of_a_zero,
    two_rows_swapped,
    two_columns_swapped,
    another_slice_taken,
    rows_in_another_order,
    running_mean_not_sliced_in_order,
    zeroed,
    stale_attribute,
    wrong_attribute,
    wrong_flag,
    wrong_number,
    lost_tie,
    new_tie,
    memory_of_the_original,
    memory_shared_by_two,
    grad_flag_flipped,
    wider_type,
    another_memory_format,
    parameter_too_many,
    captured_parameter_too_many,
    buffer_too_many,
    parameter_missing,
    parameter_made_a_buffer,
    buffer_no_longer_saved,
    activation_exchanged,
    subclass_in_its_place,
    another_class,
    module_too_many_in_the_result,
    one_module_in_training,
    hook_added,
    output_scaled,
    original_returned,
    copy_of_the_original,
    masked_instead_of_cut,
    result_of_another_plan,
    graph_instead_of_module,
)

# -- results that are graphs -----------------------------------------------------------------


def calls(case: Case) -> list[fx.Node]:
    assert isinstance(case.smaller, fx.GraphModule)
    return [node for node in case.smaller.graph.nodes if node.op == "call_function"]


def rebuilt(case: Case) -> None:
    assert isinstance(case.smaller, fx.GraphModule)
    case.smaller.graph.lint()
    case.smaller.recompile()


def number_in_the_graph_off_by_one(case: Case, random: Random) -> None:
    node, i = pick(
        random,
        (
            (node, i)
            for node in calls(case)
            for i, arg in enumerate(node.args)
            if type(arg) in (int, float)
        ),
    )
    node.update_arg(i, node.args[i] + 1)
    rebuilt(case)


def number_in_the_graph_off_a_little(case: Case, random: Random) -> None:
    node, i = pick(
        random,
        (
            (node, i)
            for node in calls(case)
            for i, arg in enumerate(node.args)
            if type(arg) is float
        ),
    )
    node.update_arg(i, node.args[i] * (1 + 1e-9))
    rebuilt(case)


def size_in_the_graph_wrong(case: Case, random: Random) -> None:
    node, i = pick(
        random,
        (
            (node, i)
            for node in calls(case)
            for i, arg in enumerate(node.args)
            if isinstance(arg, list | tuple) and arg and type(arg[-1]) is int
        ),
    )
    node.update_arg(i, (*node.args[i][:-1], node.args[i][-1] + 1))
    rebuilt(case)


def operator_exchanged(case: Case, random: Random) -> None:
    node = pick(
        random,
        (
            n
            for n in calls(case)
            if n.target in (torch.ops.aten.relu.default, torch.ops.aten.softmax.int)
        ),
    )
    node.target = (
        torch.ops.aten.relu6.default
        if node.target is torch.ops.aten.relu.default
        else torch.ops.aten.log_softmax.int
    )
    rebuilt(case)


def operator_skipped(case: Case, random: Random) -> None:
    assert isinstance(case.smaller, fx.GraphModule)
    node = pick(random, (n for n in calls(case) if n.target is torch.ops.aten.relu.default))
    node.replace_all_uses_with(node.args[0])  # type: ignore[arg-type]
    case.smaller.graph.erase_node(node)
    rebuilt(case)


def weights_of_two_operators_exchanged(case: Case, random: Random) -> None:
    assert isinstance(case.smaller, fx.GraphModule)
    tensors = tensors_of(case.smaller)
    nodes = [node for node in case.smaller.graph.nodes if node.op == "get_attr"]
    a, b = pick(
        random,
        (
            (a, b)
            for a in nodes
            for b in nodes
            if a.target < b.target and tensors[a.target].shape == tensors[b.target].shape
        ),
    )
    a.target, b.target = b.target, a.target
    rebuilt(case)


def module_instead_of_graph(case: Case, random: Random) -> nn.Module:
    plan = planc.compile(case.model, case.inputs, ratio=0.5)
    return planc.apply(plan, case.model)


IN_GRAPHS: tuple[ResultFault, ...] = (
    one_ulp,
    one_ulp_in_a_buffer,
    two_rows_swapped,
    two_columns_swapped,
    another_slice_taken,
    lost_tie,
    memory_of_the_original,
    grad_flag_flipped,
    wider_type,
    parameter_too_many,
    parameter_missing,
    parameter_made_a_buffer,
    original_returned,
    result_of_another_plan,
    number_in_the_graph_off_by_one,
    number_in_the_graph_off_a_little,
    size_in_the_graph_wrong,
    operator_exchanged,
    operator_skipped,
    weights_of_two_operators_exchanged,
    module_instead_of_graph,
)
