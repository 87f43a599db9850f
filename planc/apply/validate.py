"""Translation validation: the pruned module, run on fake tensors, has every shape that the plan
predicts.

The plan carries a digest of all predicted operators and shapes, so one run of the result is enough;
only when it differs is the original analysed again, to name the first difference. A model whose
control flow depends on values is run on real tensors, and compared with the original's run on the
same inputs: deciding as that did, it has the shapes that the labels predict there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from planc.analysis import Analysis, analyze
from planc.apply.replay import replay_pruned
from planc.errors import StalePlan, TraceError, VerificationError
from planc.ir.graph import Graph, Node
from planc.modules.inputs import as_call, materialise
from planc.plan import fingerprint
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
    """The given inputs, or some made from the plan's specification, on the model's device and in
    its precision.
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
    """Within it, a failure on inputs that were made up says so."""
    try:
        yield
    except (TraceError, VerificationError, StalePlan) as error:
        if not _are_made_up(args, kwargs):
            raise
        raise type(error)(f"{error}; {_MADE_UP}") from error


def validate(plan: Plan, model: nn.Module, smaller: nn.Module, call: Call) -> None:
    """Compares every shape of a run of ``smaller`` with the plan's prediction.

    Raises:
        VerificationError: they differ, or the run fails; names the first operator and both shapes.
        StalePlan: the model has other groups than the one that the plan was made for.
    """
    try:
        found = trace(smaller, *call)
    except TraceError as error:
        raise VerificationError(f"the pruned model does not run: {error}") from error
    if plan.shapes == shapes_digest(found, found.nodes):  # all that it runs, constants included
        return
    graph = trace(model, *call)
    if plan.shapes == shapes_digest(found):
        _compare_constants(graph, found)
        return
    analysis = analyze(graph)  # the digest also differs where torch calls its operators otherwise
    check_structure(plan, analysis)
    compare_shapes(plan, analysis, deciding_alike(plan, analysis, smaller, call, found))


def deciding_alike(
    plan: Plan, analysis: Analysis, smaller: nn.Module, call: Call, found: Graph | None = None
) -> Graph:
    """A run of the pruned model that can be compared with that of the original, operator by
    operator: where control flow depends on values, it decides as the original did.

    Raises:
        VerificationError: the run fails, or has other decisions to take.
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
    """Returns if the model has the groups that ``plan`` was made for.

    Raises:
        StalePlan: it has others; the first difference is named.
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
    """The digest of the operators of a run with the shapes of their results: of those that do not
    compute constants, or of ``nodes``, as plans of older versions have it.
    """
    values = graph.values
    return fingerprint.shapes_digest(
        (node.op, [values[ref.id].shape for ref in node.outputs if ref is not None], node.literals)
        for node in (graph.lasting if nodes is None else nodes)
        if not node.idle
    )


def compare_shapes(plan: Plan, analysis: Analysis, found: Graph) -> None:
    """Compares a run of the pruned model with the labels' prediction, operator by operator."""
    gone = analysis.gone([group.removed for group in plan.groups])
    predicted = analysis.shapes(gone)
    wanted, nodes = analysis.graph.lasting, found.lasting
    for i, (want, have) in enumerate(zip(wanted, nodes, strict=False)):
        alike = want.op == have.op or plan.target == "graph"  # the graph names widths of its parts
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
    """Compares the numbers of operators that compute constants, unless either model kept these from
    an earlier run.
    """
    if [node.op for node in graph.nodes] == [node.op for node in found.nodes]:
        for want, have in zip(graph.nodes, found.nodes, strict=True):
            _compare_numbers(want, have)


def _compare_numbers(want: Node, have: Node) -> None:
    """Numbers of unknown origin must be what they were: one that is not was made of sizes in a way
    that the tracer cannot follow (``1.0 / n``, a function of another library).
    """
    if want.options != have.options:
        raise VerificationError(
            f"{have}: the pruned model computes with the options {have.options}, the original with "
            f"{want.options}; give both the same flags"
        )
    for number, found in zip(want.literals, have.literals, strict=False):
        if repr(number) != repr(found):  # not a number is equal to itself
            raise VerificationError(
                f"{have}: the pruned model computes with {found}, the original with {number}: its "
                "code makes the number of sizes in a way that is not seen; leave the groups of "
                "what it computes with whole (keep=), or have Python's arithmetic or math make it"
            )
