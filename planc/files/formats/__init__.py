"""Plan files: reading and writing a :class:`planc.plan.plan.Plan`.

A file is checked before it becomes a plan, in this order: it is a regular file of bounded size;
its prefix, length and digest; every type; the canonical form; every field against the others.
A plan passes the same checks before it is written, so an unreadable plan is never saved.
"""

from __future__ import annotations

from planc.files.disk.limits import DEFAULT, Limits, limits_given
from planc.files.formats.checks import check_plan
from planc.files.formats.conversion import to_body, to_plan
from planc.files.formats.formats import Format, Path
from planc.files.formats.records import PlanRecord, decode_record
from planc.files.formats.versions import plan_record_1
from planc.plan.arguments import a_digest, a_path, a_plan, takes
from planc.plan.plan import Plan

__all__ = [
    "Limits",
    "decode_plan",
    "encode_plan",
    "load_plan",
    "save_plan",
]


@takes(plan=a_plan, path=a_path, limits=limits_given)
def save_plan(plan: Plan, path: Path, *, limits: Limits = DEFAULT) -> None:
    """Write ``plan`` to a file, atomically and durably.

    On return the file is complete on the disk. On error it is as it was before.

    Args:
        plan: the plan to write.
        path: the file, created or replaced; a symbolic link stays, and its target is replaced.
        limits: bounds on the plan, the same as for reading.

    Raises:
        FileError: the plan is not valid, or exceeds ``limits``; ``path`` is a pipe or device.
        OSError: the file cannot be written.
    """
    PLANS.save(plan, path, limits)


@takes(path=a_path, sha256=a_digest, limits=limits_given)
def load_plan(path: Path, *, sha256: str | None = None, limits: Limits = DEFAULT) -> Plan:
    """Read a plan written by :func:`save_plan`, of this planc or an older one.

    Args:
        path: a regular file; symbolic links are followed.
        sha256: expected SHA-256 of the whole file in hexadecimal, as printed by ``sha256sum``. Pass
            the digest of a reviewed plan to refuse any other file.
        limits: bounds on the file's content.

    Raises:
        FileError: the file is not a plan, is damaged or too large; the subclass tells the cause.
        OSError: the file cannot be read.
    """
    return PLANS.load(path, sha256, limits)


def _from_record(record: PlanRecord, limits: Limits) -> Plan:
    plan = to_plan(record, limits)
    check_plan(plan, limits)
    return plan


def _from_body(body: bytes, limits: Limits) -> Plan:
    return _from_record(decode_record(body, PlanRecord), limits)


def _from_body_1(body: bytes, limits: Limits) -> Plan:
    return _from_record(plan_record_1(body), limits)


PLANS = Format(b"planc/plan", "plan", to_body, _from_body, {1: _from_body_1})
encode_plan, decode_plan = PLANS.encode, PLANS.decode
