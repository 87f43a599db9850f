"""Latency tables as terminal tables and as plain data."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType

from planc.cli.report.text import escape, facts, share_text, spaced, titled
from planc.plan.latency import LatencyTable
from planc.plan.specification import inputs_text


def latency_table(table: LatencyTable) -> RenderableType:
    """Return the table of ``planc show``: the machine, and the time of each operator."""
    operators = latency_json(table)["operators"]
    whole = table.rest + sum(entry["nanoseconds"] for entry in operators)
    header = facts()
    header.add_row("structure", table.structure.hex()[:16])
    header.add_row("machine", escape(f"{table.machine}, threads: {table.threads}"))
    header.add_row("inputs", escape(inputs_text(table.inputs)))
    header.add_row("in all", f"{whole / 1e6:,.2f} ms")
    header.add_row("beyond operators", f"{table.rest / 1e6:,.2f} ms")
    if table.unmeasured:
        header.add_row("unmeasured", escape(", ".join(table.unmeasured)))
    rows = titled("operators", "operator", "nodes>", "ms>", "share>", "ms at least>")
    for entry in operators:
        rows.add_row(
            escape(entry["operator"]),
            str(entry["nodes"]),
            f"{entry['nanoseconds'] / 1e6:,.3f}",
            share_text(entry["nanoseconds"], whole),
            f"{entry['least'] / 1e6:,.3f}",
        )
    return spaced([header, rows])


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
