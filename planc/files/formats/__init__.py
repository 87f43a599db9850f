"""Plan files: a :class:`planc.plan.Plan` in, canonical bytes out, and back.

What is read is checked before it is a plan, in this order: the file is a regular one of bounded
size; its prefix, length and digest; every type; the canonical form; every field against the
others. What is written has passed the same checks, so a plan that cannot be read is never saved.
"""

from __future__ import annotations

from planc.files.disk.limits import DEFAULT, Limits, limits_given
from planc.files.formats.checks import check_plan
from planc.files.formats.conversion import to_body, to_plan
from planc.files.formats.formats import Format, Path
from planc.files.formats.records import decode_body
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
    """Writes ``plan`` to a file, which is whole on the disk on return or as it was before.

    Raises:
        FileError: the plan is not valid, or larger than ``limits``; ``path`` is a pipe or device.
        OSError: the file cannot be written.
    """
    _PLANS.save(plan, path, limits)


@takes(path=a_path, sha256=a_digest, limits=limits_given)
def load_plan(path: Path, *, sha256: str | None = None, limits: Limits = DEFAULT) -> Plan:
    """Reads a plan that :func:`save_plan` wrote.

    Args:
        path: a regular file; symbolic links are followed.
        sha256: digest of the whole file in hexadecimal, as ``sha256sum`` prints it, of a plan
            that was reviewed: any other file is refused.
        limits: bounds on what is read.

    Raises:
        FileError: the file is not a plan, is damaged or too large; its class says which.
        OSError: the file cannot be read.
    """
    return _PLANS.load(path, sha256, limits)


def encode_plan(plan: Plan, *, limits: Limits = DEFAULT) -> bytes:
    """The content of the file of a plan; equal plans give equal bytes.

    Raises:
        FileError: the plan is not valid, or larger than ``limits``.
    """
    return _PLANS.encode(plan, limits)


def decode_plan(
    content: bytes,
    *,
    name: str = "the plan",
    sha256: str | None = None,
    limits: Limits = DEFAULT,
) -> Plan:
    """The plan in the content of a file; ``name`` is what errors call it. See :func:`load_plan`."""
    return _PLANS.decode(content, name, sha256, limits)


def _from_body(body: bytes, limits: Limits) -> Plan:
    plan = to_plan(decode_body(body), limits)
    check_plan(plan, limits)
    return plan


_PLANS = Format(b"planc/plan", "plan", to_body, _from_body)
