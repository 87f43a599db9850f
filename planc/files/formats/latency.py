"""Latency files: a :class:`planc.latency.table.LatencyTable` in, a canonical body out, and back.

The envelope is that of plans, with the kind ``planc/time``. The body is a map of

    grids       [{axes, blocks, nanoseconds, operator}]   ``axes`` rising widths, one list for each
                axis, ``blocks`` the channels that are taken at once, one number for each (or none);
                ``nanoseconds`` one for each combination, the last axis fastest
    inputs      the specification of the example inputs (planc.specification)
    machine     str, the name of the processor
    rest        nanoseconds beyond the operators
    structure   SHA-256 of the groups
    threads     int
    unmeasured  [str]
    uses        [{grid, widths}]   ``grid`` a row of ``grids``; ``widths`` for each of its axes
                pairs of a group and a factor

All numbers are integers, so equal tables are equal bytes on every machine.
"""

from __future__ import annotations

import itertools
import math

import msgspec

from planc.errors import MalformedFile
from planc.files.disk.limits import DEFAULT, Limits, limits_given
from planc.files.formats.checks import check_name
from planc.files.formats.formats import Format, Path
from planc.files.formats.records import Natural, RecordMap, decode_inputs, decode_record
from planc.files.formats.specification import check_specification
from planc.plan.arguments import a_digest, a_path, instance, takes
from planc.plan.fingerprint import canonical
from planc.plan.latency import Grid, LatencyTable, Use
from planc.plan.specification import features

KIND = b"planc/time"
_AGAIN = "measure the table again"


class GridRecord(RecordMap):
    axes: tuple[tuple[Natural, ...], ...]
    blocks: tuple[Natural, ...]
    nanoseconds: tuple[Natural, ...]
    operator: str


class UseRecord(RecordMap):
    grid: Natural  # row of the grids
    widths: tuple[tuple[tuple[Natural, Natural], ...], ...]


class LatencyRecord(RecordMap):
    grids: tuple[GridRecord, ...]
    inputs: msgspec.Raw  # of type Inputs
    machine: str
    rest: Natural
    structure: bytes
    threads: Natural
    unmeasured: tuple[str, ...]
    uses: tuple[UseRecord, ...]


@takes(
    table=instance(
        "a planc.LatencyTable", LatencyTable, advice="give what planc.measure_latency returns"
    ),
    path=a_path,
    limits=limits_given,
)
def save_latency(table: LatencyTable, path: Path, *, limits: Limits = DEFAULT) -> None:
    """Writes a latency table to a file; see :func:`planc.codec.save_plan`."""
    _LATENCY.save(table, path, limits)


@takes(path=a_path, sha256=a_digest, limits=limits_given)
def load_latency(
    path: Path, *, sha256: str | None = None, limits: Limits = DEFAULT
) -> LatencyTable:
    """Reads a latency table that :func:`save_latency` wrote; see :func:`planc.codec.load_plan`."""
    return _LATENCY.load(path, sha256, limits)


def decode_latency(
    content: bytes,
    *,
    name: str = "the latency table",
    sha256: str | None = None,
    limits: Limits = DEFAULT,
) -> LatencyTable:
    """The latency table in the content of a file; see :func:`planc.codec.decode_plan`."""
    return _LATENCY.decode(content, name, sha256, limits)


def to_body(table: LatencyTable) -> bytes:
    """The canonical body of a latency table. Nothing is checked here but what packing needs."""
    return canonical(
        {
            "grids": [
                {
                    "axes": grid.axes,
                    "blocks": grid.blocks,
                    "nanoseconds": grid.nanoseconds,
                    "operator": grid.operator,
                }
                for grid in table.grids
            ],
            "inputs": table.inputs,
            "machine": table.machine,
            "rest": table.rest,
            "structure": table.structure,
            "threads": table.threads,
            "unmeasured": table.unmeasured,
            "uses": [{"grid": use.grid, "widths": use.widths} for use in table.uses],
        }
    )


def from_body(body: bytes, limits: Limits) -> LatencyTable:
    """The latency table of a body, every field checked against the others.

    Raises:
        MalformedFile: not canonical, or a field contradicts another; both are named.
    """
    record = decode_record(body, LatencyRecord)
    if len(record.structure) != 32:
        raise MalformedFile(f"structure: {len(record.structure)} bytes, a SHA-256 has 32; {_AGAIN}")
    inputs = decode_inputs(record.inputs, limits)
    check_specification(inputs, limits)
    if features(inputs):
        raise MalformedFile(f"inputs: a table of latencies holds no values; {_AGAIN}")
    check_name(record.machine, "machine", limits)
    for name in record.unmeasured:
        check_name(name, "unmeasured", limits)
    for i, grid in enumerate(record.grids):
        check_name(grid.operator, f"grids[{i}].operator", limits)
        for axis in grid.axes:
            if not axis or any(b <= a for a, b in itertools.pairwise(axis)):
                raise MalformedFile(f"grids[{i}].axes: {axis} does not rise; {_AGAIN}")
        if len(grid.blocks) not in (0, len(grid.axes)) or 0 in grid.blocks:
            raise MalformedFile(
                f"grids[{i}].blocks: {grid.blocks} for {len(grid.axes)} axes: one number above 0 "
                f"for each; {_AGAIN}"
            )
        points = math.prod(len(axis) for axis in grid.axes)
        if len(grid.nanoseconds) != points:
            raise MalformedFile(
                f"grids[{i}].nanoseconds: {len(grid.nanoseconds)} times for {points} combinations "
                f"of widths; {_AGAIN}"
            )
    for i, use in enumerate(record.uses):
        if use.grid >= len(record.grids):
            raise MalformedFile(
                f"uses[{i}].grid: row {use.grid} of {len(record.grids)} grids; {_AGAIN}"
            )
        axes = len(record.grids[use.grid].axes)
        if len(use.widths) != axes:
            raise MalformedFile(
                f"uses[{i}].widths: {len(use.widths)} widths for the {axes} axes of grid "
                f"{use.grid}; {_AGAIN}"
            )
    return LatencyTable(
        record.structure,
        inputs,
        record.machine,
        record.threads,
        record.rest,
        tuple(Grid(g.operator, g.axes, g.nanoseconds, g.blocks) for g in record.grids),
        tuple(Use(use.grid, use.widths) for use in record.uses),
        record.unmeasured,
    )


_LATENCY = Format(KIND, "latency table", to_body, from_body)
