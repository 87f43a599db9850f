"""Latency tables as a screen and as plain data."""

from __future__ import annotations

from functools import partial
from typing import Any

from rich.console import Group as Stack

from planc.cli.report.screen import CAUTION, STRONG, Piece, fact, hanging, screen
from planc.cli.report.table import Column, Entry, table
from planc.plan.latency import LatencyTable
from planc.plan.review.figures import duration
from planc.plan.specification import inputs_text


def latency_screen(measured: LatencyTable, width: int) -> Stack:
    """Return the lines of ``planc show``: the machine, and the time of each operator."""
    operators = latency_json(measured)["operators"]
    whole = measured.rest + sum(entry["nanoseconds"] for entry in operators)
    header = fact("structure", measured.structure.hex()[:16], width)
    header += fact("machine", f"{measured.machine}, threads: {measured.threads}", width)
    header += fact("inputs", inputs_text(measured.inputs), width)
    if measured.unmeasured:
        header += fact("unmeasured", ", ".join(measured.unmeasured), width, CAUTION)
    total = f"{duration(whole)} for a run, {duration(measured.rest)} of it beyond operators"
    columns = [Column("nodes"), Column("time"), Column("at least"), Column("share")]
    entries = [
        Entry(
            entry["operator"],
            (
                str(entry["nodes"]),
                duration(entry["nanoseconds"]),
                duration(entry["least"]),
                f"{100 * entry['nanoseconds'] / max(whole, 1):.1f} %",
            ),
            partial(_bar, entry["nanoseconds"] / max(whole, 1)),
        )
        for entry in operators
    ]
    rows = table("operator", columns, entries, width)
    return screen([header, hanging(total, width, style=STRONG), rows])


def _bar(part: float, width: int) -> list[Piece]:
    return [("█" * round(part * width), "")]


def latency_json(table: LatencyTable) -> dict[str, Any]:
    """Return the same as plain data.

    Each operator has its number of nodes, their time in the original model (``nanoseconds``), and
    their time at the smallest measured widths (``least``).
    """
    found: dict[str, dict[str, Any]] = {}
    for use in table.uses:
        grid = table.grids[use.grid]
        start = {"operator": grid.operator, "nodes": 0, "nanoseconds": 0, "least": 0}
        entry = found.setdefault(grid.operator, start)
        entry["nodes"] += 1
        entry["nanoseconds"] += grid.nanoseconds[-1]
        entry["least"] += grid.nanoseconds[0]
    return {
        "structure": table.structure.hex(),
        "inputs": table.inputs,
        "machine": table.machine,
        "threads": table.threads,
        "rest": table.rest,
        "operators": sorted(found.values(), key=lambda entry: -entry["nanoseconds"]),
        "unmeasured": list(table.unmeasured),
    }
