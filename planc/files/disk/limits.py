"""Limits of what a reader accepts: one frozen value, each bound with its reason."""

from __future__ import annotations

from dataclasses import dataclass

from planc.errors import LimitExceeded
from planc.plan.arguments import instance


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what is read; raise one by passing ``limits=Limits(name=...)``."""

    file: int = 64 << 20  # bytes; bitmaps make real plans under 1 MiB
    header: int = 16 << 20  # bytes of one safetensors header; the JSON costs 15 times that
    index: int = 64 << 20  # bytes of the index of a set of shards
    shards: int = 65_536
    record: int = 9 << 20  # bytes of the record in a checkpoint's header, 12 MiB in base64
    groups: int = 65_536
    members: int = 65_536  # of one group
    constraints: int = 65_536
    units: int = 1 << 22  # of all groups; one is a byte while a plan is checked, a bit in the file
    modules: int = 1_048_576
    tensors: int = 1_048_576
    string: int = 1_024  # bytes of UTF-8
    attribute_bytes: int = 1 << 25  # bytes of the attributes of all modules, equal ones counted too
    leaves: int = 1_024  # scalars in one attribute
    inputs: int = 1 << 15  # bytes of the specification of inputs; what nests is 60 times that
    rank: int = 32
    dimension: int = (1 << 48) - 1  # size of one dimension
    elements: int = (1 << 62) - 1  # of one tensor
    indices: int = 1 << 25  # looked at while a plan is checked, written out to apply it: 1 s
    marks: int = 1 << 20  # of one dimension whose indices do not lie apart by arithmetic

    def check(self, name: str, found: int, where: str) -> None:
        """Raises LimitExceeded if ``found`` is above the bound ``name``."""
        allowed: int = getattr(self, name)
        if found > allowed:
            raise LimitExceeded(
                f"{where}: {found} exceeds the limit of {allowed} {name}; if you trust the file, "
                f"pass limits=Limits({name}={found})"
            )


DEFAULT = Limits()

limits_given = instance("planc.files.formats.Limits", Limits, advice="give Limits(name=...)")
