"""Selection: scores and a policy become a plan."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from importlib import metadata
from typing import Literal

import numpy as np

from planc.analysis import Analysis
from planc.analysis.equations import Equations
from planc.analysis.grouping import UnitMask
from planc.analysis.outputs import shrinking
from planc.compile.configuration import Pruned, with_configuration
from planc.compile.outline import Removed, outline
from planc.criteria.random import checked_seed
from planc.criteria.scores import Scores
from planc.errors import PolicyError
from planc.plan import fingerprint
from planc.plan.arguments import a_flag, function_of, instance, optional, options, takes
from planc.plan.plan import Fingerprints, Plan, Provenance
from planc.plan.review.summary import with_latency
from planc.plan.specification import features
from planc.policy.budget import Budget, within
from planc.policy.closure import closed
from planc.policy.decisions import Decisions
from planc.policy.order import lowest
from planc.policy.ratio import Policy

Target = Literal["module", "graph"]


@takes(
    analysis=instance("an analysis", Analysis, advice="give what planc.analyze returns"),
    scores=instance("Scores", Scores, advice="give what planc.score returns"),
    policy=function_of("analysis", "scores"),
    target=options("module", "graph", error=PolicyError),
    keep_scores=a_flag,
    budget=optional(instance("a planc.Budget", Budget, advice="give planc.Budget(macs=0.5)")),
    decisions=optional(
        instance("Decisions", Decisions, advice="give what planc.policy.decided returns")
    ),
    equations=optional(
        instance("Equations", Equations, advice="give what analysis.equations(target) returns")
    ),
)
def select(
    analysis: Analysis,
    scores: Scores,
    policy: Policy,
    target: Target = "module",
    seed: int = 0,
    budget: Budget | None = None,
    decisions: Decisions | None = None,
    *,
    keep_scores: bool = False,
    equations: Equations | None = None,
) -> Plan:
    """Choose the units to remove and write the plan.

    Args:
        analysis: the analysis of a model.
        scores: a score for each unit of each group; low scores are removed first.
        policy: the number of units kept by each group; the model's constraints are enforced
            afterwards, by removing less.
        target: "module" obeys the eager module's own arithmetic, "graph" need not.
        seed: recorded in the plan.
        budget: removes units in the policy's order until the budget is met, and no more.
        decisions: units that a person removes or keeps, recorded in the plan.
        keep_scores: write the scores into the plan, for review.
        equations: constraints that replace the model's own, which are among them.

    Returns:
        A plan for the traced model.

    Raises:
        PolicyError: the request cannot be met; says which part. A score is NaN.
        InfeasibleBudget: no plan of this policy is within the budget; names the closest figure.
    """
    checked_seed(seed)
    equations = equations or analysis.equations(target)
    if decisions is not None:
        policy = decisions.policy(analysis, equations, policy)
    if budget is None:
        counts, made_by = closed(analysis, equations, scores, policy), str(policy)
    else:
        counts = within(analysis, equations, scores, policy, budget)
        made_by = f"{policy} within {budget}"
    ranked, texts = scores, tuple[str, ...]()
    if decisions is not None:
        decisions.check(analysis, equations, counts)
        ranked, texts = decisions.ranked(analysis, scores, counts), decisions.texts
    gone = UnitMask(np.append(lowest(analysis.groups, ranked, counts), False))
    provenance = Provenance(
        scores.criterion,
        made_by,
        seed,
        versions(),
        scores.weights,
        scores.origin,
        scores.statistics,
        texts,
    )
    plan = _written(analysis, gone, target, provenance)
    if budget is not None and budget.table is not None:
        plan = with_latency(plan, budget.table.prediction(analysis), budget.table.machine)
    return with_scores(plan, scores) if keep_scores else plan


def write_plan(
    analysis: Analysis,
    removed: Removed,
    target: Target,
    criterion: str,
    policy: str,
    seed: int = 0,
) -> Plan:
    """Write the plan with these removed units of each group.

    Raises:
        PolicyError: the model cannot run without them; names the constraint.
    """
    gone = outline(analysis, target).gone(removed)
    return _written(analysis, gone, target, Provenance(criterion, policy, seed, versions()))


def with_scores(plan: Plan, scores: Scores) -> Plan:
    """The plan with the scores of its groups, in float32 and within its range; none for a group
    without a score.
    """
    most = np.finfo(np.float32).max
    groups = [
        group
        if np.isnan(units).any()
        else replace(group, scores=np.clip(units, -most, most).astype("<f4").tobytes())
        for group, units in zip(plan.groups, scores.units, strict=True)
    ]
    return plan.replace(groups=tuple(groups))


def _written(analysis: Analysis, gone: UnitMask, target: Target, provenance: Provenance) -> Plan:
    graph = analysis.graph
    left = next((departure for departure in graph.departures if departure.outside), None)
    if target == "graph" and left is not None:
        raise PolicyError(
            f'target "graph": a value {left.reason}, where a graph has no operators; choose target '
            '"module"'
        )
    if target == "graph" and graph.unwritable:
        raise PolicyError(
            f'target "graph": a graph cannot make the results of this model: {graph.unwritable}; '
            'choose target "module", or return tensors in tuples, lists, dicts or dataclasses'
        )
    if target == "graph" and graph.data_dependent:
        raise PolicyError(
            'target "graph": the control flow of this model depends on the values of its inputs, '
            'and one graph cannot hold it; choose target "module"'
        )
    known = outline(analysis, target)
    kept, groups, shapes = known.counts(gone), known.pruned(gone), known.shapes(gone)
    cut = known.cuts(groups, shapes)
    after = fingerprint.tensors_after(known.tensors, cut)
    changes = known.changes(kept, after)
    if target == "module":
        changes = with_configuration(graph, Pruned(changes, after, cut, shapes))
    else:  # only untraced modules are present with their attributes
        leaves = tuple(f"{node.module}." for node in graph.nodes if node.leaf)
        changes = tuple(change for change in changes if f"{change.module}.".startswith(leaves))
    modules, source = known.described(changes)
    changed = fingerprint.modules_after(modules, changes)
    result = Fingerprints(
        fingerprint.attributes_digest(changed),
        fingerprint.pruned_structure(source.structure, tuple(tuple(g.removed) for g in groups)),
        fingerprint.tensors_digest(after),
    )
    return Plan(
        source=source,
        result=result,
        tensors=known.tensors,
        modules=modules,
        groups=groups,
        attributes=changes,
        inputs=graph.input_spec,
        target=target,
        provenance=(provenance,),
        cost_before=known.cost,
        cost_after=known.price(kept),
        shapes=known.shapes_digest(shapes),
        outputs=shrinking(analysis, gone[analysis.grouping.index.of_atom]) if graph.free else (),
        constraints=known.constraints,
        requires=features(graph.input_spec),
    )


@cache
def versions() -> tuple[tuple[str, str], ...]:
    """Versions of planc and torch, for the plan's provenance."""
    return (("planc", _version("planc")), ("torch", _version("torch").split("+")[0]))


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"
