"""Plans and the records of their files: a :class:`Plan` in, a canonical body out, and back.

On disk, tensors are rows of their table, equal attributes of modules share a row, and removed units
are bitmaps: each has one representation, and costs a bit a unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from planc.errors import MalformedFile
from planc.files.disk.limits import Limits
from planc.files.formats.records import (
    CostRecord,
    FingerprintsRecord,
    GroupRecord,
    PlanRecord,
    TensorRecord,
    decode_inputs,
)
from planc.ir.groups import Member, Over, Run
from planc.ir.units import Units, marked
from planc.plan.fingerprint import canonical
from planc.plan.plan import (
    AttributeChange,
    Cost,
    Fingerprints,
    ModuleSpec,
    Plan,
    PlanGroup,
    Provenance,
    TensorSpec,
    WidthConstraint,
)


def to_body(plan: Plan) -> bytes:
    """The canonical body of a plan. Nothing is checked here but what packing needs."""
    row = {spec.name: i for i, spec in enumerate(plan.tensors)}
    structural: dict[bytes, tuple[int, Any]] = {}
    modules = []
    for module in plan.modules:
        # by their bytes: Python calls True, 1 and 1.0 equal
        key = canonical(module.attributes)
        index, _ = structural.setdefault(key, (len(structural), module.attributes))
        modules.append({"attributes": index, "path": module.path})
    return canonical(
        {
            "attributes": [
                {"after": c.after, "before": c.before, "module": c.module, "name": c.name}
                for c in plan.attributes
            ],
            "constraints": [{"reason": c.reason, "text": c.text} for c in plan.constraints],
            "cost": {"after": _cost(plan.cost_after), "before": _cost(plan.cost_before)},
            "groups": [_group(group, row) for group in plan.groups],
            "inputs": plan.inputs,
            "modules": modules,
            "provenance": [
                {
                    "criterion": p.criterion,
                    "policy": p.policy,
                    "seed": p.seed,
                    "versions": p.versions,
                }
                for p in plan.provenance
            ],
            "requires": plan.requires,
            "result": _fingerprints(plan.result),
            "shapes": plan.shapes,
            "source": _fingerprints(plan.source),
            "structural": [attributes for _, attributes in structural.values()],
            "target": plan.target,
            "tensors": [
                {"kind": spec.kind, "names": spec.names, "shape": spec.shape}
                for spec in plan.tensors
            ],
        }
    )


def to_plan(record: PlanRecord, limits: Limits) -> Plan:
    """The plan of a record, whose rows and bitmaps must lie in their tables.

    Raises:
        MalformedFile: they do not; names the field.
        LimitExceeded: the groups have too many units.
    """
    limits.check("units", sum(group.size for group in record.groups), "groups")
    _check_structural(record, limits)
    return Plan(
        source=_from_fingerprints(record.source),
        result=_from_fingerprints(record.result),
        tensors=tuple(TensorSpec(t.names, t.shape, t.kind) for t in record.tensors),
        modules=tuple(ModuleSpec(m.path, record.structural[m.attributes]) for m in record.modules),
        groups=tuple(
            _from_group(group, record.tensors, f"groups[{i}]")
            for i, group in enumerate(record.groups)
        ),
        attributes=tuple(
            AttributeChange(c.module, c.name, c.before, c.after) for c in record.attributes
        ),
        inputs=decode_inputs(record.inputs, limits),
        target=record.target,
        provenance=tuple(
            Provenance(p.criterion, p.policy, p.seed, p.versions) for p in record.provenance
        ),
        cost_before=_from_cost(record.cost.before),
        cost_after=_from_cost(record.cost.after),
        shapes=record.shapes,
        constraints=tuple(WidthConstraint(c.text, c.reason) for c in record.constraints),
        requires=record.requires,
    )


def _check_structural(record: PlanRecord, limits: Limits) -> None:
    """The table of distinct attributes must be in order of first use, without repetition.

    A short file can use a large row many times: what the rows come to is bounded.
    """
    rows = len(record.structural)
    following = 0
    for i, module in enumerate(record.modules):
        if module.attributes > following or module.attributes >= rows:
            raise MalformedFile(
                f"modules[{i}].attributes: row {module.attributes} of {rows}, at most row "
                f"{following} may follow here; compile the plan again"
            )
        following = max(following, module.attributes + 1)
    if following < rows:
        raise MalformedFile(f"structural[{following}]: no module has it; compile the plan again")
    packed = [canonical(attributes) for attributes in record.structural]
    if len(set(packed)) < rows:
        raise MalformedFile(
            f"structural: {rows} rows, {len(set(packed))} distinct; compile the plan again"
        )
    total = sum(len(packed[module.attributes]) for module in record.modules)
    limits.check("attribute_bytes", total, "modules")


def _cost(cost: Cost) -> dict[str, int]:
    return {"bytes": cost.bytes, "macs": cost.macs, "params": cost.params}


def _from_cost(record: CostRecord) -> Cost:
    return Cost(record.macs, record.params, record.bytes)


def _fingerprints(digests: Fingerprints) -> dict[str, bytes]:
    return {
        "attributes": digests.attributes,
        "structure": digests.structure,
        "tensors": digests.tensors,
    }


def _from_fingerprints(record: FingerprintsRecord) -> Fingerprints:
    return Fingerprints(record.attributes, record.structure, record.tensors)


def _group(group: PlanGroup, row: dict[str, int]) -> dict[str, Any]:
    return {
        "kind": group.kind,
        "members": [
            {
                "dim": member.dim,
                "over": member.over and (member.over.dim, member.over.start, member.over.stop),
                "runs": [
                    (run.unit, run.count, run.start, run.step, run.span, run.repeats, run.stride)
                    for run in member.runs
                ],
                "tensor": row[member.tensor],
            }
            for member in group.members
        ],
        "mixing": group.mixing,
        "name": group.name,
        "removed": _bitmap(group.removed, group.size, group.rows),
        "rows": group.rows,
        "size": group.size,
    }


def _from_group(record: GroupRecord, tensors: tuple[TensorRecord, ...], where: str) -> PlanGroup:
    members = []
    for i, member in enumerate(record.members):
        if member.tensor >= len(tensors) or not tensors[member.tensor].names:
            raise MalformedFile(
                f"{where}.members[{i}].tensor: row {member.tensor}, the table of tensors has "
                f"{len(tensors)}; compile the plan again"
            )
        ragged = member.over
        over = None if ragged is None else Over(ragged.dim, ragged.start, ragged.stop)
        runs = tuple(
            Run(run.unit, run.count, run.start, run.step, run.span, run.repeats, run.stride)
            for run in member.runs
        )
        members.append(Member(tensors[member.tensor].names[0], member.dim, runs, over))
    removed = _from_bitmap(record.removed, record.size, record.rows, f"{where}.removed")
    return PlanGroup(
        record.name, record.kind, record.size, record.rows, tuple(members), record.mixing, removed
    )


def _bitmap(removed: Sequence[int], size: int, rows: int) -> bytes:
    """One bitmap for each row, little bit order, each ending in a whole byte."""
    marks = marked(removed, size).reshape(rows, -1)
    return np.packbits(marks, axis=1, bitorder="little").tobytes()


def _from_bitmap(bitmap: bytes, size: int, rows: int, where: str) -> Sequence[int]:
    cells, rest = divmod(size, rows)
    width = -(-cells // 8)
    if rest or len(bitmap) != rows * width:
        raise MalformedFile(
            f"{where}: {len(bitmap)} bytes, {size} units in {rows} rows need {rows * width} and "
            "equal rows; compile the plan again"
        )
    if not any(bitmap):
        return ()
    octets = np.frombuffer(bitmap, dtype=np.uint8).reshape(rows, width)
    bits = np.unpackbits(octets, axis=1, bitorder="little")
    if bits[:, cells:].any():
        raise MalformedFile(f"{where}: padding bits are not zero; compile the plan again")
    return Units(np.packbits(bits[:, :cells], bitorder="little").tobytes(), size)
