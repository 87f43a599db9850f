"""Records of older format versions, brought to the current one."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import asdict

from planc.files.formats.records import (
    GroupRecord,
    PlanRecord,
    PlanRecord1,
    ProvenanceRecord1,
    decode_record,
)
from planc.plan.plan import Provenance


def plan_record_1(body: bytes) -> PlanRecord:
    """The record of a plan's body of version 1; it has no outputs, scores and digests.

    Raises:
        MalformedFile, UnsupportedVersion: as for :func:`decode_record`.
    """
    record = decode_record(body, PlanRecord1)
    groups = tuple(GroupRecord(**asdict(group), scores=None) for group in record.groups)
    renewed = {"groups": groups, "outputs": (), "provenance": provenance_1(record.provenance)}
    return PlanRecord(**asdict(record) | renewed)


def provenance_1(records: Iterable[ProvenanceRecord1]) -> tuple[Provenance, ...]:
    """Provenance of version 1, without digests."""
    return tuple(Provenance(**asdict(record)) for record in records)
