"""Translation validation: compare the shapes of a pruned module on fake tensors with the plan's
prediction.

The plan has a digest of all predicted operators and shapes, so one run of the result suffices. The
original is analysed again only if the digest differs, to name the first difference. A model with
value-dependent control flow is run on real tensors, repeating the decisions of the original's run
on the same inputs; the labels predict its shapes there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from planc.analysis import Analysis, analyze
from planc.analysis.blocks import block_lists, bypassed
from planc.analysis.outputs import freed
from planc.apply.replay import replay_pruned
from planc.errors import StalePlan, TraceError, VerificationError
from planc.ir.graph import Graph, Node
from planc.modules.inputs import as_call, materialise
from planc.plan import fingerprint
from planc.plan.depth import depth_of, is_list, path_of
from planc.plan.plan import Plan
from planc.trace import trace

Call = tuple[tuple[Any, ...], dict[str, Any]]
_PRECISIONS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_MADE_UP = (
    "the inputs were made up from the plan's specification: if this model needs others, give "
    "args= or kwargs=, or apply with validate=False"
)


def example_call(
    plan: Plan, model: nn.Module, args: Any = None, kwargs: Mapping[str, Any] | None = None
) -> Call:
    """Return the given inputs, or inputs from the plan's specification in the model's device and
    precision.
    """
    if not _are_made_up(args, kwargs):
        return as_call(args, kwargs)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    types = [t.dtype for t in (*model.parameters(), *model.buffers()) if t.dtype in _PRECISIONS]
    return materialise(plan.inputs, "cpu" if device.type == "meta" else device, types=types)


def _are_made_up(args: Any, kwargs: Mapping[str, Any] | None) -> bool:
    return args is None and not kwargs


@contextmanager
def explained(args: Any = None, kwargs: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Context in which failures on generated inputs mention the inputs."""
    try:
        yield
    except (TraceError, VerificationError, StalePlan) as error:
        if not _are_made_up(args, kwargs):
            raise
        raise type(error)(f"{error}; {_MADE_UP}") from error


def validate(plan: Plan, model: nn.Module, smaller: nn.Module, call: Call) -> None:
    """Compare every shape of a run of ``smaller`` with the plan's prediction.

    Raises:
        VerificationError: they differ, or the run fails; names the first operator and both shapes.
        StalePlan: the groups differ from those of the plan's model.
    """
    try:
        found = trace(smaller, *call)
    except TraceError as error:
        raise VerificationError(f"the pruned model does not run: {error}") from error
    if plan.shapes == shapes_digest(found, found.nodes):  # of all nodes, constants included
        return
    plan, graph = width_plan(plan), skipped(plan, trace(model, *call))
    if plan.shapes == shapes_digest(found):
        _compare_constants(graph, found)
        return
    analysis = analyze(freed(graph, plan))  # the digest also differs if torch has renamed operators
    check_structure(plan, analysis)
    compare_shapes(plan, analysis, deciding_alike(plan, analysis, smaller, call, found))


def skipped(plan: Plan, graph: Graph) -> Graph:
    """Return a run of the original without the removed blocks.

    Raises:
        StalePlan: a removed block is none in this run.
    """
    lists = {one.path: one for one in block_lists(graph)} if depth_of(plan) else {}
    blocks = []
    for group in depth_of(plan).lists:
        found = lists.get(path_of(group))
        for unit in group.removed:
            if found is None or unit not in found.blocks:
                reason = "it is no list of blocks" if found is None else found.reasons[unit]
                raise StalePlan(
                    f"{group.name}: block {unit} cannot be removed from this model: {reason}; "
                    "compile a plan for this model"
                )
            blocks.append(found.blocks[unit])
    return bypassed(graph, blocks)


def width_plan(plan: Plan) -> Plan:
    """Return the plan without its lists of blocks, for a run without the removed ones."""
    groups = tuple(group for group in plan.groups if not is_list(group))
    if len(groups) == len(plan.groups):
        return plan
    structure = fingerprint.structure_digest(groups)
    return plan.replace(groups=groups, source=replace(plan.source, structure=structure))


def deciding_alike(
    plan: Plan, analysis: Analysis, smaller: nn.Module, call: Call, found: Graph | None = None
) -> Graph:
    """Return a run of the pruned model comparable with the original's, operator by operator.

    If control flow depends on values, the run repeats the decisions of the original.

    Raises:
        VerificationError: the run fails, or has other decisions to make.
    """
    try:
        if found is None:
            found = trace(smaller, *call)
        if not analysis.graph.data_dependent:
            return found
        replay = replay_pruned(analysis, analysis.gone([group.removed for group in plan.groups]))
        found = trace(smaller, *call, replay=replay)
        replay.finish()
    except TraceError as error:
        raise VerificationError(f"the pruned model does not run: {error}") from error
    return found


def check_structure(plan: Plan, analysis: Analysis) -> None:
    """Return if the model has the groups of the plan's model.

    Raises:
        StalePlan: the groups differ; names the first difference.
    """
    if fingerprint.structure_digest(analysis.groups) == plan.source.structure:
        return
    found = {group.name: group for group in analysis.groups}
    planned = {group.name: group for group in plan.groups}
    difference = "their members differ"
    for name in [*planned, *found]:
        there = str(found[name]) if name in found else "none"
        here = str(planned[name]) if name in planned else "none"
        if here != there:
            difference = f"expected {here}, found {there}"
            break
    inputs = "of the shapes that it was compiled with"
    if analysis.graph.data_dependent:
        inputs = "on which it runs as on those that it was compiled with"
    raise StalePlan(
        f"the model's tensors are those of the plan, its groups are not: {difference}; compile a "
        f"plan for this model, or give inputs {inputs}"
    )


def shapes_digest(graph: Graph, nodes: Sequence[Node] | None = None) -> bytes:
    """Return the digest of the operators of a run and their result shapes.

    It covers the operators that do not compute constants, or ``nodes``, as in plans of older
    versions.
    """
    values = graph.values
    return fingerprint.shapes_digest(
        (node.op, [values[ref.id].shape for ref in node.outputs if ref is not None], node.literals)
        for node in (graph.lasting if nodes is None else nodes)
        if not node.idle
    )


def compare_shapes(plan: Plan, analysis: Analysis, found: Graph) -> None:
    """Compare a run of the pruned model with the labels' prediction, operator by operator."""
    gone = analysis.gone([group.removed for group in plan.groups])
    predicted = analysis.shapes(gone)
    wanted, nodes = analysis.graph.lasting, found.lasting
    for i, (want, have) in enumerate(zip(wanted, nodes, strict=False)):
        alike = want.op == have.op or plan.target == "graph"  # the graph has rewritten operators
        if not alike or len(want.outputs) != len(have.outputs):
            raise VerificationError(f"operator {i} of the pruned model is {have}, predicted {want}")
        if plan.target == "module" and not analysis.graph.data_dependent:
            _compare_numbers(want, have)
        for ref, at in zip(want.outputs, have.outputs, strict=True):
            if ref is None or at is None:
                continue
            shape = found.values[at.id].shape
            if predicted[ref.id] != shape:
                raise VerificationError(
                    f"{have}: the pruned model gives shape {shape}, predicted {predicted[ref.id]}"
                )
    if len(wanted) != len(nodes):
        raise VerificationError(
            f"the pruned model runs {len(nodes)} operators, predicted {len(wanted)}"
        )
    if plan.target == "module" and not analysis.graph.data_dependent:
        _compare_constants(analysis.graph, found)


def _compare_constants(graph: Graph, found: Graph) -> None:
    """Compare the numbers of constant operators, unless a model cached constants from an earlier
    run.
    """
    if [node.op for node in graph.nodes] == [node.op for node in found.nodes]:
        for want, have in zip(graph.nodes, found.nodes, strict=True):
            _compare_numbers(want, have)


def _compare_numbers(want: Node, have: Node) -> None:
    """Compare numbers of unknown origin, which must be unchanged.

    A changed one was computed from sizes in a way invisible to the tracer (``1.0 / n``, a function
    of another library).
    """
    if want.options != have.options:
        raise VerificationError(
            f"{have}: the pruned model computes with the options {have.options}, the original with "
            f"{want.options}; give both the same flags"
        )
    for number, found in zip(want.literals, have.literals, strict=False):
        if repr(number) != repr(found):  # NaN must equal NaN
            raise VerificationError(
                f"{have}: the pruned model computes with {found}, the original with {number}: its "
                "code makes the number of sizes in a way that is not seen; leave the groups of "
                "what it computes with whole (keep=), or have Python's arithmetic or math make it"
            )
