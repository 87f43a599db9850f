"""Terminal tables of the differences of plans, and the words that all tables share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Group as Stack
from rich.console import RenderableType
from rich.markup import escape as markup_escape
from rich.table import Table
from rich.text import Text

from planc.errors.text import escaped
from planc.plan.diff import AttributeDiff, PlanDiff
from planc.plan.plan import AttributeChange, Cost
from planc.plan.review.summary import origin_text

COSTS = (("macs", "MACs"), ("params", "parameters"), ("bytes", "bytes"))
"""The fields of a cost, and their names for people."""


def escape(text: str) -> str:
    """Escape markup and invisible characters of a cell's text."""
    return markup_escape(escaped(text))


def diff_table(diff: PlanDiff) -> RenderableType:
    """Return the tables of ``planc diff``, with the differences only."""
    if not diff:
        return Text("the plans are equal")
    parts: list[RenderableType] = []
    facts = _facts_that_differ(diff)
    if facts.row_count:
        parts.append(facts)
    if diff.cost_before[0] != diff.cost_before[1]:
        parts.append(_cost_diff_table("cost before", *diff.cost_before))
    if diff.cost_after[0] != diff.cost_after[1]:
        parts.append(_cost_diff_table("cost after", *diff.cost_after))
    if diff.groups or diff.groups_only_a or diff.groups_only_b:
        parts.append(_group_diff_table(diff))
    if diff.attributes:
        parts.append(_attribute_diff_table(diff.attributes))
    return spaced(parts)


def _facts_that_differ(diff: PlanDiff) -> Table:
    table = facts()
    if diff.source is not None:
        table.add_row("made for", escape(f"different structures: {diff.source}"))
    if diff.target is not None:
        table.add_row("target", escape(f"{diff.target[0]} in a, {diff.target[1]} in b"))
    if diff.provenance is not None:
        for side, entries in zip("ab", diff.provenance, strict=True):
            for entry in entries:
                table.add_row(f"{side} made by", escape(provenance_text(entry)))
    if diff.others:
        table.add_row("also differ", escape(", ".join(diff.others)))
    return table


def _cost_diff_table(title: str, a: Cost, b: Cost) -> Table:
    table = titled(title, "", "a>", "b>", "b - a>")
    for field, name in COSTS:
        left, right = getattr(a, field), getattr(b, field)
        table.add_row(name, f"{left:,}", f"{right:,}", f"{right - left:+,}")
    return table


def _group_diff_table(diff: PlanDiff) -> Table:
    headings = ("group", "kind", "units>", "removed in both", "only in a", "only in b")
    table = titled("groups", *headings, "also differ")
    for group in diff.groups:
        table.add_row(
            escape(group.name),
            escape(group.kind),
            str(group.size),
            str(len(group.both)),
            units_text(group.only_a),
            units_text(group.only_b),
            escape(", ".join(group.described)),
        )
    for side, names in (("a", diff.groups_only_a), ("b", diff.groups_only_b)):
        for name in names:
            table.add_row(escape(name), f"only in {side}")
    return table


def _attribute_diff_table(attributes: Iterable[AttributeDiff]) -> Table:
    table = titled("attributes", "attribute", "in a", "in b")
    for entry in attributes:
        sides = [
            "left as it is" if side is None else escape(f"{side[0]!r} -> {side[1]!r}")
            for side in (entry.a, entry.b)
        ]
        table.add_row(escape(attribute_name(entry)), *sides)
    return table


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
