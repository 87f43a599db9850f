"""Matching: compare a live model with the source or the result of a plan.

Plans of older versions list every attribute of every module. If such a plan differs, a run of the
model finds the relevant attributes.
"""

from __future__ import annotations

from torch import nn

from planc.analysis import analyze
from planc.analysis.outputs import freed
from planc.analysis.structure import module_table
from planc.apply.validate import example_call, shapes_digest
from planc.errors import PlancError, StalePlan
from planc.ir.graph import Graph
from planc.modules.tables import modules_of, tensors_of
from planc.plan.fingerprint import (
    check_source,
    first_difference,
    lists_classes,
    result_modules,
    result_tensors,
    shared,
    structure_digest,
)
from planc.plan.plan import Plan
from planc.trace import trace


def check_model(plan: Plan, model: nn.Module) -> None:
    """Return if ``plan`` was made for ``model``.

    Raises:
        StalePlan: it was made for another model; names the first difference.
        AlreadyApplied: the model is already the result of the plan.
    """
    tensors, modules = tensors_of(model), modules_of(model)
    try:
        check_source(plan, tensors, modules)
    except StalePlan:
        graph = _run_of(plan, model)
        if (
            graph is None
            or structure_digest(analyze(freed(graph, plan)).groups) != plan.source.structure
        ):
            raise
        check_source(with_what_counts(plan, graph), tensors, modules)


def result_difference(plan: Plan, smaller: nn.Module) -> str | None:
    """Return the first difference between the plan's result and a model, None if they agree."""
    difference = _result_difference(plan, smaller)
    if difference is not None:
        graph = _run_of(plan, smaller)
        if graph is not None and shapes_digest(graph, graph.nodes) == plan.shapes:
            return _result_difference(with_what_counts(plan, graph), smaller)
    return difference


def with_what_counts(plan: Plan, graph: Graph) -> Plan:
    """Return a plan of any version, its module table reduced to the attributes used by the traced
    model.
    """
    if lists_classes(plan.modules):
        return plan
    written = ((change.module, change.name) for change in plan.attributes)
    return plan.replace(modules=shared(plan.modules, module_table(graph, written)))


def counting(plan: Plan, model: nn.Module) -> Plan:
    """Return the same by a run of the model, if the plan's version needs one and the model runs."""
    graph = _run_of(plan, model)
    return plan if graph is None else with_what_counts(plan, graph)


def _result_difference(plan: Plan, smaller: nn.Module) -> str | None:
    return first_difference(
        result_tensors(plan),
        result_modules(plan),
        tensors_of(smaller),
        modules_of(smaller),
    )


def _run_of(plan: Plan, model: nn.Module) -> Graph | None:
    """Trace the model if the plan is of an older version; None if not, or if the trace fails."""
    if lists_classes(plan.modules):
        return None
    try:
        return trace(model, *example_call(plan, model))
    except PlancError:
        return None
