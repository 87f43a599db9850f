"""Stages of a schedule by ratio: the share of what is left that makes up the share of the whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from planc.plan.plan import Plan, PlanGroup
from planc.policy.ratio import checked_ratio

Share = Callable[[float], float]
"""The share removed after a stage, on the way to a final ratio."""
_ROWS = ("heads", "groups", "rows")
_EARLY = 1e-9


def by_ratio(
    ratio: float, share: Share, done: Plan | None, options: Mapping[str, Any]
) -> dict[str, Any]:
    """The options of :func:`planc.compile` for one stage.

    Args:
        ratio: the final ratio; ``kinds`` and ``ratios`` among the options are final ones, too.
        share: the share removed after this stage.
        done: all removals so far, in the original's indices.
        options: for all stages.
    """
    kinds, ratios = (dict(options.get(name) or {}) for name in ("kinds", "ratios"))
    for name, own in (*kinds.items(), *ratios.items()):
        checked_ratio(own, f"ratio of {name!r}")
    if done is None:
        kinds, ratios = ({k: share(r) for k, r in own.items()} for own in (kinds, ratios))
        return {**options, "ratio": share(ratio), "kinds": kinds, "ratios": ratios}
    free = [group for group in done.groups if group.kind not in kinds]
    of_kinds = {
        kind: min(
            (_left([g], share(own)) for g in done.groups if g.kind == kind and _shrinks(g)),
            default=0.0,
        )
        for kind, own in kinds.items()
    }
    present = {group.kind for group in done.groups if _shrinks(group)}
    of_kinds = {kind: own for kind, own in of_kinds.items() if kind in present}
    stage = {**options, "kinds": of_kinds, "ratios": {}}
    named = {pattern: _left(done.groups, share(own)) for pattern, own in ratios.items()}
    if options.get("ranking", "uniform") == "uniform" and not options.get("global_ranking"):
        alone = {g.name: _left([g], share(ratio)) for g in free if _shrinks(g)}
        return {**stage, "ratio": 0.0, "ratios": {**alone, **named}}
    rows = options.get("rows", ())
    competing = [g for g in free if g.kind not in _ROWS or g.kind in rows]
    return {**stage, "ratio": _left(competing, share(ratio)), "ratios": named}


def _shrinks(group: PlanGroup) -> bool:
    """True if the group is one of the pruned model's: a single unit is none."""
    return group.kept // group.rows > 1


def _left(groups: Sequence[PlanGroup], share: float) -> float:
    """The ratio of the units left that removes ``share`` of all."""
    alone = len(groups) == 1
    sizes = sum(g.cells if alone else g.size for g in groups)
    kept = sum(g.kept // g.rows if alone else g.kept for g in groups)
    wanted = math.floor(share * sizes + _EARLY)
    return max(0.0, (wanted - (sizes - kept)) / kept) if kept else 0.0
