"""Composition: two plans in, of which the second was made for what the first produces; one plan
out that does both at once and speaks in the indices of the original.

Every unit of a group of the second plan is followed back, through the indices that the first one
keeps, to a unit of a group of the first. That the composed plan cuts every tensor as the two do one
after the other is not assumed: it is checked before the plan is returned.
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
from planc.plan.fingerprint import (
    attributes_digest,
    canonical,
    first_difference,
    joined,
    lists_classes,
    modules_after,
    modules_before,
    shared,
    tensors_after,
    tensors_digest,
)
from planc.plan.origin import Origin, own_tensors, units_in
from planc.plan.plan import (
    CLASS,
    AttributeChange,
    Cut,
    ModuleSpec,
    Plan,
    PlanGroup,
    TensorSpec,
)

_NAME_ONLY = "Module"  # the class of a rewritten graph's modules of which only names are left


@takes(first=a_plan, second=a_plan)
def compose(first: Plan, second: Plan) -> Plan:
    """The plan that does what ``second`` does to the result of ``first``.

    Composition is associative. Rows of a ragged group that are wholly gone (their heads are
    removed) lose their first remaining units, until every row loses equally many.

    Plans for ``target="graph"`` compose as those for modules do: what ``first`` produces is a graph
    whose tensors have the original's names, and so the composed plan rewrites the original's graph
    once. Only what was a constant of the original, and is a buffer of the graph, cannot be cut.

    Raises:
        StalePlan: ``second`` was not made for what ``first`` produces, or its groups are not
            groups of ``first``, or it cuts a constant; names the first difference.
        PolicyError: the plans have different targets.
    """
    _check_chain(first, second)
    _check_constants(first, second)
    origin = Origin(first, second.tensors)
    groups = list(first.groups)
    for group in second.groups:
        if group.removed:
            at, units = _find(origin, groups, group)
            groups[at] = _with_removed(groups[at], units)
    changes = _chained(first, second)
    modules = _listed(first, second)
    composed = first.replace(
        source=replace(first.source, attributes=attributes_digest(modules)),
        result=replace(
            second.result, attributes=attributes_digest(modules_after(modules, changes))
        ),
        modules=modules,
        groups=tuple(groups),
        attributes=changes,
        provenance=first.provenance + second.provenance,
        cost_after=second.cost_after,
        shapes=second.shapes,
    )
    _check_cuts(first, second, composed, origin)
    return composed if first.target == "module" else _of_the_original(composed)


def _of_the_original(composed: Plan) -> Plan:
    """A plan for a graph with the digest of the tensors that its removals leave of the original:
    the second plan's is that of a graph, which has the original's constants as buffers.
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
    modules = shared(modules_after(first.modules, first.attributes), second.modules)
    tensors, found = second.tensors, second.modules
    if first.target == "graph":
        tensors, found = own_tensors(first, second.tensors), _called(second.modules)
        modules = tuple(spec for spec in modules if spec.path in {m.path for m in found})
        same_tensors = tensors_digest(tensors) == first.result.tensors
    difference = first_difference(tensors_after(first.tensors, first.cuts), modules, tensors, found)
    if difference is None:
        return
    what = "attributes" if same_tensors else "tensors"
    raise StalePlan(
        f"the second plan was not made for what the first produces, the {what} differ: "
        f"{difference}; compile it from the pruned model"
    )


def _listed(first: Plan, second: Plan) -> tuple[ModuleSpec, ...]:
    """The module table of the composed plan: what both list; of plans of two versions, what the
    first lists and the second changes.
    """
    more = second.modules if first.target == "module" else _called(second.modules)
    if lists_classes(first.modules) != lists_classes(more):
        more = modules_before(second.attributes)
    return joined(first.modules, more)


def _called(modules: tuple[ModuleSpec, ...]) -> tuple[ModuleSpec, ...]:
    """The modules of a rewritten graph that it calls; of the others only names are left."""
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
    """The group of the first plan that ``group`` is the rest of, and the units to remove there."""
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
    """Which units are gone, row by row, with ``units`` too; and how many in each row."""
    gone = marked(group.removed, group.size)
    gone[units] = True
    rows = gone.reshape(group.rows, -1)
    populations: Indices = rows.sum(axis=1)
    return rows, populations


def _may_lose(group: PlanGroup, units: Indices) -> bool:
    """Whether every row keeps a unit."""
    return bool(_populations(group, units)[1].max() < group.cells)


def _with_removed(group: PlanGroup, units: Indices) -> PlanGroup:
    rows, populations = _populations(group, units)
    for row, population in zip(rows, populations, strict=True):
        # lowest first, whatever is composed first: that keeps composition associative
        row[np.flatnonzero(~row)[: populations.max() - population]] = True
    removed: list[int] = np.flatnonzero(rows).tolist()
    return PlanGroup(
        group.name,
        group.kind,
        group.size,
        group.rows,
        group.members,
        group.mixing,
        tuple(removed),
    )


def _chained(first: Plan, second: Plan) -> tuple[AttributeChange, ...]:
    """The changes of both, by module and name, without those that end where they began."""
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


def _check_cuts(first: Plan, second: Plan, composed: Plan, origin: Origin) -> None:
    """The composed plan must cut every tensor as the two plans do one after the other."""
    after = {origin.names[name]: cut for name, cut in second.cuts.items()}
    for spec in first.tensors:
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
    """Three cuts of one tensor, of which the third should do what the first two do in turn."""

    spec: TensorSpec
    first: Cut | None
    second: Cut | None
    composed: Cut | None

    def agrees(self, dim: int) -> bool:
        """Whether dimension ``dim`` keeps the same indices, wherever it is ragged."""
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
        """Indices of dimension ``over`` that stay, in the original and between the two cuts: one
        for each way in which the ranges of the three cuts meet.
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
    """The kept indices of a dimension; where it is ragged, at ``place`` of the other one."""
    if cut is not None:
        for at, _, blocks in cut.ragged:
            if at == dim:
                return next(block.kept for block in blocks if block.start <= place < block.stop)
    kept = None if cut is None else cut.kept[dim]
    return np.arange(size) if kept is None else kept


def _range_of(cut: Cut | None, dim: int, places: Indices) -> Indices:
    """The number of the range of a ragged dimension in which each place lies."""
    for at, _, blocks in () if cut is None else cut.ragged:
        if at == dim:
            return np.searchsorted([block.start for block in blocks], places, side="right")
    return np.zeros(len(places), dtype=np.int64)
