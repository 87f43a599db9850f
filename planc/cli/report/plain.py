"""Plans as plain data for JSON: dictionaries, lists, numbers and strings, without loss.

Unlike a plan file this is meant to be read: digests are hexadecimal, removed units are listed,
members name their tensor. What comes back goes through the checks of a plan file.
"""

from __future__ import annotations

from typing import Any

from planc.errors import MalformedFile
from planc.files.disk.limits import DEFAULT, Limits
from planc.files.formats import encode_plan
from planc.files.formats.checks import check_plan
from planc.ir.groups import Member, Over, Run
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

_RUN = ("unit", "count", "start", "step", "span", "repeats", "stride")


def plan_json(plan: Plan) -> dict[str, Any]:
    """``plan`` as plain data; :func:`plan_from_json` is the inverse."""
    return {
        "fingerprint": plan.fingerprint,
        "target": plan.target,
        "source": _digests(plan.source),
        "result": _digests(plan.result),
        "cost_before": _cost(plan.cost_before),
        "cost_after": _cost(plan.cost_after),
        "groups": [_group(group) for group in plan.groups],
        "attributes": [
            {
                "module": change.module,
                "name": change.name,
                "before": _lists(change.before),
                "after": _lists(change.after),
            }
            for change in plan.attributes
        ],
        "constraints": [{"text": c.text, "reason": c.reason} for c in plan.constraints],
        "inputs": _lists(plan.inputs),
        "provenance": [
            {
                "criterion": entry.criterion,
                "policy": entry.policy,
                "seed": entry.seed,
                "versions": _lists(entry.versions),
            }
            for entry in plan.provenance
        ],
        "shapes": plan.shapes.hex(),
        "requires": list(plan.requires),
        "tensors": [
            {"names": list(spec.names), "shape": list(spec.shape), "kind": spec.kind}
            for spec in plan.tensors
        ],
        "modules": [
            {"path": spec.path, "attributes": _lists(spec.attributes)} for spec in plan.modules
        ],
    }


def plan_from_json(plain: dict[str, Any], *, limits: Limits = DEFAULT) -> Plan:
    """The plan of what :func:`plan_json` returned.

    Raises:
        FileError: a field is missing, ill-typed or contradicts another.
    """
    try:
        plan = _plan(plain)
        check_plan(plan, limits)
        encode_plan(plan, limits=limits)  # checks every type too
        fingerprint = plain["fingerprint"]
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise MalformedFile(
            f"not the plain data of a plan: {type(error).__name__}: {error}; "
            "pass what planc show --json printed"
        ) from error
    if fingerprint != plan.fingerprint:
        raise MalformedFile(
            f"fingerprint: {fingerprint}, the digests of source give {plan.fingerprint}; "
            "pass what planc show --json printed"
        )
    return plan


def _plan(plain: dict[str, Any]) -> Plan:
    return Plan(
        source=_from_digests(plain["source"]),
        result=_from_digests(plain["result"]),
        tensors=tuple(
            TensorSpec(tuple(spec["names"]), tuple(spec["shape"]), spec["kind"])
            for spec in plain["tensors"]
        ),
        modules=tuple(
            ModuleSpec(spec["path"], _tuples(spec["attributes"])) for spec in plain["modules"]
        ),
        groups=tuple(_from_group(group) for group in plain["groups"]),
        attributes=tuple(
            AttributeChange(c["module"], c["name"], _tuples(c["before"]), _tuples(c["after"]))
            for c in plain["attributes"]
        ),
        inputs=_tuples(plain["inputs"]),
        target=plain["target"],
        provenance=tuple(
            Provenance(p["criterion"], p["policy"], p["seed"], _tuples(p["versions"]))
            for p in plain["provenance"]
        ),
        cost_before=Cost(**plain["cost_before"]),
        cost_after=Cost(**plain["cost_after"]),
        shapes=bytes.fromhex(plain["shapes"]),
        constraints=tuple(WidthConstraint(c["text"], c["reason"]) for c in plain["constraints"]),
        requires=tuple(plain["requires"]),
    )


def _digests(digests: Fingerprints) -> dict[str, str]:
    return {
        "attributes": digests.attributes.hex(),
        "structure": digests.structure.hex(),
        "tensors": digests.tensors.hex(),
    }


def _from_digests(plain: dict[str, str]) -> Fingerprints:
    return Fingerprints(**{name: bytes.fromhex(digest) for name, digest in plain.items()})


def _cost(cost: Cost) -> dict[str, int]:
    return {"macs": cost.macs, "params": cost.params, "bytes": cost.bytes}


def _group(group: PlanGroup) -> dict[str, Any]:
    members = [
        {
            "tensor": member.tensor,
            "dim": member.dim,
            "over": member.over and [member.over.dim, member.over.start, member.over.stop],
            "runs": [{name: getattr(run, name) for name in _RUN} for run in member.runs],
        }
        for member in group.members
    ]
    return {
        "name": group.name,
        "kind": group.kind,
        "size": group.size,
        "rows": group.rows,
        "removed": list(group.removed),
        "mixing": group.mixing,
        "members": members,
    }


def _from_group(plain: dict[str, Any]) -> PlanGroup:
    members = tuple(
        Member(
            member["tensor"],
            member["dim"],
            tuple(Run(**run) for run in member["runs"]),
            None if member["over"] is None else Over(*member["over"]),
        )
        for member in plain["members"]
    )
    removed = tuple(plain["removed"])
    return PlanGroup(
        plain["name"],
        plain["kind"],
        plain["size"],
        plain["rows"],
        members,
        plain["mixing"],
        removed,
    )


def _lists(value: Any) -> Any:
    return [_lists(item) for item in value] if isinstance(value, tuple) else value


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
