"""Latency files: reading and writing a :class:`planc.plan.latency.LatencyTable`.

The envelope is the same as for plans, with the kind ``planc/time``. The body is a map:

    grids       [{axes, blocks, nanoseconds, operator}]   ``axes`` rising widths, one list for each
                axis, ``blocks`` the channels processed at once, one number for each (or none);
                ``nanoseconds`` one for each combination, the last axis fastest
    inputs      the specification of the example inputs (planc.plan.specification)
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
from msgspec.structs import asdict

from planc.errors import MalformedFile
from planc.files.disk.limits import DEFAULT, Limits, limits_given
from planc.files.formats.formats import Format, Path
from planc.files.formats.records import RecordMap, decode_inputs, decode_record, encode_body
from planc.files.formats.specification import check_specification
from planc.plan.arguments import a_digest, a_path, instance, takes
from planc.plan.latency import Grid, LatencyTable, Use
from planc.plan.plan import Natural
from planc.plan.specification import features

KIND = b"planc/time"
_AGAIN = "measure the table again"


class LatencyRecord(RecordMap):
    grids: tuple[Grid, ...]
    inputs: msgspec.Raw  # of type Inputs
    machine: str
    rest: Natural
    structure: bytes
    threads: Natural
    unmeasured: tuple[str, ...]
    uses: tuple[Use, ...]


@takes(
    table=instance(
        "a planc.LatencyTable", LatencyTable, advice="give what planc.measure_latency returns"
    ),
    path=a_path,
    limits=limits_given,
)
def save_latency(table: LatencyTable, path: Path, *, limits: Limits = DEFAULT) -> None:
    """Write a latency table to a file, atomically and durably.

    Raises:
        FileError: the table is not valid, or exceeds ``limits``; ``path`` is a pipe or device.
        OSError: the file cannot be written.
    """
    LATENCIES.save(table, path, limits)


@takes(path=a_path, sha256=a_digest, limits=limits_given)
def load_latency(
    path: Path, *, sha256: str | None = None, limits: Limits = DEFAULT
) -> LatencyTable:
    """Read a latency table written by :func:`save_latency`.

    Args:
        path: a regular file; symbolic links are followed.
        sha256: expected SHA-256 of the whole file in hexadecimal; any other file is refused.
        limits: bounds on the file's content.

    Raises:
        FileError: the file is not a latency table, is damaged or too large.
        OSError: the file cannot be read.
    """
    return LATENCIES.load(path, sha256, limits)


def to_body(table: LatencyTable) -> bytes:
    """The canonical body of a latency table. The table is not validated here."""
    return encode_body(table)


def from_body(body: bytes, limits: Limits) -> LatencyTable:
    """The latency table of a body, with every field checked against the others.

    Raises:
        MalformedFile: not canonical, or two fields contradict each other; both are named.
    """
    record = decode_record(body, LatencyRecord)
    if len(record.structure) != 32:
        raise MalformedFile(f"structure: {len(record.structure)} bytes, a SHA-256 has 32; {_AGAIN}")
    inputs = decode_inputs(record.inputs, limits)
    check_specification(inputs, limits)
    if features(inputs):
        raise MalformedFile(f"inputs: a table of latencies holds no values; {_AGAIN}")
    limits.check_name(record.machine, "machine")
    for name in record.unmeasured:
        limits.check_name(name, "unmeasured")
    for i, grid in enumerate(record.grids):
        limits.check_name(grid.operator, f"grids[{i}].operator")
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
    return LatencyTable(**asdict(record) | {"inputs": inputs})


LATENCIES = Format(KIND, "latency table", to_body, from_body)
