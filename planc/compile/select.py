"""Selection: scores and a policy become a plan."""

from __future__ import annotations

from functools import cache
from importlib import metadata
from typing import Literal

import numpy as np

from planc.analysis import Analysis
from planc.compile.configuration import with_configuration
from planc.compile.outline import Gone, Outline, Removed, outline
from planc.criteria.random import checked_seed
from planc.criteria.scores import Scores
from planc.errors import PolicyError
from planc.plan import fingerprint
from planc.plan.arguments import function_of, instance, optional, options, takes
from planc.plan.plan import AttributeChange, Plan, PlanGroup, Provenance, cuts
from planc.plan.specification import features
from planc.policy.budget import Budget, within
from planc.policy.closure import closed
from planc.policy.lowest import lowest
from planc.policy.ratio import Policy

Target = Literal["module", "graph"]


@takes(
    analysis=instance("an analysis", Analysis, advice="give what planc.analyze returns"),
    scores=instance("Scores", Scores, advice="give what planc.score returns"),
    policy=function_of("analysis", "scores"),
    target=options("module", "graph", error=PolicyError),
    budget=optional(instance("a planc.Budget", Budget, advice="give planc.Budget(macs=0.5)")),
)
def select(
    analysis: Analysis,
    scores: Scores,
    policy: Policy,
    target: Target = "module",
    seed: int = 0,
    budget: Budget | None = None,
) -> Plan:
    """Chooses the units to remove and writes them down.

    Args:
        policy: how many units each group keeps; the model's constraints are obeyed afterwards,
            by removing less.
        budget: goes as far in the policy's order of units as the budget takes, and no further.
        target: "module" obeys what the eager module computes itself, "graph" does not have to.
        seed: recorded in the plan.

    Raises:
        PolicyError: the request cannot be met; says which part. A score is NaN.
        InfeasibleBudget: no plan of this policy is within the budget; names the closest figure.
    """
    checked_seed(seed)
    equations = analysis.equations(target)
    if budget is None:
        counts, made_by = closed(analysis, equations, scores, policy), str(policy)
    else:
        counts = within(analysis, equations, scores, policy, budget)
        made_by = f"{policy} within {budget}"
    gone = np.append(lowest(analysis.groups, scores, counts), False)
    return _written(analysis, gone, target, scores.criterion, made_by, seed)


def write_plan(
    analysis: Analysis,
    removed: Removed,
    target: Target,
    criterion: str,
    policy: str,
    seed: int = 0,
) -> Plan:
    """The plan that removes these units of each group.

    Raises:
        PolicyError: the model cannot run without them; names the constraint.
    """
    gone = outline(analysis, target).gone(removed)
    return _written(analysis, gone, target, criterion, policy, seed)


def _written(
    analysis: Analysis, gone: Gone, target: Target, criterion: str, policy: str, seed: int
) -> Plan:
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
    kept, removed, sizes = known.counts(gone), known.removed(gone), known.sizes(gone)
    groups = tuple(
        PlanGroup(x.name, x.kind, x.size, x.rows, x.members, x.mixing, units)
        for x, units in zip(known.groups, removed, strict=True)
    )
    changes = known.changes(kept, sizes)
    if target == "module":
        changes = _described(analysis, known, groups, changes)
    else:  # only modules that are not traced into are there with their attributes
        leaves = tuple(f"{node.module}." for node in graph.nodes if node.leaf)
        changes = tuple(change for change in changes if f"{change.module}.".startswith(leaves))
    result, shapes = known.result(removed, sizes, changes)
    modules, source = known.described(changes)
    return Plan(
        source=source,
        result=result,
        tensors=known.tensors,
        modules=modules,
        groups=groups,
        attributes=changes,
        inputs=graph.input_spec,
        target=target,
        provenance=(Provenance(criterion, policy, seed, versions()),),
        cost_before=known.cost,
        cost_after=known.price(kept),
        shapes=shapes,
        constraints=known.constraints,
        requires=features(graph.input_spec),
    )


def _described(
    analysis: Analysis,
    known: Outline,
    groups: tuple[PlanGroup, ...],
    changes: tuple[AttributeChange, ...],
) -> tuple[AttributeChange, ...]:
    """The changes with those of the configuration, where the class makes models of one."""
    if analysis.graph.construction is None:
        return changes
    cut = cuts(known.tensors, groups)
    after = fingerprint.tensors_after(known.tensors, cut)
    shapes = analysis.shapes(analysis.gone([group.removed for group in groups]))
    return with_configuration(analysis.graph, changes, after, cut, shapes)


@cache
def versions() -> tuple[tuple[str, str], ...]:
    """Of what a plan is made with."""
    return (("planc", _version("planc")), ("torch", _version("torch").split("+")[0]))


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"
