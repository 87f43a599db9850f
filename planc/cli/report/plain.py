"""Plans as plain data for JSON: dictionaries, lists, numbers and strings, without loss.

The data is readable: digests are hexadecimal, removed units are listed, members name their tensor.
The fields are those of :class:`planc.plan.plan.Plan` and its records. On the way back they pass
the checks of a plan file.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

from planc.errors import MalformedFile
from planc.files.disk.limits import DEFAULT, Limits
from planc.files.formats import encode_plan
from planc.files.formats.checks import check_plan
from planc.ir.groups import Over
from planc.ir.units import Units
from planc.plan.plan import Plan

_SINCE_2 = {"decisions", "latency", "origin", "outputs", "scores", "statistics", "weights"}
"""Fields of format version 2; texts of version 1 have none."""
_FIRST = ("target", "source", "result", "cost_before", "cost_after")


def plan_json(plan: Plan) -> dict[str, Any]:
    """Return ``plan`` as plain data; :func:`plan_from_json` is the inverse."""
    plain = plain_data(plan)
    return {"fingerprint": plan.fingerprint, **{name: plain[name] for name in _FIRST}, **plain}


def plan_from_json(plain: dict[str, Any], *, limits: Limits = DEFAULT) -> Plan:
    """Rebuild a plan from the result of :func:`plan_json`.

    Raises:
        FileError: a field is missing, ill-typed or contradicts another.
    """
    try:
        plan: Plan = _typed(Plan, plain)
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


def plain_data(value: Any) -> Any:
    """Return records as dictionaries, sequences as lists and digests as hexadecimal text."""
    if isinstance(value, tuple | Units):
        return [plain_data(item) for item in value]
    if isinstance(value, Over):
        return [value.dim, value.start, value.stop]
    if is_dataclass(value):
        return {field.name: plain_data(getattr(value, field.name)) for field in fields(value)}
    return value.hex() if isinstance(value, bytes) else value


def _typed(kind: Any, plain: Any) -> Any:
    """Rebuild a value of type ``kind``: the inverse of :func:`plain_data`."""
    if kind is Over:
        return Over(*plain)
    if is_dataclass(kind):
        make: Any = kind
        types = _types(make)
        present = [name for name in types if name in plain or name not in _SINCE_2]
        return make(**{name: _typed(types[name], plain[name]) for name in present})
    if kind is bytes or (bytes in get_args(kind) and plain is not None):
        return bytes.fromhex(plain)
    record = next(filter(is_dataclass, get_args(kind)), None)
    if get_origin(kind) is not tuple and record is not None and plain is not None:
        return _typed(record, plain)  # an optional record
    if isinstance(plain, list):
        return tuple(_typed(record, item) for item in plain)
    return plain


@cache
def _types(kind: Any) -> dict[str, Any]:
    """Types of the fields of a record, by name."""
    return get_type_hints(kind)
