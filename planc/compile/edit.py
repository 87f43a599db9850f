"""Editing: a reviewer's decisions on a plan become a new plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from planc.analysis import Analysis, analyze
from planc.analysis.outputs import freed
from planc.apply.matching import check_model
from planc.apply.validate import example_call
from planc.compile.outline import outline
from planc.compile.select import Target, select, with_scores
from planc.criteria import NAMES, Criterion, Scores, Statistics, Weights, named, score
from planc.criteria.statistics import needs_of
from planc.errors import PolicyError, StalePlan
from planc.modules.given import module
from planc.plan.arguments import a_mapping, a_plan, optional, some_patterns, takes
from planc.plan.depth import refuse_blocks
from planc.plan.plan import Plan, Provenance
from planc.policy.decisions import Decisions, Exactly, decided, marks
from planc.policy.patterns import kept, matching
from planc.policy.ratio import checked_ratio, share
from planc.trace import trace

Kept = str | Sequence[str] | Mapping[str, Sequence[int] | None]
"""Patterns of groups to keep whole, or the units to keep of each; None for all."""


def _kept(name: str, value: Any) -> Kept:
    """Patterns of groups, or a mapping from names to the units to keep."""
    return a_mapping(name, value) if isinstance(value, Mapping) else some_patterns(name, value)


@takes(
    plan=a_plan, model=module, keep=_kept, remove=optional(a_mapping), ratios=optional(a_mapping)
)
def edit(
    plan: Plan,
    model: nn.Module,
    args: Any = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    keep: Kept = (),
    remove: Mapping[str, Sequence[int]] | None = None,
    ratios: Mapping[str, float] | None = None,
    criterion: str | Criterion | None = None,
    statistics: Statistics | None = None,
    weights: Weights | None = None,
) -> Plan:
    """Make a plan with a reviewer's changes to another plan.

    Groups without a decision keep the units of ``plan``, as far as the model's constraints allow.
    Where a unit without a decision has to go or to come back, scores say which.

    Args:
        plan: the reviewed plan.
        model: the model it was compiled for.
        args, kwargs: example inputs; by default those of the plan's specification.
        keep: a pattern, or several, of groups to keep whole, or for each name the units to keep.
        remove: units to remove, by a layer, tensor, dimension or group and indices there.
        ratios: other ratios for parts of the model, by patterns.
        criterion: of the scores; by default those in the plan, or its criterion, or "l2".
        statistics, weights: as for :func:`planc.compile`.

    Returns:
        The new plan. Its provenance is that of ``plan`` and the decisions.

    Raises:
        StalePlan: the plan was made for another model.
        PolicyError: a name or a unit does not exist, or the model cannot run so; names the reason.
    """
    refuse_blocks(plan, "edit", "compile other blocks by kinds= or remove=")
    check_model(plan, model)
    args, kwargs = example_call(plan, model, args, kwargs)
    analysis = analyze(freed(trace(model, args, kwargs), plan))
    _check_groups(plan, analysis)
    before = [group.removed for group in plan.groups]
    decisions = _decisions(analysis, before, keep, remove or {}, ratios or {})
    scores = _scores(plan, analysis, model if weights is None else weights, criterion, statistics)
    result = _selected(analysis, decisions, ratios or {}, scores, plan.target, plan.provenance[-1])
    result = with_scores(result, scores) if _is_scored(plan) else result
    return result.replace(provenance=(*plan.provenance[:-1], *result.provenance))


def _is_scored(plan: Plan) -> bool:
    return any(group.scores is not None for group in plan.groups)


def as_edited(
    model: nn.Module,
    args: Any,
    removed: Mapping[str, Sequence[int]],
    target: Target,
    made_by: Provenance,
) -> Plan:
    """Make the plan that removes these units of each group, written by a person.

    Rows of a group lose equally many units, and the model's constraints hold, by keeping more.

    Raises:
        PolicyError: the model has no such group or unit.
    """
    analysis = analyze(trace(model, args))
    names = {group.name for group in analysis.groups}
    if unknown := next((name for name in removed if name not in names), None):
        raise PolicyError(f"the model has no group {unknown!r}; edit the text of a plan for it")
    wanted = marks(analysis, removed)
    nothing = marks(analysis, {})
    text = f"removed units as in an edited text ({sum(int(own.sum()) for own in wanted)} units)"
    decisions = Decisions(nothing, nothing, wanted, (text,))
    scores = score(analysis, model, "l2")
    return _selected(analysis, decisions, {}, scores, target, made_by)


def _check_groups(plan: Plan, analysis: Analysis) -> None:
    if outline(analysis, plan.target).source.structure != plan.source.structure:
        raise StalePlan(
            "the model has other groups than the plan: it was traced with other inputs, or by "
            "another planc; compile the plan anew"
        )


def _decisions(
    analysis: Analysis,
    before: Sequence[Sequence[int]],
    keep: Kept,
    remove: Mapping[str, Sequence[int]],
    ratios: Mapping[str, float],
) -> Decisions:
    """The decisions, with the units removed before as the first to go again."""
    if isinstance(keep, Mapping):
        patterns = tuple(name for name, units in keep.items() if units is None)
        units = {name: own for name, own in keep.items() if own is not None}
    else:
        patterns, units = tuple(keep), {}
    found = decided(analysis, remove, units)
    whole = kept(analysis, patterns)
    texts = [f"keep {analysis.groups[g].name}" for g in sorted(whole)]
    texts += [f"ratio {pattern}={ratio:g}" for pattern, ratio in ratios.items()]
    both = [g for g in sorted(whole) if found.remove[g].any()]
    if both:
        raise PolicyError(
            f"group {analysis.groups[both[0]]} is to be kept whole, and to lose units"
        )
    stays = tuple(own | (g in whole) for g, own in enumerate(found.keep))
    marked = marks(analysis, {group.name: tuple(b) for group, b in _named(analysis, before)})
    return Decisions(found.remove, stays, marked, (*found.texts, *texts))


def _named(analysis: Analysis, of_groups: Sequence[Any]) -> Iterable[tuple[Any, Any]]:
    return zip(analysis.groups, of_groups, strict=True)


def _selected(
    analysis: Analysis,
    decisions: Decisions,
    ratios: Mapping[str, float],
    scores: Scores,
    target: str,
    made_by: Provenance,
) -> Plan:
    """The plan by the decisions, with the provenance of the plan they were made on."""
    counts = _counts(analysis, decisions)
    for pattern, ratio in ratios.items():
        checked_ratio(ratio, f"ratio of {pattern!r}")
        for g in matching(analysis, pattern):
            cells = analysis.groups[g].cells
            counts[g] = cells - share(ratio, cells)
    policy = Exactly(tuple(counts), made_by.policy)
    plan = select(analysis, scores, policy, target, made_by.seed, None, decisions)  # type: ignore[arg-type]
    texts = (*made_by.decisions, *decisions.texts)
    return plan.replace(provenance=(replace(made_by, decisions=texts),))


def _counts(analysis: Analysis, decisions: Decisions) -> list[int]:
    """The units that each row keeps: those removed before or now go, those to keep come back."""
    counts = []
    marked = zip(decisions.likely, decisions.remove, decisions.keep, strict=True)
    for group, (likely, remove, stays) in zip(analysis.groups, marked, strict=True):
        gone = ((likely | remove) & ~stays).reshape(group.rows, -1).sum(axis=1)
        counts.append(max(1, group.cells - int(gone.max())))
    return counts


def _scores(
    plan: Plan,
    analysis: Analysis,
    weights: nn.Module | Weights,
    criterion: str | Criterion | None,
    statistics: Statistics | None,
) -> Scores:
    """The scores of a criterion, or those of the plan, or of its criterion."""
    if criterion is None:
        if _is_scored(plan):
            own = [(group, group.unit_scores) for group in plan.groups]
            units = tuple(np.full(g.size, np.nan) if x is None else np.float64(x) for g, x in own)
            return Scores(units, plan.provenance[-1].criterion)
        name = plan.provenance[-1].criterion
        fits = name in NAMES and (statistics is not None or not needs_of(named(name)))
        criterion = named(name, plan.provenance[-1].seed) if fits else "l2"
    return score(analysis, weights, criterion, statistics)
