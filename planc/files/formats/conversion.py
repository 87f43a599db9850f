"""Conversion between plans and the records of their files.

On disk, tensors are referenced by their row, modules share rows of equal attributes, and removed
units are bitmaps. Each value has exactly one representation, and a unit costs one bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from msgspec.structs import astuple

from planc.errors import MalformedFile
from planc.files.disk.limits import Limits
from planc.files.formats.records import (
    GroupRecord,
    OutputRecord,
    PlanRecord,
    decode_inputs,
    distinct,
    encode_body,
)
from planc.ir.groups import Member, Over, Run
from planc.ir.units import Units, marked
from planc.plan.fingerprint import canonical
from planc.plan.plan import (
    AttributeChange,
    ModuleSpec,
    OutputChange,
    Plan,
    PlanGroup,
    TensorSpec,
)


def to_body(plan: Plan) -> bytes:
    """The canonical body of a plan. The plan is not validated here."""
    row = {spec.name: i for i, spec in enumerate(plan.tensors)}
    numbers, structural = distinct(module.attributes for module in plan.modules)
    return encode_body(
        {
            "attributes": plan.attributes,
            "constraints": plan.constraints,
            "cost": {"after": plan.cost_after, "before": plan.cost_before},
            "groups": [_group(group, row) for group in plan.groups],
            "inputs": plan.inputs,
            **({} if plan.latency is None else {"latency": plan.latency}),
            "modules": [
                {"attributes": number, "path": module.path}
                for number, module in zip(numbers, plan.modules, strict=True)
            ],
            "outputs": [
                {"dim": o.dim, "kept": _bitmap(o.kept, o.size, 1), "name": o.name, "size": o.size}
                for o in plan.outputs
            ],
            "provenance": plan.provenance,
            "requires": plan.requires,
            "result": plan.result,
            "shapes": plan.shapes,
            "source": plan.source,
            "structural": structural,
            "target": plan.target,
            "tensors": plan.tensors,
        }
    )


def to_plan(record: PlanRecord, limits: Limits) -> Plan:
    """The plan of a record.

    Raises:
        MalformedFile: a row or bitmap does not fit its table; names the field.
        LimitExceeded: the groups have too many units, or the outputs too many indices.
    """
    limits.check("units", sum(group.size for group in record.groups), "groups")
    limits.check("units", sum(output.size for output in record.outputs), "outputs")
    _check_structural(record, limits)
    return Plan(
        source=record.source,
        result=record.result,
        tensors=record.tensors,
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
        provenance=record.provenance,
        cost_before=record.cost.before,
        cost_after=record.cost.after,
        shapes=record.shapes,
        constraints=record.constraints,
        requires=record.requires,
        outputs=tuple(_from_output(o, f"outputs[{i}].kept") for i, o in enumerate(record.outputs)),
        latency=record.latency or None,
    )


def _check_structural(record: PlanRecord, limits: Limits) -> None:
    """Rows of distinct attributes are in order of first use, without repetition.

    A short file can use a large row many times, so the expanded size is bounded.
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


def _group(group: PlanGroup, row: dict[str, int]) -> dict[str, Any]:
    return {
        "kind": group.kind,
        "members": [
            {
                "dim": member.dim,
                "over": member.over,
                "runs": member.runs,
                "tensor": row[member.tensor],
            }
            for member in group.members
        ],
        "mixing": group.mixing,
        "name": group.name,
        "removed": _bitmap(group.removed, group.size, group.rows),
        "rows": group.rows,
        "scores": group.scores,
        "size": group.size,
    }


def _from_group(record: GroupRecord, tensors: tuple[TensorSpec, ...], where: str) -> PlanGroup:
    members = []
    for i, member in enumerate(record.members):
        if member.tensor >= len(tensors) or not tensors[member.tensor].names:
            raise MalformedFile(
                f"{where}.members[{i}].tensor: row {member.tensor}, the table of tensors has "
                f"{len(tensors)}; compile the plan again"
            )
        over = None if member.over is None else Over(*astuple(member.over))
        runs = tuple(Run(*astuple(run)) for run in member.runs)
        members.append(Member(tensors[member.tensor].name, member.dim, runs, over))
    removed = _from_bitmap(record.removed, record.size, record.rows, f"{where}.removed")
    return PlanGroup(
        record.name,
        record.kind,
        record.size,
        record.rows,
        tuple(members),
        record.mixing,
        removed,
        record.scores,
    )


def _from_output(record: OutputRecord, where: str) -> OutputChange:
    kept = _from_bitmap(record.kept, record.size, 1, where)
    return OutputChange(record.name, record.dim, record.size, kept)


def _bitmap(removed: Sequence[int], size: int, rows: int) -> bytes:
    """One bitmap per row in little bit order, each padded to whole bytes."""
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
