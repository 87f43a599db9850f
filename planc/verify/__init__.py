"""Verification: prove a pruned model correct from the original and the plan alone.

No code is shared with the executors. Tensors are compared with slices taken by the labels of a
fresh analysis, shapes with a run, and outputs with the rewritten graph and the masked original.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import fx, nn

from planc.analysis import Analysis, Gone, analyze
from planc.analysis.outputs import freed
from planc.apply.matching import with_what_counts
from planc.apply.replay import replay_masked, replay_pruned
from planc.apply.validate import Call, example_call, explained
from planc.compile.outline import outline
from planc.errors import VerificationError
from planc.ir.groups import apart, joined
from planc.modules.given import as_module
from planc.modules.tree import tensors_by_name
from planc.modules.weights import warn_if_other
from planc.plan.arguments import a_flag, a_number, a_plan, optional, takes
from planc.plan.depth import depth_of
from planc.plan.fingerprint import structure_digest
from planc.plan.plan import Plan, PlanGroup
from planc.trace import trace
from planc.trace.decisions import Replay
from planc.verify.configuration import OTHERWISE, check_configurations
from planc.verify.depth import split
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
from planc.verify.rounding import Pair, Values, settled
from planc.verify.sensitivity import sensitivity
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
from planc.verify.tensors import check_tensors

__all__ = ["Report", "verify"]

Replayed = Callable[[Analysis, Gone], Replay]
_GRAPH, _MASKED = "the rewritten graph", "the masked original"


class Check(NamedTuple):
    """A comparison in words, with the differences from the masked original and the graph.

    Not ``shown`` are comparisons left out, with the reason.
    """

    text: str
    error: float | None = None
    graph_error: float = 0.0
    shown: bool = True


@dataclass(frozen=True, slots=True)
class Report:
    """Checks of a verification and the largest differences found.

    Attributes:
        checks: the checks made, in words, with the reasons for omitted ones.
        error: largest difference from the outputs of the masked original, relative to the largest
            value of an output. None if a mixing group was pruned (removing is not zeroing there) or
            the model is random (dropout in training mode).
        graph_error: the same for the rewritten graph, which is a reference for every plan; 0 if no
            graph can express the model.
        mixing: names of the pruned groups that are mixing.
        not_shown: the ``checks`` that show nothing, because a comparison was left out.
        sensitivity: largest change of an output by other inputs, relative to its largest value.
            None if outputs were not compared, or no other inputs are accepted. Within the tolerance
            the proof by outputs is empty, and its checks are ``not_shown``.
    """

    checks: tuple[str, ...]
    error: float | None
    graph_error: float
    mixing: tuple[str, ...]
    not_shown: tuple[str, ...] = ()
    sensitivity: float | None = None

    def __str__(self) -> str:
        marks = {True: "\N{EN DASH}", False: "\N{CHECK MARK}"}
        return "\n".join(f"{marks[check in self.not_shown]} {check}" for check in self.checks)


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
    """Prove that ``smaller`` is the result of ``plan`` on ``model``; both are only read.

    The plan is derived again from a fresh analysis of the model. Every tensor of the result is
    compared bit for bit with a slice taken by the labels; classes, attributes, hooks and modes with
    the original's; every shape of a run with the prediction; outputs with the rewritten graph and,
    unless a pruned group is mixing, with the masked original. If control flow depends on values,
    these runs repeat the decisions of the original, because rounding may flip one, and the values
    behind the decisions are compared as well. The result is also compared on a batch of another
    size, and on smaller images or shorter sequences, as far as the original accepts them; a graph
    may refuse sizes it is bound to.

    Args:
        plan: the plan.
        model: the original module or exported program.
        smaller: the result of ``planc.apply(plan, model)``, trained no further.
        args, kwargs: inputs for comparing outputs, of any shapes accepted by the model; by default
            they are made from the plan's specification.
        tolerance: the largest relative difference; by default 1e-9 in float64, 1e-4 in float32 and
            2e-2 in lower precisions.
        other_sizes: compare also on inputs of other sizes, which about doubles the time.

    Returns:
        The checks made and the largest differences.

    Raises:
        StalePlan: the plan was made for another model.
        VerificationError: a comparison failed; names the first difference.

    Warns:
        PlancWarning: the weights of ``model`` differ from those that the plan was computed from.
    """
    model, smaller = as_module(model), as_module(smaller, "smaller")
    check_source(plan, model)
    warn_if_other(plan, model, "verify")
    call = example_call(plan, model, args, kwargs)
    removed, left = tuple[str, ...](), tuple[str, ...]()
    with explained(args, kwargs):
        if depth_of(plan):
            found = split(plan, model, call, tolerance)
            plan, model, removed = found.plan, found.shallow.model, found.checks
            left = found.not_shown
        analysis = analyze(freed(trace(model, *call), plan))
    planned = as_planned(plan, model, analysis)
    if removed:
        plan = plan.replace(cost_before=outline(planned, "module").cost)
    checks = [*removed, check_plan(plan, planned)]
    gone = analysis.gone([group.removed for group in plan.groups])
    graph = graph_or_reason(plan, analysis, gone, model, call)
    if plan.target == "module":
        checks.append(check_modules(with_what_counts(plan, analysis.graph), model, smaller, call))
    else:
        assert isinstance(graph, fx.GraphModule)  # a plan with target "graph" implies one
        checks.append(_check_graph(plan, planned, graph, model, smaller))
    checks.append(check_tensors(analysis, gone, model, smaller))
    checks.append(check_shapes(plan, analysis, smaller, call))
    mixing = tuple(group for group in plan.groups if group.mixing and group.removed)
    allowed = tolerance or tolerance_of(model)
    models = _Models(plan, model, smaller, graph, call, allowed, analysis, gone, mixing)
    compared = list(models.compared(other_sizes))
    changes: float | None = None
    told: list[Check] = []
    if any(check.shown for check in compared):
        changes = sensitivity(smaller, call)
        told = [_sensitive(changes, allowed)]
    shows = changes is None or changes > allowed
    errors = (check.error for check in compared if check.error is not None)
    return Report(
        (*checks, *(check.text for check in (*told, *compared))),
        max(errors, default=None),
        max((check.graph_error for check in compared), default=0.0),
        tuple(group.name for group in mixing),
        (*left, *(check.text for check in (*told, *compared) if not (shows and check.shown))),
        changes,
    )


def _check_graph(
    plan: Plan, planned: Analysis, graph: fx.GraphModule, model: nn.Module, smaller: nn.Module
) -> str:
    """Compare the result with the graph rewritten for the sizes of these inputs, or the plan's."""
    try:
        return check_graph(plan, graph, smaller)
    except VerificationError:
        gone = planned.gone([group.removed for group in plan.groups])
        call = example_call(plan, model)
        return check_graph(plan, rewritten_graph(plan, planned, gone, model, call), smaller)


@dataclass(frozen=True, slots=True, eq=False)
class _Models:
    """The original, the pruned model and the rewritten graph (or the reason for its absence)."""

    plan: Plan
    model: nn.Module
    smaller: nn.Module
    graph: fx.GraphModule | str
    call: Call
    allowed: float
    analysis: Analysis
    gone: Gone
    mixing: tuple[PlanGroup, ...]

    def compared(self, other_sizes: bool) -> Iterator[Check]:
        """Compare outputs with the rewritten graph and the masked original."""
        if any(tensor.is_meta for tensor in tensors_by_name(self.model).values()):
            yield _left("outputs not compared: on the meta device there are no numbers")
        elif self.analysis.graph.data_dependent:
            yield from self._by_decisions()
        else:
            yield from self._directly(other_sizes)

    def _directly(self, other_sizes: bool) -> Iterator[Check]:
        outputs = run(self.smaller, self.call)
        if isinstance(self.graph, str):
            yield _left(self.graph)
        else:
            expected = run(self.graph, self.call)
            try:
                error, text = self._agree(outputs, expected, self.graph, _GRAPH)
            except VerificationError:
                if not differ(run(self.model, self.call), run(self.model, self.call)):
                    raise
                yield _left("outputs not compared: the original's are not the same twice")
                return
            yield Check(f"outputs equal the rewritten graph's: {text}", graph_error=error)
            yield from map(_left, blind(expected))
        yield from self._rebuilt()
        if self.mixing:
            yield _left(_mixed(self.mixing))
            if other_sizes and not differ(outputs, run(self.smaller, self.call, seed=1)):
                yield from self._other_sizes(None)
            return
        masked = masked_original(self.analysis, self.gone, self.model)
        expected = run(masked, self.call)
        try:
            error, text = self._agree(outputs, expected, masked, _MASKED)
        except VerificationError:
            random = differing(expected, run(masked, self.call, seed=1))
            if not random:
                raise
            yield _besides_random(outputs, expected, random, self.allowed)
            return
        yield Check(f"outputs equal the masked original's: {text}", error)
        if other_sizes:
            yield from self._other_sizes(masked)

    def _by_decisions(self) -> Iterator[Check]:
        """Compare outputs under value-dependent control flow.

        All models repeat the decisions of the original, then those of the masked original; the
        values behind the decisions are compared along with the outputs.
        """
        so = "outputs"
        if isinstance(self.graph, str):
            yield _left(self.graph)
        else:
            error, text = self._alike(self.graph, replay_pruned, _GRAPH, " behind {} decisions")
            told = "outputs equal the rewritten graph's where both decide as the original"
            yield Check(f"{told}: {text}", graph_error=error)
            so = "so do they"
        run(self.smaller, self.call)  # by its own decisions
        yield from self._rebuilt()
        if missed := unreached(self.analysis):
            yield _left(missed)
        if self.mixing:
            yield _left(_mixed(self.mixing))
            return
        masked = masked_original(self.analysis, self.gone, self.model)
        error, text = self._alike(masked, replay_masked, _MASKED)
        yield Check(f"{so} equal the masked original's: {text}", error)
        other_path = analyze(freed(trace(masked, *self.call), self.plan))
        if structure_digest(other_path.groups) != structure_digest(self.analysis.groups):
            told = "not compared where both decide as the masked original: it takes another way"
            yield _left(told)
            return
        gone = other_path.gone([group.removed for group in self.plan.groups])
        there = replace(self, analysis=other_path, gone=gone)
        error, text = there._alike(masked, replay_masked, _MASKED)
        yield Check(f"the same where both decide as the masked original: {text}", error)

    def _rebuilt(self) -> Iterator[Check]:
        """Rebuild the result from its configuration, as loading does."""
        if self.plan.target == "module":
            given = (self.plan, self.analysis, self.gone, self.smaller, self.call, self.allowed)
            for told in check_configurations(*given):
                yield Check(told, shown=not told.startswith(OTHERWISE))

    def _other_sizes(self, masked: nn.Module | None) -> Iterator[Check]:
        given = (self.plan, self.model, self.smaller, masked, self.call, self.allowed)
        left, made = check_other_sizes(*given)
        yield from map(_left, filter(None, [left]))
        yield from map(Check, filter(None, [made]))

    def _agree(
        self, outputs: Values, expected: Values, reference: nn.Module, what: str
    ) -> tuple[float, str]:
        """Return the largest difference of outputs, also in words."""
        remark = ""
        try:
            error = difference(outputs, expected, self.allowed, what)
        except VerificationError as failure:
            pair = Pair(self.smaller, reference, self.call)
            error, remark = settled(failure, pair, self.allowed)
        return error, f"{error:.1e} relative{remark}"

    def _alike(
        self, reference: nn.Module, replayed: Replayed, what: str, behind: str = ""
    ) -> tuple[float, str]:
        """Return the largest difference of outputs under the same decisions, also in words."""

        def replays() -> tuple[Replay, Replay]:
            return replay_pruned(self.analysis, self.gone), replayed(self.analysis, self.gone)

        replay, other = replays()
        outputs = run(self.smaller, self.call, replay=replay)
        expected, remark = run(reference, self.call, replay=other), ""
        try:
            error = difference(outputs, expected, self.allowed, what)
            operands = compare_operands(replay, other, self.allowed, what)
        except VerificationError as failure:
            pair = Pair(self.smaller, reference, self.call, replays)
            error, remark = settled(failure, pair, self.allowed)
            operands = error
        values = f"the values{behind.format(replay.taken)} {operands:.1e}"
        return error, f"{error:.1e} relative, {values}{remark}"


def _left(text: str) -> Check:
    return Check(text, shown=False)


def _sensitive(found: float | None, allowed: float) -> Check:
    """Return the sensitivity in words; within the tolerance, outputs prove nothing."""
    if found is None:
        return _left("other inputs were not tried: the model accepts none of these shapes")
    if found > allowed:
        return Check(f"other inputs change the outputs by {found:.1e} relative, more than rounding")
    return _left(
        f"the proof by outputs is empty: other inputs change them by {found:.1e} relative, within "
        f"the {allowed:g} allowed for rounding; verify with other inputs or with trained weights"
    )


def _mixed(groups: Sequence[PlanGroup]) -> str:
    """Return the reasons against a comparison with the masked original."""
    reasons = joined(part for group in groups for part in apart(group.mixing))
    return f"not compared with the masked original: {len(groups)} pruned groups mix ({reasons})"


def _besides_random(outputs: Values, expected: Values, random: set[int], allowed: float) -> Check:
    """Compare the deterministic outputs with the masked original's."""
    told = "not compared with the masked original: its outputs are random"
    kept = [i for i in range(len(expected)) if i not in random]
    if not kept or len(outputs) != len(expected):
        return _left(told)
    ours, theirs = ([values[i] for i in kept] for values in (outputs, expected))
    error = difference(ours, theirs, allowed, _MASKED)
    return Check(
        f"{len(kept)} outputs equal the masked original's: {error:.1e} relative; the other "
        f"{len(random)} are not compared, because they are random"
    )
