"""Plan files: a :class:`planc.plan.Plan` in, canonical bytes out, and back.

What is read is checked before it is a plan, in this order: the file is a regular one of bounded
size; its prefix, length and digest; every type; the canonical form; every field against the
others. What is written has passed the same checks, so a plan that cannot be read is never saved.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256 as _sha256

from planc.codec.checks import check_plan
from planc.codec.conversion import to_body, to_plan
from planc.codec.envelope import seal, unseal
from planc.codec.files import read_file, write_file
from planc.codec.limits import DEFAULT, Limits
from planc.codec.records import decode_body
from planc.errors import CorruptFile, FileError, MalformedFile
from planc.plan import Plan

__all__ = ["Limits", "decode_plan", "encode_plan", "load_plan", "save_plan"]

_KIND = b"planc/plan"


def save_plan(plan: Plan, path: str | os.PathLike[str], *, limits: Limits = DEFAULT) -> None:
    """Writes ``plan`` to a file, which is whole on the disk on return or as it was before.

    Raises:
        FileError: the plan is not valid, or larger than ``limits``; ``path`` is a pipe or device.
        OSError: the file cannot be written.
    """
    write_file(path, encode_plan(plan, limits=limits))


def load_plan(
    path: str | os.PathLike[str], *, sha256: str | None = None, limits: Limits = DEFAULT
) -> Plan:
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
    content = read_file(path, limits.file)
    return decode_plan(content, name=os.fspath(path), sha256=sha256, limits=limits)


def encode_plan(plan: Plan, *, limits: Limits = DEFAULT) -> bytes:
    """The content of the file of a plan; equal plans give equal bytes.

    Raises:
        FileError: the plan is not valid, or larger than ``limits``.
    """
    with _named("this plan cannot be saved"):
        try:
            body = to_body(plan)
        except (TypeError, ValueError, KeyError, IndexError, OverflowError) as error:
            raise MalformedFile(f"{type(error).__name__}: {error}") from error
        limits.check("file", len(body), "the plan")
        if _decode(body, limits) != plan:
            raise MalformedFile("it holds something that a file cannot, as a list or an array")
        return seal(_KIND, body)


def decode_plan(
    content: bytes,
    *,
    name: str = "the plan",
    sha256: str | None = None,
    limits: Limits = DEFAULT,
) -> Plan:
    """The plan in the content of a file; ``name`` is what errors call it. See :func:`load_plan`."""
    if sha256 is not None and len(sha256) != 64:
        raise ValueError(f"sha256 has 64 hexadecimal digits, {sha256!r} has {len(sha256)}")
    with _named(name):
        limits.check("file", len(content), "the file")
        body = unseal(_KIND, content)
        if sha256 is not None:
            found = _sha256(content).hexdigest()
            if found != sha256.lower():
                raise CorruptFile(
                    f"the file's SHA-256 is {found}, {sha256.lower()} was asked for; get the "
                    "file that was reviewed, or review this one"
                )
        return _decode(body, limits)


def _decode(body: bytes, limits: Limits) -> Plan:
    plan = to_plan(decode_body(body), limits)
    check_plan(plan, limits)
    return plan


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Puts the name of what is read before the message of an error."""
    try:
        yield
    except FileError as error:
        raise type(error)(f"{name}: {error}") from error.__cause__
