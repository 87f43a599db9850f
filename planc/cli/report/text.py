"""Terminal tables of plans and of their differences, as renderables of rich."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Group as Stack
from rich.console import RenderableType
from rich.markup import escape as markup_escape
from rich.table import Table
from rich.text import Text

from planc.cli.report.plain import plan_from_json, plan_json
from planc.errors.text import escaped
from planc.plan.diff import AttributeDiff, PlanDiff
from planc.plan.plan import AttributeChange, Cost, Plan, Provenance
from planc.plan.specification import inputs_text

__all__ = ["diff_table", "plan_from_json", "plan_json", "plan_table"]

COSTS = (("macs", "MACs"), ("params", "parameters"), ("bytes", "bytes"))
"""The fields of a cost, and their names for people."""


def escape(text: str) -> str:
    """Escape markup and invisible characters of a cell's text."""
    return markup_escape(escaped(text))


def plan_table(plan: Plan) -> RenderableType:
    """Return the tables of ``planc show``: origin, savings, groups, attributes, constraints."""
    parts: list[RenderableType] = [_header(plan), _cost_table(plan), _group_table(plan)]
    if plan.attributes:
        parts.append(_attribute_table(plan))
    if plan.outputs:
        parts.append(_output_table(plan))
    if plan.constraints:
        parts.append(_constraint_table(plan))
    return spaced(parts)


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


def _header(plan: Plan) -> Table:
    header = facts()
    header.add_row("fingerprint", plan.fingerprint[:16])
    header.add_row("target", escape(plan.target))
    for entry in plan.provenance:
        header.add_row("made by", escape(provenance_text(entry)))
    header.add_row("inputs", escape(inputs_text(plan.inputs)))
    if plan.requires:
        header.add_row("requires", escape(", ".join(plan.requires)))
    return header


def _cost_table(plan: Plan) -> Table:
    table = titled("cost", "", "before>", "after>", "left>")
    for field, name in COSTS:
        before, after = getattr(plan.cost_before, field), getattr(plan.cost_after, field)
        table.add_row(name, f"{before:,}", f"{after:,}", share_text(after, before))
    return table


def _group_table(plan: Plan) -> Table:
    touched = sum(bool(group.removed) for group in plan.groups)
    title = f"groups: {touched} of {len(plan.groups)} lose units"
    table = titled(title, "group", "kind", "units>", "removed>", "kept>", "members>", "mixing")
    for group in plan.groups:
        rows = f"{group.rows} x {group.cells}" if group.rows > 1 else str(group.size)
        table.add_row(
            escape(group.name),
            escape(group.kind),
            rows,
            str(len(group.removed)),
            str(group.kept),
            str(len(group.members)),
            escape(group.mixing),
            style=None if group.removed else "dim",
        )
    return table


def _attribute_table(plan: Plan) -> Table:
    table = titled("attributes", "attribute", "before>", "after>")
    for change in plan.attributes:
        cells = (attribute_name(change), repr(change.before), repr(change.after))
        table.add_row(*map(escape, cells))
    return table


def _output_table(plan: Plan) -> Table:
    table = titled("outputs that shrink", "output", "dim>", "before>", "after>")
    for change in plan.outputs:
        sizes = map(str, (change.dim, change.size, len(change.kept)))
        table.add_row(escape(change.name or "the result"), *sizes)
    return table


def _constraint_table(plan: Plan) -> Table:
    table = titled("constraints on what is kept", "constraint", "reason")
    for constraint in plan.constraints:
        table.add_row(escape(constraint.text), escape(constraint.reason))
    return table


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


def provenance_text(entry: Provenance) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in entry.versions)
    made = f"{entry.criterion}, {entry.policy}, seed {entry.seed}"
    return f"{made} ({versions})" if versions else made


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
