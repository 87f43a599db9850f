"""The screen of ``planc show``: origin, sum, a table of like groups with bars, and notes.

By default a plan takes at most :data:`LINES` lines: like layers share a row, attributes that follow
from widths are counted, and constraints true for all widths are left out.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import partial

from rich.console import Group as Stack
from rich.text import Text

from planc.cli.report.screen import (
    CAUTION,
    FAINT,
    KEPT,
    REMOVED,
    STRONG,
    bar,
    counted,
    fact,
    hanging,
    line,
    screen,
)
from planc.cli.report.table import Column, Entry, table
from planc.ir.groups import apart
from planc.plan.plan import AttributeChange, Plan, Provenance
from planc.plan.review import rows as tables
from planc.plan.review.constraints import binding, statements
from planc.plan.review.figures import share
from planc.plan.review.rows import Row, series
from planc.plan.review.summary import (
    attribute_name,
    not_from_widths,
    origin_text,
    output_text,
    totals,
    weights_text,
)
from planc.plan.specification import inputs_text

LINES = 45
_TABLE = 28
_NOTES = 4
FULL = "--full lists every group, attribute and constraint"


def plan_screen(
    plan: Plan, width: int, full: bool = False, hint: str = f"{FULL}; --group NAME shows one"
) -> Stack:
    """Return the lines of ``planc show``, of at most ``width`` characters each.

    Args:
        full: list every group, attribute and constraint under its full name.
        hint: the last line where something is left out.
    """
    rows = tables.single(plan.groups) if full else tables.fitting(plan.groups, _TABLE)
    hidden = [] if full else rows[_TABLE:]
    notes = [*_mixing(plan, width, full), *_outputs(plan, width, full)]
    notes += _attributes(plan, width, full)
    notes += _constraints(plan, rows, width, full)
    shortened = not full and (len(rows) < len(plan.groups) or bool(plan.attributes))
    return screen(
        [
            header(plan, width),
            [*hanging(totals(plan), width, style=STRONG), *(_costs(plan) if full else [])],
            groups_table(rows[: len(rows) - len(hidden)], width) + _beyond(hidden),
            notes,
            hanging(hint, width, style=FAINT) if shortened else [],
        ]
    )


def _beyond(hidden: Sequence[Row]) -> list[Text]:
    """A line for the rows that a screen has no room for."""
    if not hidden:
        return []
    size, kept = sum(row.size for row in hidden), sum(row.kept for row in hidden)
    return [line((f"and {counted(len(hidden), 'row')} more: {size:,} → {kept:,} units", FAINT))]


def header(plan: Plan, width: int) -> list[Text]:
    """The identity and origin of a plan."""
    lines = fact("fingerprint", plan.fingerprint[:16], width)
    lines += fact("target", plan.target, width)
    for entry in plan.provenance:
        lines += origin_lines(entry, width)
    lines += fact("inputs", inputs_text(plan.inputs), width)
    if plan.requires:
        lines += fact("requires", ", ".join(plan.requires), width)
    return lines


def origin_lines(entry: Provenance, width: int) -> list[Text]:
    """Criterion and policy, the scored weights and statistics, and a reviewer's decisions."""
    lines = fact("made by", origin_text(entry), width)
    if text := weights_text(entry):
        lines += fact("weights", text, width, CAUTION if entry.origin == "factory" else "")
    if entry.statistics is not None:
        lines += fact("statistics", entry.statistics.hex()[:16], width)
    if entry.decisions:
        lines += fact("decisions", "; ".join(entry.decisions), width)
    return lines


def _costs(plan: Plan) -> list[Text]:
    """The exact costs."""
    pairs = [
        (name, getattr(plan.cost_before, field), getattr(plan.cost_after, field))
        for field, name in (("macs", "MACs"), ("params", "parameters"), ("bytes", "bytes"))
    ]
    first, second = (max(len(f"{pair[i]:,}") for pair in pairs) for i in (1, 2))
    return [
        line(f"  {name:10}  {a:>{first},} → ", (f"{b:>{second},}", KEPT), f"  {share(a, b):>7}")
        for name, a, b in pairs
    ]


def groups_table(rows: Sequence[Row], width: int) -> list[Text]:
    """The groups with widths and bars, each stage under its name."""
    kinds = len({row.groups[0].kind for row in rows}) > 1
    columns = (
        Column("units"),
        Column("kept", arrow=True, style=KEPT),
        Column("removed", style=REMOVED),
    )
    kind = (Column("kind", left=True),) if kinds else ()
    return table("group", (*kind, *columns), [_entry(row, kinds) for row in rows], width)


def _entry(row: Row, kinds: bool) -> Entry:
    kind = (row.groups[0].kind,) if kinds else ()
    return Entry(
        row.inner + (" ~" if row.mixing else ""),
        (*kind, row.before, row.after, row.removed),
        partial(bar, row.kept, row.size),
        row.stage,
        faint=row.kept == row.size,
    )


def _mixing(plan: Plan, width: int, full: bool) -> list[Text]:
    """The reasons why removing differs from zeroing, with the number of groups of each."""
    reasons = Counter(reason for group in plan.groups for reason in apart(group.mixing))
    if not reasons:
        return []
    found = series([(reason, None, n) for reason, n in reasons.items()])
    listed = [f"{reason} ({counted(sum(counts), 'group')})" for reason, _, counts in found]
    shown = listed if full else listed[:_NOTES]
    more = [f"and {len(listed) - len(shown):,} more"] if len(shown) < len(listed) else []
    text = f"~ removing is not zeroing: {'; '.join([*shown, *more])}"
    return hanging(text, width, style=CAUTION)


def _outputs(plan: Plan, width: int, full: bool) -> list[Text]:
    """The outputs that shrink."""
    texts = [output_text(output) for output in plan.outputs]
    head = f"outputs that shrink ({len(texts):,})"
    return [line((head, CAUTION)), *_list(texts, width, full)] if texts else []


def _attributes(plan: Plan, width: int, full: bool) -> list[Text]:
    """The number of attributes that follow from widths, and the others; all with ``full``."""
    others = plan.attributes if full else not_from_widths(plan)
    follow = len(plan.attributes) - len(others)
    verb = "follows" if follow == 1 else "follow"
    lines = [line(f"{counted(follow, 'attribute')} {verb} from these widths")] if follow else []
    if not others:
        return lines
    lines.append(line(f"attributes ({len(others):,})" if full else "other attributes"))
    return lines + _list(_listed(others, full), width, full)


def _listed(changes: Sequence[AttributeChange], full: bool) -> list[str]:
    """A text for each change; without ``full``, one for equal changes in several modules."""
    found: dict[str, list[str]] = defaultdict(list)
    for entry in changes:
        name = attribute_name(entry.module, entry.name)
        values = f"{entry.before!r} → {entry.after!r}"
        found[f"{name if full else entry.name} {values}"].append(f"{name} {values}")
    return [
        names[0] if len(names) == 1 else f"{text} in {len(names):,} modules"
        for text, names in found.items()
    ]


def _constraints(plan: Plan, rows: Sequence[Row], width: int, full: bool) -> list[Text]:
    """The constraints that can bind, equal ones counted; all with ``full``."""
    chosen = plan.constraints if full else binding(plan)
    if not chosen:
        return []
    if full:
        texts = [f"{c.text}: {c.reason}" for c in chosen]
    else:
        texts = [str(statement) for statement in statements(chosen, rows)]
    lines = [line(f"{counted(len(chosen), 'constraint')} on kept widths")]
    return lines + _list(texts, width, full)


def _list(texts: Sequence[str], width: int, full: bool) -> list[Text]:
    """Indented texts; without ``full``, the first few and the number of the others."""
    shown = texts if full else texts[:_NOTES]
    lines = [line("  ").append_text(part) for text in shown for part in hanging(text, width - 2)]
    if len(shown) < len(texts):
        lines.append(line(f"  and {len(texts) - len(shown):,} more"))
    return lines
