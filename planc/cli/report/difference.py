"""The screen of ``planc diff``: both files, what they save, and groups by width before units.

``--stat`` takes at most ten lines: the sums, and a row for each stage with a bar of the units that
only one of the plans keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

from rich.console import Group as Stack
from rich.text import Text

from planc.cli.report.screen import (
    CAUTION,
    FAINT,
    KEPT,
    REMOVED,
    STRONG,
    Piece,
    counted,
    fact,
    fold,
    hanging,
    line,
    ranges,
    screen,
)
from planc.cli.report.table import Column, Entry, table
from planc.plan.diff import GroupDiff, PlanDiff
from planc.plan.plan import AttributeChange, Latency, Plan, PlanGroup, Provenance
from planc.plan.review import rows as tables
from planc.plan.review.figures import duration, figure, share
from planc.plan.review.rows import Row
from planc.plan.review.summary import (
    attribute_name,
    made_by,
    not_from_widths,
    origin_text,
    weights_text,
)

STAT = 10
_TABLE, _NOTES, _BAR = 28, 4, 20
_FOLLOWING = ("result", "shapes")  # digests of what the groups say


@dataclass(frozen=True)
class Pair:
    """Two plans, their names for the reader, and their differences."""

    a: Plan
    b: Plan
    names: tuple[str, str]
    diff: PlanDiff

    @cached_property
    def found(self) -> dict[str, GroupDiff]:
        """The groups of both plans with different removals, by name."""
        return {
            entry.name: entry
            for entry in self.diff.groups
            if entry.only_a or entry.only_b or "size" in entry.described
        }


def diff_screen(pair: Pair, width: int, full: bool = False, stat: bool = False) -> Stack:
    """Return the lines of ``planc diff``, of at most ``width`` characters each.

    Args:
        full: list every group with the units of only one plan, and every attribute.
        stat: sums and stages in at most :data:`STAT` lines.
    """
    if not pair.diff:
        return Stack(line(f"{pair.names[0]} and {pair.names[1]} are equal"))
    if stat:
        sums = "; ".join(f"{name} {a} → {b}" for name, a, b in _sums(pair))
        ends = [*hanging(sums, width), *_count(pair, width)]
        head = _files(pair, width, False)
        return Stack(*head, *_stages(pair, width, STAT - len(head) - len(ends)), *ends)
    found = [group for group in pair.a.groups if group.name in pair.found]
    rows = tables.single(found) if full else tables.fitting(found, _TABLE, pair_key(pair))
    return screen(
        [
            [*_files(pair, width, True), *_facts(pair, width)],
            _sum_lines(pair),
            [*_count(pair, width), *_table(pair, rows, width, full)],
            _notes(pair, width, full),
        ]
    )


def pair_key(pair: Pair) -> tables.Likeness:
    """Equality of sizes and of the widths in both plans."""
    found = pair.found

    def key(group: PlanGroup) -> Hashable:
        return group.kind, group.size, group.rows, found[group.name].kept

    return key


def _files(pair: Pair, width: int, whole: bool) -> list[Text]:
    """Both files with the origin of their plans, one line each unless ``whole``."""
    lines: list[Text] = []
    longest = max(map(len, pair.names))
    for side, name, plan in zip("ab", pair.names, (pair.a, pair.b), strict=True):
        style = REMOVED if side == "a" else KEPT
        made = _texts(plan, origin_text if whole else made_by) or "unknown origin"
        room = width - longest - 5
        beside = room >= 30
        parts = fold(made, room if beside else width - 5)
        parts = parts if whole else parts[:1]
        head = line((f"{side}  {name.ljust(longest)}", style))
        lines.append(head.append(f"  {parts.pop(0)}") if beside else head)
        lines += [line(" " * (longest + 5 if beside else 5), part) for part in parts]
    return lines


def _facts(pair: Pair, width: int) -> list[Text]:
    """Differences of the whole: structure, weights, target, further fields."""
    lines: list[Text] = []
    diff = pair.diff
    if diff.source is not None:
        lines += fact("made for", f"different structures: {diff.source}", width, CAUTION)
    lines += _origins("weights", [_texts(plan, weights_text) for plan in (pair.a, pair.b)], width)
    for name, text in (("statistics", _statistics), ("decisions", _decisions)):
        sides = [_texts(plan, text) for plan in (pair.a, pair.b)]
        lines += _origins(name, sides, width, "none")
    machines = [plan.latency.machine if plan.latency else "" for plan in (pair.a, pair.b)]
    if all(machines) and len(set(machines)) > 1:
        lines += _origins("machine", machines, width)
    if diff.target is not None:
        lines += fact("target", " → ".join(diff.target), width)
    others = [name for name in diff.others if not (pair.found and name in _FOLLOWING)]
    return lines + (fact("also differ", ", ".join(others), width) if others else [])


def _origins(name: str, sides: Sequence[str], width: int, absent: str = "unknown") -> list[Text]:
    """One origin of both plans, or that of each."""
    a, b = (side or absent for side in sides)
    if not any(sides):
        return []
    if a == b:
        return fact(name, f"the same: {a}", width)
    return [*fact(name, f"a: {a}", width), *fact("", f"b: {b}", width)]


def _texts(plan: Plan, text: Callable[[Provenance], str]) -> str:
    return "; ".join(filter(None, map(text, plan.provenance)))


def _statistics(entry: Provenance) -> str:
    return "" if entry.statistics is None else entry.statistics.hex()[:16]


def _decisions(entry: Provenance) -> str:
    return "; ".join(entry.decisions)


def _sums(pair: Pair) -> list[tuple[str, str, str]]:
    """Removed units and costs of both plans."""
    plans = (pair.a, pair.b)
    a, b = (f"{sum(len(group.removed) for group in plan.groups):,}" for plan in plans)
    cells = [("units removed", a, b)]
    for field, name in (("params", "parameters"), ("macs", "MACs")):
        a, b = (
            _saved(getattr(plan.cost_before, field), getattr(plan.cost_after, field))
            for plan in plans
        )
        cells.append((name, a, b))
    if any(plan.latency is not None for plan in plans):
        a, b = (_time(plan.latency) for plan in plans)
        cells.append(("latency", a, b))
    return cells


def _time(latency: Latency | None) -> str:
    if latency is None:
        return "unknown"
    return f"{duration(latency.after)} ({share(latency.before, latency.after)})"


def _sum_lines(pair: Pair) -> list[Text]:
    cells = _sums(pair)
    longest = max(len(a) for _, a, _ in cells)
    return [
        line(f"{name:13}  ", (a.rjust(longest), REMOVED), " → ", (b, KEPT))
        if a != b
        else line((f"{name:13}  {a.rjust(longest)} in both", FAINT))
        for name, a, b in cells
    ]


def _saved(before: int, after: int) -> str:
    return f"{figure(after, before)} ({share(before, after)})"


def _count(pair: Pair, width: int) -> list[Text]:
    """The number of groups with other removals, and the overlap of all removals."""
    found = list(pair.found.values())
    shared = len({group.name for group in pair.a.groups} - set(pair.diff.groups_only_a))
    if not shared:
        return [line(("no group in common", STRONG))]
    if found:
        text = f"{len(found):,} of {counted(shared, 'group')} remove other units, "
        text += f"{_same(found)} of them the same"
    else:
        text = f"{counted(shared, 'group')} with the same units removed"
    if ranks := [e.correlation for e in pair.diff.groups if e.correlation is not None]:
        text += f"; rank correlation of the scores {_span(ranks)}"
    return hanging(text, width, style=STRONG)


def _same(entries: Sequence[GroupDiff]) -> str:
    """The share of the units removed by either plan that both remove."""
    both = sum(len(entry.both) for entry in entries)
    either = both + sum(len(entry.only_a) + len(entry.only_b) for entry in entries)
    return f"{both / either * 100:.0f} %" if either else "–"


def _span(numbers: Sequence[float]) -> str:
    low, high = f"{min(numbers):.2f}", f"{max(numbers):.2f}"
    return low if low == high else f"{low} to {high}"


def _stages(pair: Pair, width: int, lines: int) -> list[Text]:
    """A row for each set of like groups or for each stage, in at most ``lines``."""
    found = [group for group in pair.a.groups if group.name in pair.found]
    rows = tables.fitting(found, lines, pair_key(pair))
    shown = _table(pair, rows, width, False)[1:]
    if len(shown) <= lines:
        return shown
    shown = _table(pair, tables.stages(found), width, False)[1:]
    if len(shown) <= lines:
        return shown
    return [*shown[: lines - 1], line((f"and {len(shown) - lines + 1:,} more lines", FAINT))]


def _table(pair: Pair, rows: Sequence[Row], width: int, full: bool) -> list[Text]:
    """Rows of like groups: widths in a and in b, units that only one keeps, overlap."""
    ranked = any(pair.found[group.name].correlation is not None for r in rows for group in r.groups)
    ranks = (Column("ranks"),) if ranked else ()
    columns = (Column("a"), Column("b", arrow=True), Column("same"), *ranks)
    most = max((max(_apart(pair, row)) for row in rows), default=0) or 1
    entries = [
        Entry(
            row.inner,
            _cells(pair, row)[: len(columns)],
            partial(_marks, *_apart(pair, row), most),
            row.stage,
            below=_only(pair.found[row.groups[0].name], width) if full else (),
        )
        for row in rows
    ]
    return table("group", columns, entries, width)


def _cells(pair: Pair, row: Row) -> tuple[str, ...]:
    """Widths in a and in b, share of the removed units common to both, rank correlation."""
    entries = [pair.found[group.name] for group in row.groups]
    kept = [[entry.kept[side] for entry in entries] for side in (0, 1)]
    if len({group.size for group in row.groups}) > 1:
        a, b = (f"{sum(side):,}" for side in kept)
    else:
        a, b = (str(min(s)) if min(s) == max(s) else f"{min(s)}–{max(s)}" for s in kept)
    ranks = [entry.correlation for entry in entries if entry.correlation is not None]
    mean = f"{sum(ranks) / len(ranks):.2f}" if ranks else ""
    return a, b, _same(entries), mean


def _apart(pair: Pair, row: Row) -> tuple[int, int]:
    """The numbers of units removed only by a, and only by b, for each group of the row."""
    entries = [pair.found[group.name] for group in row.groups]
    return sum(len(e.only_a) for e in entries), sum(len(e.only_b) for e in entries)


def _marks(only_a: int, only_b: int, most: int, width: int) -> list[Piece]:
    """As ``git diff --stat``: a + for units that b keeps and a removes, a − for the others."""
    half = min(width, _BAR) // 2
    plus = -(-only_a * half // most)
    minus = -(-only_b * half // most)
    return [("+" * plus, KEPT), ("−" * minus, REMOVED)]


def _only(entry: GroupDiff, width: int) -> tuple[Text, ...]:
    """The units that only one of the plans removes."""
    lines: list[Text] = []
    for name, units, style in (
        ("+ b keeps", entry.only_a, KEPT),
        ("− b removes", entry.only_b, REMOVED),
    ):
        if units:
            lines += [
                line("    ").append_text(p)
                for p in fact(name, f"{len(units):,}: {ranges(units, None)}", width - 4, style)
            ]
    return tuple(lines)


def _notes(pair: Pair, width: int, full: bool) -> list[Text]:
    """Groups of one plan only, other descriptions, and attributes."""
    lines: list[Text] = []
    for side, names in zip(
        pair.names, (pair.diff.groups_only_a, pair.diff.groups_only_b), strict=True
    ):
        if names:
            shown = names if full else names[:_NOTES]
            more = f" and {len(names) - len(shown):,} more" if len(shown) < len(names) else ""
            lines += hanging(f"only in {side}: {', '.join(shown)}{more}", width)
    described: dict[tuple[str, ...], list[str]] = {}
    for entry in pair.diff.groups:
        if entry.described:
            described.setdefault(entry.described, []).append(entry.name)
    for fields, groups in described.items():
        listed = f": {', '.join(groups)}" if full else ""
        text = f"{counted(len(groups), 'group')} with other {', '.join(fields)}{listed}"
        lines += hanging(text, width)
    return [*lines, *_attributes(pair, width, full)]


def _attributes(pair: Pair, width: int, full: bool) -> list[Text]:
    """Attributes changed differently, those that follow from widths counted."""
    listed = {_key(c) for plan in (pair.a, pair.b) for c in not_from_widths(plan)}
    others = [e for e in pair.diff.attributes if full or (e.module, e.name) in listed]
    follow = len(pair.diff.attributes) - len(others)
    lines = []
    if follow:
        verb = "follows" if follow == 1 else "follow"
        lines.append(line(f"{counted(follow, 'attribute')} {verb} from these widths"))
    if others:
        lines.append(line("attributes"))
    for entry in others if full else others[:_NOTES]:
        a, b = ("as it is" if s is None else f"{s[0]!r} → {s[1]!r}" for s in (entry.a, entry.b))
        text = f"{attribute_name(entry.module, entry.name)}  {a} in a, {b} in b"
        lines += [line("  ").append_text(part) for part in hanging(text, width - 2)]
    if not full and len(others) > _NOTES:
        lines.append(line(f"  and {len(others) - _NOTES:,} more"))
    return lines


def _key(change: AttributeChange) -> tuple[str, str]:
    return change.module, change.name
