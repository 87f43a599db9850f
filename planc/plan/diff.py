"""Differences of two plans: removals and descriptions found in only one of them.

Groups are matched by name. :mod:`planc.fingerprint` decides if a plan fits a model.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, overload

from planc.errors import PlancError
from planc.plan.arguments import a_plan, takes
from planc.plan.fingerprint import canonical, first_difference, shared
from planc.plan.maskdiff import MaskPlanDiff, diff_masks, plain
from planc.plan.masks import MaskPlan
from planc.plan.plan import Cost, Latency, Plan, PlanGroup, Provenance
from planc.plan.review.scores import rank_correlation

_COSTS = ("cost_before", "cost_after", "latency")
_SHOWN = {"source", "groups", "attributes", "target", "provenance", *_COSTS}


@dataclass(frozen=True, slots=True)
class GroupDiff:
    """A group with different removals or descriptions in two plans.

    ``kept`` are the numbers of kept units, ``correlation`` is that of the ranks of both scores
    (Spearman), None without scores. ``described`` names the differing fields beside the removed
    units: kind, size, rows, members, mixing, scores.
    """

    name: str
    kind: str
    size: int
    only_a: tuple[int, ...]
    only_b: tuple[int, ...]
    both: tuple[int, ...]
    described: tuple[str, ...] = ()
    kept: tuple[int, int] = (0, 0)
    correlation: float | None = None

    @property
    def overlap(self) -> float:
        """The share of the units removed by either plan that both remove; 1 without any."""
        either = len(self.both) + len(self.only_a) + len(self.only_b)
        return len(self.both) / either if either else 1.0


@dataclass(frozen=True, slots=True)
class AttributeDiff:
    """An attribute changed differently by two plans, as (before, after); None for no change."""

    module: str
    name: str
    a: tuple[Any, Any] | None  # before, after
    b: tuple[Any, Any] | None


@dataclass(frozen=True, slots=True)
class PlanDiff:
    """The differences of plan a and plan b; false if they are equal.

    ``source`` is the first difference between the plans' source structures, None if they are the
    same. ``groups`` are the differing groups present in both plans. ``others`` names further
    differing fields.
    """

    source: str | None
    groups: tuple[GroupDiff, ...]
    groups_only_a: tuple[str, ...]
    groups_only_b: tuple[str, ...]
    attributes: tuple[AttributeDiff, ...]
    target: tuple[str, str] | None
    provenance: tuple[tuple[Provenance, ...], tuple[Provenance, ...]] | None
    cost_before: tuple[Cost, Cost]
    cost_after: tuple[Cost, Cost]
    latency: tuple[Latency | None, Latency | None]
    others: tuple[str, ...]

    @property
    def same_source(self) -> bool:
        """True if both plans were made for the same structure."""
        return self.source is None

    def __bool__(self) -> bool:
        costs_differ = any(a != b for a, b in (getattr(self, name) for name in _COSTS))
        others = (f.name for f in fields(self) if f.name not in _COSTS)
        return costs_differ or any(getattr(self, name) for name in others)

    def to_json(self) -> dict[str, Any]:
        """The differences as plain data: dictionaries, lists, numbers, strings and None."""
        found = plain(self)
        cost = {side: found.pop(f"cost_{side}") for side in ("before", "after")}
        others = found.pop("others")
        for entry, group in zip(found["groups"], self.groups, strict=True):
            entry["overlap"] = group.overlap
        return {
            "equal": not self,
            "same_source": self.same_source,
            **found,
            "cost": cost,
            "others": others,
        }


def _either(name: str, value: Any) -> Plan | MaskPlan:
    return value if isinstance(value, MaskPlan) else a_plan(name, value)


@overload
def diff(plan_a: Plan, plan_b: Plan) -> PlanDiff: ...


@overload
def diff(plan_a: MaskPlan, plan_b: MaskPlan) -> MaskPlanDiff: ...


@overload
def diff(plan_a: Plan | MaskPlan, plan_b: Plan | MaskPlan) -> PlanDiff | MaskPlanDiff: ...


@takes(plan_a=_either, plan_b=_either)
def diff(plan_a: Plan | MaskPlan, plan_b: Plan | MaskPlan) -> PlanDiff | MaskPlanDiff:
    """The differences of two plans, or of two mask plans.

    Args:
        plan_a: a plan or a mask plan.
        plan_b: another one of the same kind.

    Returns:
        A :class:`PlanDiff` or :class:`planc.plan.maskdiff.MaskPlanDiff`; false for equal plans.

    Raises:
        PlancError: one is a plan and the other a mask plan.
    """
    if isinstance(plan_a, MaskPlan) and isinstance(plan_b, MaskPlan):
        return diff_masks(plan_a, plan_b)
    if isinstance(plan_a, MaskPlan) or isinstance(plan_b, MaskPlan):
        raise PlancError(
            "a plan removes units and a mask plan single elements: compare two of one kind"
        )
    groups_a = {group.name: group for group in plan_a.groups}
    groups_b = {group.name: group for group in plan_b.groups}
    paired = ((group, groups_b[name]) for name, group in groups_a.items() if name in groups_b)
    return PlanDiff(
        source=_source(plan_a, plan_b),
        groups=tuple(_group(a, b) for a, b in paired if a != b),
        groups_only_a=tuple(name for name in groups_a if name not in groups_b),
        groups_only_b=tuple(name for name in groups_b if name not in groups_a),
        attributes=_attributes(plan_a, plan_b),
        target=_pair(plan_a.target, plan_b.target),
        provenance=_pair(plan_a.provenance, plan_b.provenance),
        cost_before=(plan_a.cost_before, plan_b.cost_before),
        cost_after=(plan_a.cost_after, plan_b.cost_after),
        latency=(plan_a.latency, plan_b.latency),
        others=_others(plan_a, plan_b),
    )


def _source(a: Plan, b: Plan) -> str | None:
    if a.source == b.source:
        return None
    difference = first_difference(a.tensors, shared(a.modules, b.modules), b.tensors, b.modules)
    groups = "the groups or their members differ"
    return difference or (groups if a.source.structure != b.source.structure else None)


def _group(a: PlanGroup, b: PlanGroup) -> GroupDiff:
    removed_a, removed_b = set(a.removed), set(b.removed)
    return GroupDiff(
        name=a.name,
        kind=a.kind,
        size=a.size,
        only_a=tuple(sorted(removed_a - removed_b)),
        only_b=tuple(sorted(removed_b - removed_a)),
        both=tuple(sorted(removed_a & removed_b)),
        described=tuple(
            name
            for name in ("kind", "size", "rows", "members", "mixing", "scores")
            if getattr(a, name) != getattr(b, name)
        ),
        kept=(a.kept, b.kept),
        correlation=_correlation(a, b),
    )


def _correlation(a: PlanGroup, b: PlanGroup) -> float | None:
    scores_a, scores_b = a.unit_scores, b.unit_scores
    if scores_a is None or scores_b is None or len(scores_a) != len(scores_b):
        return None
    return rank_correlation(scores_a, scores_b)


def _attributes(a: Plan, b: Plan) -> tuple[AttributeDiff, ...]:
    changes_a = {(c.module, c.name): (c.before, c.after) for c in a.attributes}
    changes_b = {(c.module, c.name): (c.before, c.after) for c in b.attributes}
    return tuple(
        AttributeDiff(*key, changes_a.get(key), changes_b.get(key))
        for key in dict.fromkeys([*changes_a, *changes_b])
        if canonical(changes_a.get(key)) != canonical(changes_b.get(key))
    )


def _others(a: Plan, b: Plan) -> tuple[str, ...]:
    """Names of the differing fields not shown otherwise, and of those in a different order."""
    names = [field.name for field in fields(Plan) if field.name not in _SHOWN]
    differing = [name for name in names if getattr(a, name) != getattr(b, name)]
    if [g.name for g in a.groups] != [g.name for g in b.groups] and (
        {g.name for g in a.groups} == {g.name for g in b.groups}
    ):
        differing.append("order of groups")
    if a.attributes != b.attributes and set(a.attributes) == set(b.attributes):
        differing.append("order of attributes")
    return tuple(differing)


def _pair(a: Any, b: Any) -> Any:
    return (a, b) if a != b else None
