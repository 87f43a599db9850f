"""Composition of a plan with a second one, made for the first plan's result.

The composed plan does both at once, in the indices of the original. Every unit of a group of the
second plan is followed back, through the indices kept by the first one, to a unit of a group of the
first. Before it is returned, the composed plan is checked to cut every tensor exactly like the two
plans in sequence.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from planc.errors import PolicyError, StalePlan
from planc.ir.graph import CAPTURED
from planc.ir.groups import Indices
from planc.ir.units import marked
from planc.plan.arguments import a_plan, takes
from planc.plan.deeper import features, in_names_of, merged_lists, remaining
from planc.plan.depth import Depth, depth_of, is_list
from planc.plan.fingerprint import (
    attributes_digest,
    canonical,
    first_difference,
    joined,
    lists_classes,
    modules_after,
    modules_before,
    result_modules,
    result_tensors,
    shared,
    structure_digest,
    tensors_after,
    tensors_digest,
)
from planc.plan.origin import Origin, own_tensors, units_in
from planc.plan.plan import (
    CLASS,
    AttributeChange,
    Cut,
    Latency,
    ModuleSpec,
    OutputChange,
    Plan,
    PlanGroup,
    TensorSpec,
)

_NAME_ONLY = "Module"  # the class of a rewritten graph's modules present in name only


@takes(first=a_plan, second=a_plan)
def compose(first: Plan, second: Plan) -> Plan:
    """Compose two plans: the effect of ``second`` on the result of ``first``, as one plan.

    Composition is associative. Rows of a ragged group without any kept unit (their heads are
    removed) lose their first remaining units, until every row loses equally many.

    Plans for ``target="graph"`` compose like those for modules: the result of ``first`` is a graph
    with the original's tensor names, so the composed plan rewrites the original's graph once.
    Constants of the original, held by the graph as buffers, cannot be cut.

    Args:
        first: a plan for the original model.
        second: a plan for the same target, made for the result of ``first``.

    Returns:
        A plan for the original model, with the provenance of both, and without scores, because
        those of two computations do not compare.

    Raises:
        StalePlan: ``second`` was not made for the result of ``first``, or its groups are not groups
            of ``first``, or it cuts a constant; names the first difference.
        PolicyError: the plans have different targets.
    """
    _check_chain(first, second)
    _check_constants(first, second)
    second = in_names_of(depth_of(first), second)
    lists = merged_lists(first, second)
    depth = Depth((spec.path for spec in first.modules), lists)
    origin = Origin(first, second.tensors)
    groups = remaining((g for g in first.groups if not is_list(g)), depth)
    for group in second.groups:
        if group.removed and not is_list(group):
            at, units = _find(origin, groups, group)
            groups[at] = _with_removed(groups[at], units)
    changes = tuple(c for c in _chained(first, second) if depth.renamed(c.module) is not None)
    modules = _listed(first, second)
    after = depth.modules(modules_after(modules, changes))
    groups = [*lists, *groups] if depth else groups
    structure = structure_digest(groups) if depth else first.source.structure
    composed = first.replace(
        source=replace(first.source, attributes=attributes_digest(modules), structure=structure),
        result=replace(second.result, attributes=attributes_digest(after)),
        modules=modules,
        groups=tuple(replace(group, scores=None) for group in groups),
        attributes=changes,
        outputs=_outputs(first.outputs, second.outputs),
        provenance=first.provenance + second.provenance,
        cost_after=second.cost_after,
        latency=_latency(first.latency, second.latency),
        shapes=second.shapes,
        requires=features(first, second, lists) if depth else first.requires,
    )
    _check_cuts(first, second, composed, origin)
    return composed if first.target == "module" else _of_the_original(composed)


def _latency(first: Latency | None, second: Latency | None) -> Latency | None:
    """The latency before the first plan and after the second; None unless on one machine."""
    if first is None or second is None or first.machine != second.machine:
        return None
    return replace(second, before=first.before)


def _of_the_original(composed: Plan) -> Plan:
    """A graph's plan with the digest of the original's remaining tensors.

    The second plan's digest is that of a graph, with the original's constants as buffers.
    """
    tensors = tensors_digest(tensors_after(composed.tensors, composed.cuts))
    return composed.replace(result=replace(composed.result, tensors=tensors))


def _check_chain(first: Plan, second: Plan) -> None:
    if first.target != second.target:
        raise PolicyError(
            f"the first plan is for target {first.target!r}, the second for {second.target!r}; "
            "compile both for the same target"
        )
    same_tensors = first.result.tensors == second.source.tensors
    if same_tensors and first.result.attributes == second.source.attributes:
        return
    modules = shared(result_modules(first), second.modules)
    tensors, found = second.tensors, second.modules
    if first.target == "graph":
        tensors, found = own_tensors(first, second.tensors), _called(second.modules)
        modules = tuple(spec for spec in modules if spec.path in {m.path for m in found})
        same_tensors = tensors_digest(tensors) == first.result.tensors
    difference = first_difference(result_tensors(first), modules, tensors, found)
    if difference is None:
        return
    what = "attributes" if same_tensors else "tensors"
    raise StalePlan(
        f"the second plan was not made for what the first produces, the {what} differ: "
        f"{difference}; compile it from the pruned model"
    )


def _listed(first: Plan, second: Plan) -> tuple[ModuleSpec, ...]:
    """The module table of the composed plan: the entries of both plans.

    For plans of two versions, it is the entries of the first and the changes of the second.
    """
    more = second.modules if first.target == "module" else _called(second.modules)
    if lists_classes(first.modules) != lists_classes(more):
        more = modules_before(second.attributes)
    return joined(first.modules, more)


def _called(modules: tuple[ModuleSpec, ...]) -> tuple[ModuleSpec, ...]:
    """The modules called by a rewritten graph; others exist there in name only."""
    kinds = {spec.path: dict(spec.attributes).get(CLASS) for spec in modules if spec.attributes}
    return tuple(s for s in modules if s.path and kinds.get(s.path, _NAME_ONLY) != _NAME_ONLY)


def _check_constants(first: Plan, second: Plan) -> None:
    own = {spec.name for spec in own_tensors(first, second.tensors)}
    for group in second.groups:
        constants = [m.tensor for m in group.members if m.tensor not in own]
        if group.removed and constants:
            raise StalePlan(
                f"{group} of the second plan cuts {constants[0]}, a constant of the original that "
                "only its graph holds as a buffer: no plan for the original can cut it; compile "
                f'the second plan with keep="{CAPTURED}*"'
            )


def _find(origin: Origin, groups: list[PlanGroup], group: PlanGroup) -> tuple[int, Indices]:
    """The group of the first plan with the units of ``group``, and the units to remove there."""
    head = group.members[0]
    tensor, dim = origin.names[head.tensor], head.dim
    for at, candidate in enumerate(groups):
        if any((m.tensor, m.dim) == (tensor, dim) for m in candidate.members):
            units = units_in(origin, candidate, group)
            if units is not None and _may_lose(candidate, units[list(group.removed)]):
                return at, units[list(group.removed)]
    raise StalePlan(
        f"the units of {group} of the second plan are units of no group of the first that may "
        "lose them; compile the second plan with the same planc, from the pruned model"
    )


def _populations(group: PlanGroup, units: Indices) -> tuple[NDArray[np.bool_], Indices]:
    """The removed units row by row, with ``units`` added, and their number in each row."""
    gone = marked(group.removed, group.size)
    gone[units] = True
    rows = gone.reshape(group.rows, -1)
    populations: Indices = rows.sum(axis=1)
    return rows, populations


def _may_lose(group: PlanGroup, units: Indices) -> bool:
    """True if every row keeps a unit."""
    return bool(_populations(group, units)[1].max() < group.cells)


def _with_removed(group: PlanGroup, units: Indices) -> PlanGroup:
    rows, populations = _populations(group, units)
    for row, population in zip(rows, populations, strict=True):
        # lowest first, in any order of composition: keeps composition associative
        row[np.flatnonzero(~row)[: populations.max() - population]] = True
    return replace(group, removed=tuple(np.flatnonzero(rows).tolist()))


def _chained(first: Plan, second: Plan) -> tuple[AttributeChange, ...]:
    """The changes of both, by module and name, without those that restore the first value."""
    changes = {(change.module, change.name): change for change in first.attributes}
    for change in second.attributes:
        key = (change.module, change.name)
        before = changes.get(key, change)
        if key in changes and canonical(before.after) != canonical(change.before):
            raise StalePlan(
                f"the first plan ends with {before}, the second begins with {change}; "
                "compile it from the pruned model"
            )
        changes[key] = AttributeChange(*key, before.before, change.after)
    return tuple(
        change
        for _, change in sorted(changes.items())
        if canonical(change.before) != canonical(change.after)
    )


def _outputs(
    first: tuple[OutputChange, ...], second: tuple[OutputChange, ...]
) -> tuple[OutputChange, ...]:
    """The shrinking outputs of both, with the indices kept by one after the other."""
    found = {(output.name, output.dim): output for output in first}
    for output in second:
        key = (output.name, output.dim)
        if key not in found:
            found[key] = output
            continue
        kept = tuple(found[key].kept)
        if len(kept) != output.size:
            raise StalePlan(
                f"output {output.name!r}: the first plan keeps {len(kept)} indices of dimension "
                f"{output.dim}, the second was made for {output.size}; compile it from the pruned "
                "model"
            )
        found[key] = replace(found[key], kept=tuple(kept[i] for i in output.kept))
    return tuple(found.values())


def _check_cuts(first: Plan, second: Plan, composed: Plan, origin: Origin) -> None:
    """Raise unless the composed plan cuts every tensor like the two plans in sequence."""
    after = {origin.names[name]: cut for name, cut in second.cuts.items()}
    depth = depth_of(composed)
    for spec in first.tensors:
        if depth.renamed(spec.name) is None:
            continue
        chain = _Chain(
            spec, first.cuts.get(spec.name), after.get(spec.name), composed.cuts.get(spec.name)
        )
        for dim in range(len(spec.shape)):
            if not chain.agrees(dim):
                raise StalePlan(
                    f"{spec.name}: no removal of groups of the first plan keeps those indices of "
                    f"dimension {dim} that the two plans keep one after the other; compile the "
                    "second plan with the same planc, from the pruned model"
                )


@dataclass(frozen=True, slots=True)
class _Chain:
    """Three cuts of one tensor; the third should equal the first two in sequence."""

    spec: TensorSpec
    first: Cut | None
    second: Cut | None
    composed: Cut | None

    def agrees(self, dim: int) -> bool:
        """True if dimension ``dim`` keeps the same indices, in every range if it is ragged."""
        present = [cut for cut in (self.first, self.second, self.composed) if cut is not None]
        overs = {over for cut in present for at, over, _ in cut.ragged if at == dim}
        places = [(0, 0)]
        for over in overs:
            places = self._places(dim, over)
        size = self.spec.shape[dim]
        for original, between in places:
            kept = _kept_at(self.first, dim, original, size)
            kept = kept[_kept_at(self.second, dim, between, len(kept))]
            if not np.array_equal(kept, _kept_at(self.composed, dim, original, size)):
                return False
        return len(overs) < 2

    def _places(self, dim: int, over: int) -> list[tuple[int, int]]:
        """Kept indices of dimension ``over``, in the original and between the two cuts: one for
        each overlap of the three cuts' ranges.
        """
        original = _kept_at(self.first, over, 0, self.spec.shape[over])
        between = _kept_at(self.second, over, 0, len(original))
        original = original[between]
        ranges = np.stack(
            [
                _range_of(self.first, dim, original),
                _range_of(self.second, dim, between),
                _range_of(self.composed, dim, original),
            ]
        )
        _, chosen = np.unique(ranges, axis=1, return_index=True)
        return list(zip(original[chosen].tolist(), between[chosen].tolist(), strict=True))


def _kept_at(cut: Cut | None, dim: int, place: int, size: int) -> Indices:
    """The kept indices of a dimension, of a ragged one at ``place`` of the other dimension."""
    if cut is not None:
        for at, _, blocks in cut.ragged:
            if at == dim:
                return next(block.kept for block in blocks if block.start <= place < block.stop)
    kept = None if cut is None else cut.kept[dim]
    return np.arange(size) if kept is None else kept


def _range_of(cut: Cut | None, dim: int, places: Indices) -> Indices:
    """The number of the range of a ragged dimension at each place."""
    for at, _, blocks in () if cut is None else cut.ragged:
        if at == dim:
            return np.searchsorted([block.start for block in blocks], places, side="right")
    return np.zeros(len(places), dtype=np.int64)
