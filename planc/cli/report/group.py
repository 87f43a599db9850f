"""The screen of ``planc show --group``: one group's members, removed units and scores."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import ceil

import numpy as np
from numpy.typing import NDArray
from rich.text import Text

from planc.cli.report.plan import groups_table
from planc.cli.report.screen import (
    CAUTION,
    KEPT,
    REMOVED,
    STRONG,
    counted,
    fact,
    fold,
    hanging,
    line,
    ranges,
)
from planc.ir.groups import Member, Run
from planc.ir.units import marked
from planc.plan.plan import Plan, PlanGroup
from planc.plan.review.constraints import binding, concerning, statements
from planc.plan.review.rows import collapsed, series, single

_ROWS = 8
_UNITS = 12
_BINS = 8


def group_lines(plan: Plan, group: PlanGroup, width: int, full: bool = False) -> list[list[Text]]:
    """Return the parts of a group's screen.

    Args:
        full: list all units and all rows of heads.
    """
    notes = hanging(f"~ removing is not zeroing: {group.mixing}", width, style=CAUTION)
    return [
        [*groups_table(single([group]), width), *(notes if group.mixing else [])],
        _members(plan, group, width, full),
        _units(group, width, full),
        _scores(group, width),
        _constraints(plan, group, width, full),
    ]


def _constraints(plan: Plan, group: PlanGroup, width: int, full: bool) -> list[Text]:
    """The conditions on widths that name the group; without ``full``, equal ones as one."""
    found = concerning(plan.constraints if full else binding(plan), group)
    lines = [line((counted(len(found), "constraint"), STRONG))] if found else []
    texts = [f"{constraint.text}: {constraint.reason}" for constraint in found]
    if not full:
        texts = [str(statement) for statement in statements(found, collapsed(plan.groups))]
    for text in texts:
        lines += [line("  ").append_text(part) for part in hanging(text, width - 2)]
    return lines


def _members(plan: Plan, group: PlanGroup, width: int, full: bool) -> list[Text]:
    """The tensors that lose indices, under the sizes of the dimension and the indices of unit u."""
    shapes = {tensor.name: tensor.shape for tensor in plan.tensors}
    cells = [
        (str(member), f"{_sizes(plan, member, shapes)}, {_indices(member.runs, full)}", member)
        for member in group.members
    ]
    if not full:  # alike members of repeated layers on one line
        cells = [(name, kind, found[0]) for name, kind, found in series(cells)]
    kinds: dict[str, list[str]] = {}
    for name, kind, _ in cells:
        kinds.setdefault(kind, []).append(name)
    lines = [line((counted(len(group.members), "member"), STRONG))]
    for kind, names in kinds.items():
        lines += [line("  ").append_text(part) for part in hanging(f"{kind}:", width - 2)]
        lines += [line("    ", part) for name in names for part in fold(name, width - 4)]
    return lines


def _sizes(plan: Plan, member: Member, shapes: dict[str, tuple[int, ...]]) -> str:
    before = shapes[member.tensor]
    after = plan.cuts[member.tensor].shape if member.tensor in plan.cuts else before
    return f"{before[member.dim]} → {after[member.dim]}"


def _indices(runs: Sequence[Run], full: bool) -> str:
    """The indices of unit u: ``u``, ``64 + u``, ``49u and the 48 after it``."""
    if len(runs) > 2 and not full:
        return f"indices in {len(runs)} runs"
    return "indices " + ", ".join(map(_formula, runs))


def _formula(run: Run) -> str:
    start = run.start - run.step * run.unit
    if run.count == 1:
        first = str(run.start)
    else:
        scaled = "u" if run.step == 1 else f"{run.step}u"
        offset = f" {'+' if start > 0 else '−'} {abs(start)}" if start else ""
        first = f"{scaled}{offset}"
    text = first if run.span == 1 else f"{first} and the {run.span - 1} after it"
    return text if run.repeats == 1 else f"{text}, {run.repeats} times every {run.stride}"


def _units(group: PlanGroup, width: int, full: bool) -> list[Text]:
    """The removed and the kept units, row by row where there are several."""
    gone = marked(group.removed, group.size).reshape(group.rows, group.cells)
    count = f"{len(group.removed):,} of {group.size:,} {group.kind}"
    if group.rows == 1:
        return [
            *_listing("removed", gone[0], width, REMOVED, full),
            *_listing("kept", ~gone[0], width, KEPT, full),
        ]
    lines = [line((f"removed: {count}, {len(group.removed) // group.rows} of each row", STRONG))]
    shown = gone if full else gone[:_ROWS]
    for i, row in enumerate(shown):
        lines += _listing(f"row {i}", row, width, REMOVED, full)
    if len(shown) < len(gone):
        lines.append(line(f"  and {counted(len(gone) - len(shown), 'row')} more"))
    return lines


def _scores(group: PlanGroup, width: int) -> list[Text]:
    """The scores of removed and of kept units: median, extremes and a histogram."""
    scores = group.unit_scores
    if scores is None:
        return []
    gone = marked(group.removed, group.size)
    lines = [line(("scores", STRONG))]
    for name, marks, style in (("removed", gone, REMOVED), ("kept", ~gone, KEPT)):
        if marks.any():
            low, middle, high = np.quantile(scores[marks], [0, 0.5, 1])
            text = f"  {name:9}{low:.3g} to {high:.3g}, median {middle:.3g}"
            lines.append(line((text, style)))
    edges = np.histogram_bin_edges(scores, _BINS)
    removed_in, kept_in = (np.histogram(scores[marks], edges)[0] for marks in (gone, ~gone))
    heads = [f"{a:.3g} to {b:.3g}" for a, b in pairwise(edges)]
    longest = max(map(len, heads))
    per = max(1.0, int((removed_in + kept_in).max()) / max(width - longest - 4, 8))
    for head, removed, kept in zip(heads, removed_in, kept_in, strict=True):
        bars = [("░" * ceil(removed / per), REMOVED), ("█" * ceil(kept / per), KEPT)]
        lines.append(line(f"  {head.rjust(longest)}  ", *bars))
    return lines


def _listing(name: str, marks: NDArray[np.bool_], width: int, style: str, full: bool) -> list[Text]:
    units = np.flatnonzero(marks).tolist()
    text = f"{len(units):,}: {ranges(units, None if full else _UNITS)}" if units else "none"
    return fact(name, text, width, style, 9)
