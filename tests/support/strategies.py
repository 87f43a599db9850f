"""Random valid plans: drawn structures of tensors and groups in, plans like those of models out.

A drawn model has families of coordinates: plain channels, or heads with cells inside. A tensor's
dimension lays out one or more families (contiguous, spread over spans, last, permuted, reversed,
beside coordinates that no group has); a ragged tensor has other cells in each head's rows.
:func:`successors` are plans for what a plan produces, as tracing that again would give.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from planc.ir.groups import Indices, Member, Over, compress
from planc.plan.fingerprint import (
    attributes_digest,
    modules_after,
    shapes_digest,
    structure_digest,
    tensors_after,
    tensors_digest,
)
from planc.plan.plan import (
    AttributeChange,
    Cost,
    Cut,
    Fingerprints,
    ModuleSpec,
    OutputChange,
    Plan,
    PlanGroup,
    Provenance,
    TensorSpec,
    WidthConstraint,
)
from planc.plan.plan import cuts as cuts_of

# a busy machine is no failure of a law
settings.register_profile("planc", deadline=None)
settings.load_profile("planc")


@dataclass
class Family:
    """Coordinates that leave together: ``heads`` rows of ``cells``; one row for plain channels."""

    number: int
    heads: int
    cells: int
    members: list[Member] = field(default_factory=list)
    head_members: list[Member] = field(default_factory=list)

    @property
    def size(self) -> int:
        return self.heads * self.cells


INPUTS: Any = (
    "tuple",
    ("tuple", ("tensor", (1, 3, 8, 8), "float32"), ("list", ("value", None), ("value", 2.5))),
    ("dict", ("mask", ("opaque", "Mask")), ("flag", ("value", True))),
)


@st.composite
def plans(draw: st.DrawFn, removing: bool = True) -> Plan:
    """Plans of drawn models; ``removing=False`` gives those that leave everything whole."""
    families = [_family(draw, i) for i in range(draw(st.integers(1, 3)))]
    tensors: list[TensorSpec] = []
    for family in families:  # the first member of each group has all its units
        _add_dense(draw, tensors, families, first=family)
    for _ in range(draw(st.integers(0, 4))):
        headed = [family for family in families if family.heads > 1]
        if headed and draw(st.booleans()):
            _add_ragged(draw, tensors, draw(st.sampled_from(headed)))
        else:
            _add_dense(draw, tensors, families)
    groups = []
    for family in families:
        named = ("heads", "cells") if family.heads > 1 else ("", "channels")
        rows, members = family.heads, tuple(family.members)
        if family.heads > 1:
            name = f"{family.number}/{family.head_members[0]}/heads"
            heads = tuple(family.head_members)
            groups.append(PlanGroup(name, named[0], family.heads, 1, heads, "", ()))
        mixing = draw(st.sampled_from(["", "layer norm over it"]))
        groups.append(
            PlanGroup(
                f"{family.number}/{members[0]}", named[1], family.size, rows, members, mixing, ()
            )
        )
    modules = [ModuleSpec("", ())] + [
        ModuleSpec(f"m{i}", _attributes(draw)) for i in range(draw(st.integers(0, 3)))
    ]
    changes = _changes(draw, modules) if removing else ()
    chosen = [_with_removed(draw, group) if removing else group for group in groups]
    return complete(tuple(tensors), tuple(modules), tuple(chosen), changes, draw(_SEEDS))


@st.composite
def successors(draw: st.DrawFn, plan: Plan) -> Plan:
    """Plans for what ``plan`` produces."""
    groups = tuple(_with_removed(draw, group) for group in retraced(plan))
    modules = modules_after(plan.modules, plan.attributes)
    tensors = tensors_after(plan.tensors, plan.cuts)
    return complete(tensors, modules, groups, _changes(draw, modules), draw(_SEEDS))


def complete(
    tensors: tuple[TensorSpec, ...],
    modules: tuple[ModuleSpec, ...],
    groups: tuple[PlanGroup, ...],
    changes: tuple[AttributeChange, ...],
    seed: int = 0,
) -> Plan:
    """A plan with the digests and costs that follow from its tables."""
    after = tensors_after(tensors, cuts_of(tensors, groups))
    return Plan(
        source=Fingerprints(
            attributes_digest(modules), structure_digest(groups), tensors_digest(tensors)
        ),
        result=Fingerprints(
            attributes_digest(modules_after(modules, changes)), bytes(32), tensors_digest(after)
        ),
        tensors=tensors,
        modules=modules,
        groups=groups,
        attributes=changes,
        inputs=INPUTS,
        target="module",
        provenance=(Provenance("l2", "ratio 0.5", seed, (("planc", "0.1.0"), ("torch", "2.15"))),),
        cost_before=_cost(tensors),
        cost_after=_cost(after),
        constraints=tuple(
            WidthConstraint(f"kept {group.name} = {group.size}", "a reason") for group in groups[1:]
        ),
        shapes=shapes_digest(("aten.relu", [spec.shape], ()) for spec in after),
    )


def retraced(plan: Plan) -> tuple[PlanGroup, ...]:
    """The groups of what ``plan`` produces, none of them pruned."""
    groups = []
    for group in plan.groups:
        numbers = _numbers(group.size, _surviving(plan, group))
        size = int(numbers.max()) + 1
        rows = sum(bool((row >= 0).any()) for row in numbers.reshape(group.rows, -1))
        members = tuple(
            small
            for member in group.members
            if (small := _small_member(plan, member, numbers)) is not None
        )
        if size > 1:
            name, kind, mixing = group.name, group.kind, group.mixing
            groups.append(PlanGroup(name, kind, size, rows, members, mixing, ()))
    return tuple(groups)


def example_plan() -> Plan:
    """A small plan that has one of everything."""
    first = Member("a.weight", 0, compress(np.arange(6), np.arange(6)))
    flat = Member("b.weight", 1, compress(np.repeat(np.arange(6), 2), np.arange(12)))
    cells = Member("c.weight", 0, compress(np.arange(6), np.arange(6)))
    heads = Member("c.weight", 0, compress(np.repeat(np.arange(2), 3), np.arange(6)))
    odd = Member("b.weight", 0, compress(np.arange(6), np.array([5, 0, 3, 1, 4, 2])))
    ragged = tuple(
        Member(
            "d.weight", 1, compress(np.arange(3) + 3 * h, np.arange(3)), Over(0, 2 * h, 2 * h + 2)
        )
        for h in range(2)
    )
    rows = Member("d.weight", 0, compress(np.repeat(np.arange(2), 2), np.arange(4)))
    groups = (
        PlanGroup("a.weight:0", "channels", 6, 1, (first, flat), "layer norm", (1, 4)),
        PlanGroup("c.weight:0/heads", "heads", 2, 1, (heads, rows), "", ()),
        PlanGroup("c.weight:0", "cells", 6, 2, (cells, odd, *ragged), "", (0, 5)),
    )
    tensors = (
        TensorSpec(("a.weight", "tied.weight"), (6, 1), "parameter"),
        TensorSpec(("b.weight",), (6, 12), "parameter"),
        TensorSpec(("c.weight",), (6,), "parameter"),
        TensorSpec(("d.weight",), (4, 3), "parameter"),
        TensorSpec(("steps",), (), "buffer"),
    )
    attributes = (("bias", True), ("mode", "same"), ("out_features", 6), ("shape", (6, (1, 2))))
    modules = (ModuleSpec("", ()), ModuleSpec("a", attributes), ModuleSpec("tied", attributes))
    changes = (
        AttributeChange("a", "out_features", 6, 4),
        AttributeChange("a", "scale", 0.5, 0.25),
        AttributeChange("a", "shape", (6, (1, 2)), (4, (1, 2))),
    )
    return complete(tensors, modules, groups, changes)


def full_plan() -> Plan:
    """The example plan with a value in each field of version 2."""
    plan = example_plan()
    scores = [np.arange(g.size, dtype="<f4").tobytes() for g in plan.groups]
    entry = replace(
        plan.provenance[0],
        weights=b"w" * 32,
        origin="file",
        statistics=b"s" * 32,
        decisions=("keep a.weight:0 1", "remove c.weight:0 0,5"),
    )
    return plan.replace(
        provenance=(entry,),
        groups=(
            replace(plan.groups[0], scores=scores[0]),
            plan.groups[1],
            replace(plan.groups[2], scores=scores[2]),
        ),
        outputs=(OutputChange("", 1, 6, (0, 2, 3, 5)), OutputChange("states.0", 0, 9, (8,))),
    )


def cut_array(array: NDArray[Any], cut: Cut | None) -> NDArray[Any]:
    """What a cut leaves of an array: the plainest executor there is."""
    if cut is None:
        return array
    for dim, over, blocks in cut.ragged:
        parts = [
            np.take(np.take(array, range(block.start, block.stop), over), block.kept, dim)
            for block in blocks
        ]
        array = np.concatenate(parts, over)
    for dim, kept in enumerate(cut.kept):
        if kept is not None:
            array = np.take(array, kept, dim)
    assert array.shape == cut.shape
    return array


def arrays(plan: Plan) -> dict[str, NDArray[Any]]:
    """For each tensor of the source an array with a different number in each place."""
    return {
        spec.name: np.arange(math.prod(spec.shape)).reshape(spec.shape) for spec in plan.tensors
    }


def cut_arrays(plan: Plan, whole: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """What ``plan`` leaves of each array."""
    return {name: cut_array(array, plan.cuts.get(name)) for name, array in whole.items()}


_SEEDS = st.integers(-(1 << 63), (1 << 63) - 1)
_SCALARS = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-2, 2) | st.text(max_size=3)
_VALUES = st.recursive(_SCALARS, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=4)
_STRUCTURAL = st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | st.text(max_size=3)


def _family(draw: st.DrawFn, number: int) -> Family:
    if draw(st.booleans()):
        return Family(number, draw(st.integers(2, 4)), draw(st.integers(2, 4)))
    return Family(number, 1, draw(st.integers(2, 6)))


def _add_dense(
    draw: st.DrawFn,
    tensors: list[TensorSpec],
    families: list[Family],
    first: Family | None = None,
) -> None:
    """A tensor each of whose dimensions is fixed or lays out families one after another."""
    name = f"m{len(tensors)}.weight"
    shape = []
    for dim in range(draw(st.integers(1, 3))):
        if dim > 0 and draw(st.booleans()):
            shape.append(draw(st.integers(1, 3)))
            continue
        size = draw(st.integers(0, 2))  # coordinates that no group has
        parts = draw(st.lists(st.sampled_from(families), min_size=1, max_size=2, unique_by=id))
        if first is not None and dim == 0:
            parts = [first] + [family for family in parts if family is not first]
        for family in parts:
            indices = size + _layout(draw, family)
            size += indices.size
            units = np.broadcast_to(np.arange(family.size)[:, None], indices.shape)
            flat = units.reshape(-1), indices.reshape(-1)
            family.members.append(Member(name, dim, compress(*flat)))
            if family.heads > 1:
                runs = compress(flat[0] // family.cells, flat[1])
                family.head_members.append(Member(name, dim, runs))
        shape.append(size + draw(st.integers(0, 2)))
    tensors.append(_spec(draw, name, tuple(shape)))


def _layout(draw: st.DrawFn, family: Family) -> Indices:
    """Indices of each unit, an array of (units, repeats)."""
    span = draw(st.integers(1, 3))
    plain = np.arange(family.size * span)
    match draw(st.sampled_from(["contiguous", "last", "reversed", "permuted"])):
        case "last":
            return plain.reshape(span, family.size).T
        case "reversed":
            return plain.reshape(family.size, span)[::-1]
        case "permuted":
            order = np.array(draw(st.permutations(range(len(plain)))))
            return np.sort(order.reshape(family.size, span), axis=1)
    return plain.reshape(family.size, span)


def _add_ragged(draw: st.DrawFn, tensors: list[TensorSpec], family: Family) -> None:
    """A tensor whose rows belong to heads, each with its own cells in the other dimension."""
    name = f"m{len(tensors)}.weight"
    height, span = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    over, dim = draw(st.sampled_from([(0, 1), (1, 0), (0, 2)]))
    shape = [draw(st.integers(1, 2)) for _ in range(max(over, dim) + 1)]
    shape[over], shape[dim] = family.heads * height, family.cells * span
    for head in range(family.heads):
        order = np.array(draw(st.permutations(range(family.cells * span))))
        units = np.repeat(np.arange(family.cells) + head * family.cells, span)
        place = Over(over, head * height, (head + 1) * height)
        family.members.append(Member(name, dim, compress(units, order), place))
    rows = np.arange(family.heads * height)
    family.head_members.append(Member(name, over, compress(rows // height, rows)))
    tensors.append(_spec(draw, name, tuple(shape)))


def _spec(draw: st.DrawFn, name: str, shape: tuple[int, ...]) -> TensorSpec:
    names = (name, f"tied.{name}") if draw(st.booleans()) else (name,)
    return TensorSpec(names, shape, draw(st.sampled_from(["parameter", "buffer"])))


def _attributes(draw: st.DrawFn) -> tuple[tuple[str, Any], ...]:
    names = st.sampled_from(["width", "heads", "mode", "groups"])
    return tuple(sorted(draw(st.dictionaries(names, _STRUCTURAL, max_size=3)).items()))


def _changes(
    draw: st.DrawFn, modules: list[ModuleSpec] | tuple[ModuleSpec, ...]
) -> tuple[AttributeChange, ...]:
    """Integers may change, to one of few values so that changes of successors undo each other."""
    changes = []
    for module in modules:
        for name, before in module.attributes:
            if type(before) is int and draw(st.booleans()):
                after = draw(st.integers(0, 2))
                if after != before:
                    changes.append(AttributeChange(module.path, name, before, after))
    return tuple(changes)


def _with_removed(draw: st.DrawFn, group: PlanGroup) -> PlanGroup:
    each = draw(st.integers(0, group.cells - 1))
    removed: list[int] = []
    for row in range(group.rows):
        cells = draw(st.permutations(range(group.cells)))[:each]
        removed += sorted(row * group.cells + cell for cell in cells)
    return PlanGroup(
        group.name,
        group.kind,
        group.size,
        group.rows,
        group.members,
        group.mixing,
        tuple(removed),
    )


def _cost(tensors: tuple[TensorSpec, ...]) -> Cost:
    params = sum(math.prod(spec.shape) for spec in tensors)
    return Cost(3 * params, params, 4 * params)


def _numbers(size: int, surviving: NDArray[np.bool_]) -> Indices:
    """The new number of each unit or index, -1 for those that are gone."""
    numbers = np.full(size, -1, dtype=np.int64)
    numbers[surviving] = np.arange(int(surviving.sum()))
    return numbers


def _kept(plan: Plan, tensor: str, dim: int, over: Over | None = None) -> NDArray[np.bool_]:
    """Which indices of a dimension stay, in one range if it is ragged."""
    size = next(spec.shape for spec in plan.tensors if spec.name == tensor)[dim]
    stays = np.ones(size, dtype=bool)
    cut = plan.cuts.get(tensor)
    if cut is None:
        return stays
    kept = cut.kept[dim]
    for at, _, blocks in cut.ragged:
        if at == dim and over is not None:
            kept = next(block.kept for block in blocks if block.start == over.start)
    if kept is not None:
        stays[:] = False
        stays[kept] = True
    return stays


def _surviving(plan: Plan, group: PlanGroup) -> NDArray[np.bool_]:
    head = group.members[0]
    units, indices = head.expand()
    surviving = np.zeros(group.size, dtype=bool)
    surviving[units[_kept(plan, head.tensor, head.dim)[indices]]] = True
    return surviving


def _small_member(plan: Plan, member: Member, numbers: Indices) -> Member | None:
    over = member.over
    if over is not None:
        rows = _kept(plan, member.tensor, over.dim)
        start, stop = int(rows[: over.start].sum()), int(rows[: over.stop].sum())
        if start == stop:
            return None
        # where only one head is left, its cells are those of the whole dimension
        whole = stop - start == rows.sum()
        place = None if whole else Over(over.dim, start, stop)
    else:
        place = None
    stays = _kept(plan, member.tensor, member.dim, over)
    units, indices = member.expand()
    both = stays[indices]
    renumbered = _numbers(len(stays), stays)[indices[both]]
    return Member(member.tensor, member.dim, compress(numbers[units[both]], renumbered), place)
