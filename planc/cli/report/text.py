"""Tables for the terminal: a plan or a difference of plans in, something rich can print out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Group as Stack
from rich.console import RenderableType
from rich.markup import escape as markup_escape
from rich.table import Table
from rich.text import Text

from planc.cli.report.plain import plan_from_json, plan_json
from planc.errors.text import escaped
from planc.plan.diff import AttributeDiff, GroupDiff, PlanDiff
from planc.plan.plan import AttributeChange, Cost, Plan, Provenance
from planc.plan.specification import inputs_text

__all__ = ["diff_table", "plan_from_json", "plan_json", "plan_table"]

_COSTS = ("macs", "params", "bytes")
_TITLES = {"macs": "MACs", "params": "parameters", "bytes": "bytes"}


def escape(text: str) -> str:
    """A text for a cell: neither markup nor a character that cannot be seen is obeyed."""
    return markup_escape(escaped(text))


def plan_table(plan: Plan) -> RenderableType:
    """What ``planc show`` prints: where the plan is from, what it saves, group by group."""
    parts: list[RenderableType] = [_header(plan), _cost_table(plan), _group_table(plan)]
    if plan.attributes:
        parts.append(_attribute_table(plan))
    if plan.constraints:
        parts.append(_constraint_table(plan))
    return spaced(parts)


def diff_table(diff: PlanDiff) -> RenderableType:
    """What ``planc diff`` prints: nothing that both plans agree on."""
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
    table = Table(title="cost", title_justify="left")
    table.add_column("")
    for title in ("before", "after", "left"):
        table.add_column(title, justify="right")
    for name in _COSTS:
        before, after = getattr(plan.cost_before, name), getattr(plan.cost_after, name)
        table.add_row(_TITLES[name], f"{before:,}", f"{after:,}", share_text(after, before))
    return table


def _group_table(plan: Plan) -> Table:
    touched = sum(bool(group.removed) for group in plan.groups)
    title = f"groups: {touched} of {len(plan.groups)} lose units"
    table = Table(title=title, title_justify="left")
    table.add_column("group", overflow="fold")
    table.add_column("kind")
    for heading in ("units", "removed", "kept", "members"):
        table.add_column(heading, justify="right")
    table.add_column("mixing")
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
    table = Table(title="attributes", title_justify="left")
    table.add_column("attribute", overflow="fold")
    table.add_column("before", justify="right")
    table.add_column("after", justify="right")
    for change in plan.attributes:
        table.add_row(
            escape(attribute_name(change)), escape(repr(change.before)), escape(repr(change.after))
        )
    return table


def _constraint_table(plan: Plan) -> Table:
    table = Table(title="constraints on what is kept", title_justify="left")
    table.add_column("constraint", overflow="fold")
    table.add_column("reason", overflow="fold")
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
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for heading in ("a", "b", "b - a"):
        table.add_column(heading, justify="right")
    for name in _COSTS:
        left, right = getattr(a, name), getattr(b, name)
        table.add_row(_TITLES[name], f"{left:,}", f"{right:,}", f"{right - left:+,}")
    return table


def _group_diff_table(diff: PlanDiff) -> Table:
    table = Table(title="groups", title_justify="left")
    table.add_column("group", overflow="fold")
    table.add_column("kind")
    table.add_column("units", justify="right")
    for heading in ("removed in both", "only in a", "only in b"):
        table.add_column(heading, overflow="fold")
    table.add_column("also differ")
    for group in diff.groups:
        table.add_row(*_group_row(group))
    for side, names in (("a", diff.groups_only_a), ("b", diff.groups_only_b)):
        for name in names:
            table.add_row(escape(name), f"only in {side}")
    return table


def _group_row(group: GroupDiff) -> tuple[str, ...]:
    return (
        escape(group.name),
        escape(group.kind),
        str(group.size),
        str(len(group.both)),
        units_text(group.only_a),
        units_text(group.only_b),
        escape(", ".join(group.described)),
    )


def _attribute_diff_table(attributes: Iterable[AttributeDiff]) -> Table:
    table = Table(title="attributes", title_justify="left")
    table.add_column("attribute", overflow="fold")
    table.add_column("in a")
    table.add_column("in b")
    for entry in attributes:
        sides = [
            "left as it is" if side is None else escape(f"{side[0]!r} -> {side[1]!r}")
            for side in (entry.a, entry.b)
        ]
        table.add_row(escape(attribute_name(entry)), *sides)
    return table


def facts() -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    return table


def spaced(parts: Sequence[RenderableType]) -> Stack:
    lines: list[RenderableType] = []
    for part in parts:
        lines += [part] if not lines else ["", part]
    return Stack(*lines)


def attribute_name(entry: AttributeChange | AttributeDiff) -> str:
    """The full name of an attribute."""
    return f"{entry.module}.{entry.name}" if entry.module else entry.name


def provenance_text(entry: Provenance) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in entry.versions)
    made = f"{entry.criterion}, {entry.policy}, seed {entry.seed}"
    return f"{made} ({versions})" if versions else made


def share_text(after: int, before: int) -> str:
    return f"{after / before:.1%}" if before else "-"


def units_text(units: Sequence[int]) -> str:
    """Units as ranges: ``0-3, 7 (5)``."""
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
