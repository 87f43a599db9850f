"""Verification: proves a pruned model right, from the original and the plan alone.

Nothing here shares code with the executors: tensors are compared with slices taken by the labels of
a fresh analysis, shapes with a run, numbers with the rewritten graph and the masked original.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import fx, nn

from planc.analysis import Analysis, Gone, analyze
from planc.apply.matching import with_what_counts
from planc.apply.replay import replay_masked, replay_pruned
from planc.apply.validate import Call, example_call, explained
from planc.errors import VerificationError
from planc.ir.groups import apart, joined
from planc.modules.given import as_module
from planc.plan.arguments import a_flag, a_number, a_plan, optional, takes
from planc.plan.fingerprint import structure_digest
from planc.plan.plan import Plan
from planc.trace import trace
from planc.trace.decisions import Replay
from planc.verify.configuration import check_configuration
from planc.verify.outputs import (
    blind,
    compare_operands,
    differ,
    difference,
    differing,
    graph_or_reason,
    masked_original,
    rewritten_graph,
    run,
    tolerance_of,
)
from planc.verify.rounding import Pair, Replays, settled
from planc.verify.sizes import check_other_sizes
from planc.verify.structure import (
    as_planned,
    check_graph,
    check_modules,
    check_plan,
    check_shapes,
    check_source,
    unreached,
)
from planc.verify.tensors import check_tensors, named

__all__ = ["Report", "verify"]


@dataclass(frozen=True, slots=True)
class Report:
    """What was compared and how far apart it was.

    ``error`` is the largest difference from the masked original, relative to the largest output;
    None where a mixing group was pruned, for which removing is not zeroing, or where the model is
    random (dropout in training mode). ``graph_error`` is the same for the rewritten graph, which
    holds for every plan where a graph can hold what the model does (0 where it cannot).
    """

    checks: tuple[str, ...]
    error: float | None
    graph_error: float
    mixing: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(self.checks)


@takes(plan=a_plan, tolerance=optional(a_number), other_sizes=a_flag)
def verify(
    plan: Plan,
    model: nn.Module | torch.export.ExportedProgram,
    smaller: nn.Module,
    args: Any = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    tolerance: float | None = None,
    other_sizes: bool = True,
) -> Report:
    """Proves that ``smaller`` is what ``plan`` makes of ``model``; both are only read.

    The plan is derived again from a fresh analysis of the model; every tensor of the result is
    compared bit for bit with a slice taken by the labels; classes, attributes, hooks and modes with
    the original's; every shape of a run with the prediction; outputs with the rewritten graph, and,
    where no pruned group is mixing, with the masked original. Where control flow depends on values,
    these runs decide as the original did, for rounding may tip a decision, and the values that they
    decide by are compared as well. The result is also compared on a batch of another size, and on
    smaller images or shorter sequences, as far as the original takes them; a graph may refuse sizes
    that it is bound to.

    Args:
        args, kwargs: inputs to compare outputs on, of any shapes that the model takes; made from
            the plan's specification if not given.
        tolerance: the largest relative difference; 1e-4 in float32, 1e-9 in float64, 2e-2 below.
        other_sizes: compare with inputs of other sizes, too. It takes about as long again.

    Raises:
        StalePlan: the plan was made for another model.
        VerificationError: something differs; the first difference is named.
    """
    model, smaller = as_module(model), as_module(smaller, "smaller")
    check_source(plan, model)
    call = example_call(plan, model, args, kwargs)
    with explained(args, kwargs):
        analysis = analyze(trace(model, *call))
    planned = as_planned(plan, model, analysis)
    checks = [check_plan(plan, planned)]
    gone = analysis.gone([group.removed for group in plan.groups])
    graph, graphless = graph_or_reason(plan, analysis, gone, model, call)
    if plan.target == "module":
        checks.append(check_modules(with_what_counts(plan, analysis.graph), model, smaller, call))
    else:
        assert graph is not None  # or there would be no such plan
        checks.append(_check_graph(plan, planned, graph, model, smaller))
    checks.append(check_tensors(analysis, gone, model, smaller))
    checks.append(check_shapes(plan, analysis, smaller, call))
    mixing = tuple(group.name for group in plan.groups if group.mixing and group.removed)
    if any(tensor.is_meta for tensor in named(model).values()):
        checks.append("outputs not compared: on the meta device there are no numbers")
        return Report(tuple(checks), None, 0.0, mixing)
    allowed = tolerance or tolerance_of(model)
    if analysis.graph.data_dependent:
        models = (model, smaller, graph or graphless)
        return _by_decisions(plan, checks, mixing, allowed, analysis, gone, models, call)
    outputs, graph_error = run(smaller, call), 0.0
    if graph is None:
        checks.append(graphless)
    else:
        expected, what = run(graph, call), "the rewritten graph"
        try:
            pair = Pair(smaller, graph, call)
            graph_error, remark = _agree(outputs, expected, pair, allowed, what)
        except VerificationError:
            if not differ(run(model, call), run(model, call)):
                raise
            checks.append("outputs not compared: the original's are not the same twice")
            return Report(tuple(checks), None, 0.0, mixing)
        checks.append(f"outputs equal the rewritten graph's: {graph_error:.1e} relative{remark}")
        checks.extend(blind(expected))
    if plan.target == "module" and (told := check_configuration(smaller, call, allowed)):
        checks.append(told)
    if mixing:
        checks.append(_mixed(plan))
        if other_sizes and not differ(outputs, run(smaller, call, seed=1)):  # random ones are not
            checks.append(check_other_sizes(plan, model, smaller, None, call, allowed))
        return Report(tuple(checks), None, graph_error, mixing)
    masked = masked_original(analysis, gone, model)
    expected, what = run(masked, call), "the masked original"
    try:
        error, remark = _agree(outputs, expected, Pair(smaller, masked, call), allowed, what)
    except VerificationError:
        random = differing(expected, run(masked, call, seed=1))
        if not random:
            raise
        checks.append(_besides_random(outputs, expected, random, allowed))
        return Report(tuple(checks), None, graph_error, mixing)
    checks.append(f"outputs equal the masked original's: {error:.1e} relative{remark}")
    if other_sizes:
        checks.append(check_other_sizes(plan, model, smaller, masked, call, allowed))
    return Report(tuple(checks), error, graph_error, mixing)


def _check_graph(
    plan: Plan, planned: Analysis, graph: fx.GraphModule, model: nn.Module, smaller: nn.Module
) -> str:
    """The result is the graph rewritten for the sizes of these inputs, or of those of the plan."""
    try:
        return check_graph(plan, graph, smaller)
    except VerificationError:
        gone = planned.gone([group.removed for group in plan.groups])
        call = example_call(plan, model)
        return check_graph(plan, rewritten_graph(plan, planned, gone, model, call), smaller)


def _agree(
    outputs: list[torch.Tensor],
    expected: list[torch.Tensor],
    pair: Pair,
    allowed: float,
    what: str,
) -> tuple[float, str]:
    """How far outputs are apart, with a remark where the first comparison did not decide it."""
    try:
        return difference(outputs, expected, allowed, what), ""
    except VerificationError as failure:
        return settled(failure, pair, allowed)


def _besides_random(
    outputs: list[torch.Tensor], expected: list[torch.Tensor], random: set[int], allowed: float
) -> str:
    """Compares those outputs that are not random with the masked original's."""
    told = "not compared with the masked original: its outputs are random"
    kept = [i for i in range(len(expected)) if i not in random]
    if not kept or len(outputs) != len(expected):
        return told
    ours, theirs = ([values[i] for i in kept] for values in (outputs, expected))
    error = difference(ours, theirs, allowed, "the masked original")
    return (
        f"{len(kept)} outputs equal the masked original's: {error:.1e} relative; the other "
        f"{len(random)} are not compared, because they are random"
    )


def _mixed(plan: Plan) -> str:
    """Which reasons keep pruned groups from being compared with the masked original."""
    groups = [group for group in plan.groups if group.mixing and group.removed]
    reasons = joined(part for group in groups for part in apart(group.mixing))
    return f"not compared with the masked original: {len(groups)} pruned groups mix ({reasons})"


def _by_decisions(
    plan: Plan,
    checks: list[str],
    mixing: tuple[str, ...],
    allowed: float,
    analysis: Analysis,
    gone: Gone,
    models: tuple[nn.Module, nn.Module, nn.Module | str],
    call: Call,
) -> Report:
    """The comparison of outputs where control flow depends on values: all models decide as the
    original did, then as the masked original does, and what they would have decided by is compared
    with the outputs.
    """
    model, smaller, graph = models

    def pruned() -> tuple[Replay, Replay]:
        return replay_pruned(analysis, gone), replay_pruned(analysis, gone)

    graph_error, so = 0.0, "outputs"
    if isinstance(graph, str):
        checks.append(graph)
    else:
        found = _alike(smaller, graph, pruned, call, allowed, "the rewritten graph")
        checks.append(
            "outputs equal the rewritten graph's where both decide as the original: "
            f"{found.error:.1e} relative, the values behind {found.taken} decisions "
            f"{found.operands:.1e}{found.remark}"
        )
        graph_error, so = found.error, "so do they"
    run(smaller, call)  # by its own decisions
    if missed := unreached(analysis):
        checks.append(missed)
    if mixing:
        checks.append(_mixed(plan))
        return Report(tuple(checks), None, graph_error, mixing)
    masked, what = masked_original(analysis, gone, model), "the masked original"
    found = _alike(smaller, masked, _beside(analysis, gone), call, allowed, what)
    checks.append(
        f"{so} equal the masked original's: {found.error:.1e} relative, the values "
        f"{found.operands:.1e}{found.remark}"
    )
    other_path = analyze(trace(masked, *call))
    if structure_digest(other_path.groups) != structure_digest(analysis.groups):
        checks.append("not compared where both decide as the masked original: it takes another way")
        return Report(tuple(checks), found.error, graph_error, mixing)
    gone = other_path.gone([group.removed for group in plan.groups])
    there = _alike(smaller, masked, _beside(other_path, gone), call, allowed, what)
    checks.append(
        f"the same where both decide as the masked original: {there.error:.1e} relative, the "
        f"values {there.operands:.1e}{there.remark}"
    )
    return Report(tuple(checks), max(found.error, there.error), graph_error, mixing)


def _beside(analysis: Analysis, gone: Gone) -> Replays:
    """Replays for the pruned and the masked model, which decide as ``analysis`` saw."""
    return lambda: (replay_pruned(analysis, gone), replay_masked(analysis, gone))


class _Alike(NamedTuple):
    """Differences of outputs and of the values that decide, and the number of decisions."""

    error: float
    operands: float
    taken: int
    remark: str = ""


def _alike(
    smaller: nn.Module,
    reference: nn.Module,
    replays: Replays,
    call: Call,
    allowed: float,
    what: str,
) -> _Alike:
    """The comparison of two models that decide alike."""
    replay, other = replays()
    outputs, expected = run(smaller, call, replay=replay), run(reference, call, replay=other)
    try:
        error = difference(outputs, expected, allowed, what)
        return _Alike(error, compare_operands(replay, other, allowed, what), replay.taken)
    except VerificationError as failure:
        error, remark = settled(failure, Pair(smaller, reference, call, replays), allowed)
        return _Alike(error, error, replay.taken, remark)
