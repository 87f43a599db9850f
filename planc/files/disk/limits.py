"""Limits on the content of files: one frozen value, each bound with its reason."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

from planc.errors import LimitExceeded, MalformedFile
from planc.errors.text import hidden
from planc.plan.arguments import instance


@dataclass(frozen=True, slots=True, repr=False)
class Limits:
    """Bounds on the content of files; raise one with ``limits=Limits(name=...)``."""

    file: int = 64 << 20  # bytes; bitmaps make real plans under 1 MiB
    header: int = 16 << 20  # bytes of one safetensors header; parsed, JSON is 15 times as large
    index: int = 64 << 20  # bytes of the index of a set of shards
    shards: int = 65_536
    record: int = 9 << 20  # bytes of the record in a checkpoint's header, 12 MiB in base64
    groups: int = 65_536
    members: int = 65_536  # of one group
    constraints: int = 65_536
    units: int = 1 << 22  # of all groups; a unit is a byte while a plan is checked, a bit on disk
    modules: int = 1_048_576
    tensors: int = 1_048_576
    string: int = 1_024  # bytes of UTF-8
    attribute_bytes: int = 1 << 25  # bytes of the attributes of all modules, with repetitions
    decision: int = 1 << 16  # bytes of a reviewer's decision; it may list the units of a group
    outputs: int = 65_536  # that shrink
    leaves: int = 1_024  # scalars in one attribute
    inputs: int = 1 << 15  # bytes of the specification of inputs; decoded, 60 times as large
    rank: int = 32
    dimension: int = (1 << 48) - 1  # size of one dimension
    elements: int = (1 << 62) - 1  # of one tensor
    indices: int = 1 << 25  # inspected to check a plan, expanded to apply it: 1 s
    marks: int = 1 << 20  # of one dimension whose indices do not lie apart by arithmetic

    def __repr__(self) -> str:
        values = ((f.name, getattr(self, f.name), f.default) for f in fields(self))
        return f"Limits({', '.join(f'{n}={v}' for n, v, default in values if v != default)})"

    def check(self, name: str, found: int, where: str) -> None:
        """Raise LimitExceeded if ``found`` is above the bound ``name``."""
        allowed: int = getattr(self, name)
        if found > allowed:
            raise LimitExceeded(
                f"{where}: {found} exceeds the limit of {allowed} {name}; if you trust the file, "
                f"pass limits=Limits({name}={found})"
            )

    def check_shape(self, shape: Sequence[int], where: str) -> None:
        """Raise LimitExceeded for too many dimensions, or too large ones."""
        self.check("rank", len(shape), where)
        for size in shape:
            self.check("dimension", size, where)
        self.check("elements", math.prod(shape), where)

    def check_string(self, text: str, where: str) -> None:
        """Raise LimitExceeded for a string of too many bytes."""
        if len(text) * 4 > self.string:
            self.check("string", len(text.encode()), where)

    def check_name(self, text: str, where: str) -> None:
        """Check that a name is short and has no invisible character.

        Raises:
            LimitExceeded: it has too many bytes.
            MalformedFile: it has a control, bidirectional or invisible character.
        """
        self.check_string(text, where)
        self._check_seen(text, where)

    def check_decision(self, text: str, where: str) -> None:
        """Check a reviewer's decision like a name; it may be longer."""
        self.check("decision", len(text.encode()), where)
        self._check_seen(text, where)

    def _check_seen(self, text: str, where: str) -> None:
        if hidden(text):
            raise MalformedFile(
                f"{where}: {text[:80]!r} has the character {hidden(text)}, which cannot be seen "
                "and no name needs; rename it, or get the file elsewhere"
            )


DEFAULT = Limits()

limits_given = instance("a planc.Limits", Limits, advice="give Limits(name=...)")
