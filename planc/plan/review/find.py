"""Groups by what a reader types: a name, a short label, a row's label, or a pattern."""

from __future__ import annotations

from difflib import get_close_matches
from fnmatch import fnmatchcase

from planc.errors import PlancError
from planc.plan.plan import Plan, PlanGroup
from planc.plan.review.rows import alike, collapsed, labels, similar


def groups_named(plan: Plan, text: str) -> tuple[PlanGroup, ...]:
    """The groups of a name, of a label as ``planc show`` prints it, or matching a pattern.

    Raises:
        PlancError: there is none; close names are listed.
    """
    short = labels(plan.groups)
    rows = (*collapsed(plan.groups, alike), *collapsed(plan.groups, similar))
    found = (
        [group for group in plan.groups if text in (group.name, short[group.name])]
        or next((list(row.groups) for row in rows if text in (row.label, row.inner)), [])
        or [group for group in plan.groups if _matches(text, group.name, short[group.name])]
        or [group for group in plan.groups if any(m.tensor == text for m in group.members)]
    )
    if found:
        return tuple(found)
    known = [*short.values(), *(group.name for group in plan.groups)]
    close = get_close_matches(text, known, 3, 0.5)
    advice = f"did you mean {', '.join(close)}" if close else "planc show --full lists all"
    raise PlancError(f"{text}: the plan has no such group among its {len(plan.groups)}; {advice}")


def _matches(pattern: str, *names: str) -> bool:
    """True if a name matches the pattern, or holds it as whole components."""
    return any(fnmatchcase(name, pattern) or f".{pattern}." in f".{name}." for name in names)
