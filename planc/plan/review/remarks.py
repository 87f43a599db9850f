"""Remarks on a fresh plan: budgets that ask for nothing, and layers with a single unit left."""

from __future__ import annotations

from collections.abc import Mapping

from planc.plan.plan import Plan, PlanGroup
from planc.plan.review.figures import figure
from planc.plan.review.rows import labels

COSTS = {"macs": "MACs", "params": "parameters", "bytes": "bytes"}
"""The measures of a cost, and their names for people."""


def remarks(plan: Plan, budgets: Mapping[str, float | None]) -> list[str]:
    """Sentences on what is odd about a plan, none for an ordinary one.

    Args:
        budgets: limits by measure: figures, shares up to 1 as a float, or None.
    """
    found = [_above(plan, name, limit) for name, limit in budgets.items() if name in COSTS]
    return [text for text in (*found, _single(plan)) if text]


def _above(plan: Plan, name: str, limit: float | None) -> str:
    """A budget that the original keeps."""
    before = getattr(plan.cost_before, name)
    whole = limit == 1 if isinstance(limit, float) else limit is not None and limit >= before
    if not whole or limit is None:
        return ""
    asked = "100%" if isinstance(limit, float) else figure(int(limit)).replace(" ", "")
    return (
        f"--{name} {asked} asks for nothing: the model has {figure(before)} {COSTS[name]}; "
        "50% asks for half"
    )


def _single(plan: Plan) -> str:
    """Groups left with a single unit."""
    single = [group for group in plan.groups if _left_with_one(group)]
    if not single:
        return ""
    first = labels(plan.groups)[single[0].name]
    groups = "group keeps" if len(single) == 1 else "groups keep"
    return (
        f"{len(single):,} of {len(plan.groups):,} {groups} a single unit, such as {first}: "
        "--floor N keeps N, --cap 0.9 removes at most nine tenths"
    )


def _left_with_one(group: PlanGroup) -> bool:
    return bool(group.removed) and group.kept == group.rows and group.cells > 2
