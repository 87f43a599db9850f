"""The parts and words that tables share."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group as Stack
from rich.console import RenderableType
from rich.markup import escape as markup_escape
from rich.table import Table

from planc.errors.text import escaped
from planc.plan.diff import AttributeDiff
from planc.plan.plan import AttributeChange
from planc.plan.review.summary import origin_text

COSTS = (("macs", "MACs"), ("params", "parameters"), ("bytes", "bytes"))
"""The fields of a cost, and their names for people."""


def escape(text: str) -> str:
    """Escape markup and invisible characters of a cell's text."""
    return markup_escape(escaped(text))


def titled(title: str, *headings: str) -> Table:
    """Return an empty table; a heading that ends in ">" is right-aligned, others wrap."""
    table = Table(title=title, title_justify="left")
    for heading in headings:
        if heading.endswith(">"):
            table.add_column(heading[:-1], justify="right")
        else:
            table.add_column(heading, overflow="fold")
    return table


def facts() -> Table:
    """Return an empty table of names and values, without borders."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    return table


def spaced(parts: Sequence[RenderableType]) -> Stack:
    """Stack ``parts`` with empty lines between."""
    lines: list[RenderableType] = []
    for part in parts:
        lines += [part] if not lines else ["", part]
    return Stack(*lines)


def attribute_name(entry: AttributeChange | AttributeDiff) -> str:
    """Return the full name of an attribute."""
    return f"{entry.module}.{entry.name}" if entry.module else entry.name


provenance_text = origin_text


def share_text(after: int, before: int) -> str:
    return f"{after / before:.1%}" if before else "-"


def units_text(units: Sequence[int]) -> str:
    """Format units as ranges: ``0-3, 7 (5)``."""
    ranges: list[tuple[int, int]] = []
    for unit in units:
        if ranges and ranges[-1][1] == unit - 1:
            ranges[-1] = (ranges[-1][0], unit)
        else:
            ranges.append((unit, unit))
    if not ranges:
        return "-"
    shown = [f"{a}-{b}" if b > a else str(a) for a, b in ranges[:8]]
    return ", ".join(shown) + (", ..." if len(ranges) > 8 else "") + f" ({len(units)})"
