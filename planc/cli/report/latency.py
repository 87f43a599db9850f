"""Latency tables for people and for JSON: a table or plain data out."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType
from rich.table import Table

from planc.cli.report.text import escape, facts, share_text, spaced
from planc.plan.latency import LatencyTable
from planc.plan.specification import inputs_text


def latency_table(table: LatencyTable) -> RenderableType:
    """What ``planc show`` prints of a latency table: where it was measured, what takes how long."""
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
    rows = Table(title="operators", title_justify="left")
    rows.add_column("operator", overflow="fold")
    for heading in ("nodes", "ms", "share", "ms at least"):
        rows.add_column(heading, justify="right")
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
    """The same as plain data: of each kind of operator its nodes, what they take in the model as it
    is, and what they take with the smallest widths that were measured.
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
