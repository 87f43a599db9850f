"""The head of a plan's page: its savings as figures and bars, in HTML.

Notebooks show it for a plan, and ``planc report`` begins with it. Texts of plans are escaped; no
attribute ``style`` is used, so a strict content policy holds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING

from planc.errors.text import escaped
from planc.plan.review.figures import duration, figure, share

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


Shown = Callable[..., str]
"""The text of a figure, in the form of another one."""


def counted(number: int, like: int | None = None) -> str:
    """Format a count: all digits below a million."""
    return f"{number:,}" if number < 10**6 else figure(number, like)


def _size(number: int, like: int | None = None) -> str:
    return f"{figure(number, like)}B" if number >= 1000 else f"{number} B"


def _time(nanoseconds: int, like: int | None = None) -> str:
    return duration(nanoseconds)


def change(before: int, after: int) -> str:
    """Format a change in percent, such as ``−73 %``; a dash where nothing changes."""
    return "–" if before == after or not before else share(before, after)


def units_word(plans: Sequence[Plan]) -> str:
    """The word for units: the kind of all groups, if they are of one kind."""
    kinds = {group.kind for plan in plans for group in plan.groups}
    return escaped(kinds.pop()) if len(kinds) == 1 else "units"


def lead(plan: Plan) -> str:
    """The removals in one line: ``37 groups, 26,560 channels: 13,280 removed``."""
    from planc.plan.review.summary import removals

    return removals(plan)


def head_html(*plans: Plan) -> str:
    """Return the savings of one plan, or of several side by side, as an HTML element."""
    costs = [(plan.cost_before, plan.cost_after) for plan in plans]
    blocks: list[tuple[str, list[tuple[int, int]], Shown]] = [
        (units_word(plans), [_units(plan) for plan in plans], counted),
        ("parameters", [(a.params, b.params) for a, b in costs], figure),
        ("MACs of the example run", [(a.macs, b.macs) for a, b in costs], figure),
        ("size of the parameters", [(a.bytes, b.bytes) for a, b in costs], _size),
    ]
    times = [plan.latency for plan in plans if plan.latency is not None]
    if len(times) == len(plans):
        blocks.append(("latency of a run", [(t.before, t.after) for t in times], _time))
    return f'<div class="planc-head">{"".join(_block(*block) for block in blocks)}</div>'


def notebook_html(plan: Plan) -> str:
    """Return the head with its own style and a line that sums up, for notebooks."""
    line = f"<p><b>Pruning plan</b> {escape(lead(plan))}</p>"
    return f"<style>{STYLE}</style>{line}{head_html(plan)}"


def _units(plan: Plan) -> tuple[int, int]:
    return sum(group.size for group in plan.groups), sum(group.kept for group in plan.groups)


def _block(name: str, sides: Sequence[tuple[int, int]], shown: Shown) -> str:
    """A figure before and after: one large line, or a line for each plan."""
    title = f'<p class="name">{escape(name[:1].upper() + name[1:])}</p>'
    if len(sides) == 1:
        before, after = sides[0]
        exact = f' title="{before:,} to {after:,}"'
        pair = f"<span>{shown(before)} →</span> <b>{shown(after, before)}</b>"
        line = f'<p class="figure"{exact}>{pair}</p>'
        return f"<div>{title}{line}{_bar(0, before, after)}<p>{change(before, after)}</p></div>"
    lines = [
        f'<p class="side" title="{before:,} to {after:,}">{LETTERS[i]} '
        f"<b>{shown(after, before)}</b><span>{change(before, after)}</span></p>"
        f"{_bar(i, before, after)}"
        for i, (before, after) in enumerate(sides)
    ]
    befores = dict.fromkeys(shown(before) for before, _ in sides)
    return f"<div>{title}<p>{' / '.join(befores)} →</p>{''.join(lines)}</div>"


def _bar(index: int, before: int, after: int) -> str:
    kept = 100 * after / before if before else 100
    return (
        '<svg height="6" aria-hidden="true"><rect class="track" width="100%" height="6"/>'
        f'<rect class="plan{index}" width="{kept:.2f}%" height="6"/></svg>'
    )
