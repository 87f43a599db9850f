"""Pictures of plans on axes of matplotlib, an optional dependency: ``planc.plot``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from planc.errors import PlancError
from planc.ir.units import marked
from planc.plan.arguments import a_plan
from planc.plan.plan import Plan
from planc.plan.review.find import groups_named
from planc.plan.review.rows import collapsed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["scores", "widths"]

_KEPT, _REMOVED = "#2a9d5c", "#d1495b"
_BINS = 40


def widths(plan: Plan, ax: Axes | None = None) -> Axes:
    """Draw the kept and the removed units along the network, like layers as one bar.

    Args:
        plan: the plan.
        ax: axes to draw on, by default new ones.

    Returns:
        The axes.

    Raises:
        PlancError: matplotlib is not installed.

    Example::

        planc.plot.widths(plan).figure.savefig("widths.png")
    """
    rows = collapsed(a_plan("plan", plan).groups)
    axes: Axes = _axes(ax, height=max(2.0, 0.28 * len(rows) + 1))
    at = np.arange(len(rows))
    kept = np.array([row.kept / len(row.groups) for row in rows])
    gone = np.array([(row.size - row.kept) / len(row.groups) for row in rows])
    axes.barh(at, kept, color=_KEPT, label="kept")
    axes.barh(at, gone, left=kept, color=_REMOVED, label="removed")
    axes.set_yticks(at, [row.label for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("units of a group")
    axes.legend()
    return axes


def scores(plan: Plan, group: str, ax: Axes | None = None) -> Axes:
    """Draw the distribution of the scores of a group, removed against kept units.

    Args:
        plan: a plan with scores.
        group: the name of a group, or its label as ``planc show`` prints it.
        ax: axes to draw on, by default new ones.

    Returns:
        The axes.

    Raises:
        PlancError: no or several groups have the name, the plan has no scores, or matplotlib is
            not installed.
    """
    found = groups_named(a_plan("plan", plan), group)
    if len(found) > 1:
        names = ", ".join(entry.name for entry in found[:3])
        raise PlancError(f"{group}: {len(found)} groups, {names} ...: name one of them")
    entry = found[0]
    values = entry.unit_scores
    if values is None:
        raise PlancError(f"{entry.name}: the plan carries no scores; compile it with scores=True")
    axes: Axes = _axes(ax, height=3.0)
    gone = marked(entry.removed, entry.size)
    parts = [values[~gone], values[gone]]
    axes.hist(parts, _BINS, stacked=True, color=[_KEPT, _REMOVED], label=["kept", "removed"])
    axes.set_title(entry.name)
    axes.set_xlabel("score")
    axes.set_ylabel(entry.kind)
    axes.legend()
    return axes


def _axes(ax: Axes | None, height: float) -> Any:
    """The given axes, or those of a new figure."""
    if ax is not None:
        return ax
    try:
        from matplotlib import pyplot
    except ImportError:
        raise PlancError(
            "planc.plot draws with matplotlib, which is not installed: pip install 'planc[plot]'"
        ) from None
    return pyplot.subplots(figsize=(8, height), layout="constrained")[1]
