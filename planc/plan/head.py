"""The head of a plan's page: its savings as figures and bars, in HTML.

Notebooks show it for a plan, and ``planc report`` begins with it. Texts of plans are escaped; no
attribute ``style`` is used, so a strict content policy holds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING

from planc.errors.text import escaped

if TYPE_CHECKING:
    from planc.plan.plan import Plan

LETTERS = "ABC"
"""Letters of plans side by side."""

STYLE = """\
.planc-head { display: grid; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr));
  gap: 1.2rem 1.5rem; margin: 1rem 0; max-width: 74rem; font-variant-numeric: tabular-nums; }
.planc-head p { margin: 0; }
.planc-head .name { font-size: .82em; opacity: .75; }
.planc-head .figure { font-size: 1.3em; line-height: 1.4; white-space: nowrap; }
.planc-head .figure b { font-weight: 600; }
.planc-head .figure span { opacity: .6; }
.planc-head .side { display: flex; gap: .4em; align-items: baseline; }
.planc-head .side span { margin-left: auto; }
.planc-head svg { display: block; width: 100%; height: 6px; margin: .25em 0 .35em; }
.planc-head .track { fill: #8080803d; }
.planc-head .plan0 { fill: #2f6fb7; } .planc-head .plan1 { fill: #8a57b5; }
.planc-head .plan2 { fill: #16806a; }
"""

_PREFIXES = ("", "k", "M", "G", "T", "P")


def short(figure: int) -> str:
    """Format a figure with three digits and a prefix, such as 4.09 G."""
    power = next((i for i in range(5) if abs(figure) < 999.5 * 1000**i), 5)
    return f"{figure / 1000**power:.3g} {_PREFIXES[power]}".rstrip()


def counted(figure: int) -> str:
    """Format a count: all digits below a million."""
    return f"{figure:,}" if figure < 10**6 else short(figure)


def _size(figure: int) -> str:
    return f"{short(figure)}B" if figure >= 1000 else f"{figure} B"


def change(before: int, after: int) -> str:
    """Format a change in percent, such as ``−73.0 %``; a dash where nothing changes."""
    if before == after or not before:
        return "–"
    share = 100 * (after - before) / before
    return f"{'−' if share < 0 else '+'}{abs(share):.1f} %"


def units_word(plans: Sequence[Plan]) -> str:
    """The word for units: the kind of all groups, if they are of one kind."""
    kinds = {group.kind for plan in plans for group in plan.groups}
    return escaped(kinds.pop()) if len(kinds) == 1 else "units"


def lead(plan: Plan) -> str:
    """The removals in one line: ``37 groups, 26,560 channels: 13,280 removed``."""
    size = sum(group.size for group in plan.groups)
    removed = sum(len(group.removed) for group in plan.groups)
    groups = f"{len(plan.groups):,} group{'s' * (len(plan.groups) != 1)}"
    return f"{groups}, {size:,} {units_word([plan])}: {removed:,} removed"


def head_html(*plans: Plan) -> str:
    """Return the savings of one plan, or of several side by side, as an HTML element."""
    costs = [(plan.cost_before, plan.cost_after) for plan in plans]
    blocks: list[tuple[str, list[tuple[int, int]], Callable[[int], str]]] = [
        (units_word(plans), [_units(plan) for plan in plans], counted),
        ("parameters", [(a.params, b.params) for a, b in costs], short),
        ("MACs of the example run", [(a.macs, b.macs) for a, b in costs], short),
        ("size of the parameters", [(a.bytes, b.bytes) for a, b in costs], _size),
    ]
    return f'<div class="planc-head">{"".join(_block(*block) for block in blocks)}</div>'


def notebook_html(plan: Plan) -> str:
    """Return the head with its own style and a line that sums up, for notebooks."""
    line = f"<p><b>Pruning plan</b> {escape(lead(plan))}</p>"
    return f"<style>{STYLE}</style>{line}{head_html(plan)}"


def _units(plan: Plan) -> tuple[int, int]:
    return sum(group.size for group in plan.groups), sum(group.kept for group in plan.groups)


def _block(name: str, sides: Sequence[tuple[int, int]], shown: Callable[[int], str]) -> str:
    """A figure before and after: one large line, or a line for each plan."""
    title = f'<p class="name">{escape(name[:1].upper() + name[1:])}</p>'
    if len(sides) == 1:
        before, after = sides[0]
        exact = f' title="{before:,} to {after:,}"'
        line = f'<p class="figure"{exact}><span>{shown(before)} →</span> <b>{shown(after)}</b></p>'
        return f"<div>{title}{line}{_bar(0, before, after)}<p>{change(before, after)}</p></div>"
    lines = [
        f'<p class="side" title="{before:,} to {after:,}">{LETTERS[i]} <b>{shown(after)}</b>'
        f"<span>{change(before, after)}</span></p>{_bar(i, before, after)}"
        for i, (before, after) in enumerate(sides)
    ]
    befores = dict.fromkeys(shown(before) for before, _ in sides)
    return f"<div>{title}<p>{' / '.join(befores)} →</p>{''.join(lines)}</div>"


def _bar(index: int, before: int, after: int) -> str:
    share = 100 * after / before if before else 100
    return (
        '<svg height="6" aria-hidden="true"><rect class="track" width="100%" height="6"/>'
        f'<rect class="plan{index}" width="{share:.2f}%" height="6"/></svg>'
    )
