"""Other sizes than those that were planned with: another batch, smaller and larger images, shorter
and longer sequences. As far as the original takes them, the pruned model must take them as well.

In: a model and one call of it. Out: other calls, and whether both models agree on them.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from planc.analysis import Analysis, analyze
from planc.apply.validate import Call
from planc.errors import SizeMismatch, TraceError, VerificationError
from planc.modules.nesting import leaves, map_leaves
from planc.plan.fingerprint import structure_digest
from planc.plan.plan import Plan
from planc.trace import trace
from planc.verify.outputs import differ, difference, graph_or_reason, run
from planc.verify.rounding import Pair, settled

_ELSEWHERE = "with inputs of {} the model has other groups, for which this plan was not made"

Change = tuple[bool, int, int]  # leading dimensions, or all others, of one size, and the new size


def check_other_sizes(
    plan: Plan,
    model: nn.Module,
    smaller: nn.Module,
    masked: nn.Module | None,
    call: Call,
    allowed: float,
) -> str:
    """Compares outputs on inputs of other sizes than ``call``'s: with those of the masked original,
    or, where a mixing group was pruned (``masked`` is None), with the graph's rewritten for them.

    Returns:
        what was compared, with the sizes, in words.

    Raises:
        VerificationError: the pruned model does not run, or gives something else, on inputs for
            which the model has the plan's groups.
    """
    compared = partial(_compared_or_refused, plan, model, smaller, masked, allowed)
    found: dict[str, None] = {}
    for other, alone in _tries(model, call):
        taken, text = compared(other)
        found[text] = None
        if not taken:
            found |= {text: None for taken, text in map(compared, alone) if taken}
    return "; ".join(found) or "no other sizes compared: the original takes none of those tried"


def _compared_or_refused(
    plan: Plan,
    model: nn.Module,
    smaller: nn.Module,
    masked: nn.Module | None,
    allowed: float,
    other: Call,
) -> tuple[bool, str]:
    """Whether a graph takes the sizes of another call, and the outcome in words."""
    try:
        return True, _compared(plan, model, smaller, masked, other, allowed)
    except SizeMismatch as refused:
        sizes = sizes_of(other)
        return False, f"with inputs of {sizes} the graph refuses, as it says: {refused}"


def _compared(
    plan: Plan,
    model: nn.Module,
    smaller: nn.Module,
    masked: nn.Module | None,
    other: Call,
    allowed: float,
) -> str:
    """What a comparison at the sizes of another call says.

    Raises:
        SizeMismatch: a graph refuses these sizes.
        VerificationError: as :func:`check_other_sizes`.
    """
    sizes = sizes_of(other)
    reference, what = masked, f"the masked original with inputs of {sizes}"
    if reference is None:
        analysis = analyze(trace(model, *other))
        if not _same_groups(plan, analysis):
            return _ELSEWHERE.format(sizes)
        gone = analysis.gone([group.removed for group in plan.groups])
        reference, graphless = graph_or_reason(plan, analysis, gone, model, other)
        if reference is None:
            return f"with inputs of {sizes} {graphless}"
        what = f"the rewritten graph with inputs of {sizes}"
    try:
        expected = run(reference, other)
    except Exception:
        return f"not compared with inputs of {sizes}: the original does not take their values"
    try:
        outputs = _outputs(smaller, other, sizes)
        try:
            error, remark = difference(outputs, expected, allowed, what), ""
        except VerificationError as failure:
            error, remark = settled(failure, Pair(smaller, reference, other), allowed)
    except VerificationError as failure:
        if differ(expected, run(reference, other, seed=1)):  # as where it reads beyond its inputs
            return f"not compared with inputs of {sizes}: there the original is not the same twice"
        if _same_groups(plan, analyze(trace(model, *other))):
            raise
        return f"{_ELSEWHERE.format(sizes)} and the pruned model fails: {failure}"
    return f"outputs equal those of {what}, too: {error:.1e} relative{remark}"


def _same_groups(plan: Plan, analysis: Analysis) -> bool:
    return structure_digest(analysis.groups) == plan.source.structure


def _outputs(smaller: nn.Module, other: Call, sizes: str) -> list[torch.Tensor]:
    try:
        return run(smaller, other)
    except VerificationError as failed:
        failure = failed.__cause__ or failed
        raise VerificationError(
            f"with inputs of {sizes} the original runs, and the pruned model does not: "
            f"{type(failure).__name__}: {failure}; a plan that is compiled with inputs of these "
            "sizes knows what the model does there"
        ) from failure


def other_calls(model: nn.Module, call: Call) -> list[Call]:
    """A call with as many smaller sizes as the model takes at once, and one with larger ones; those
    of the two that it takes.
    """
    return [other for other, _ in _tries(model, call)]


def _tries(model: nn.Module, call: Call) -> Iterator[tuple[Call, list[Call]]]:
    """The other calls, each with the calls that change one size alone."""
    taken = [change for change in _changes(call) if _runs(model, _changed(call, [change]))]
    larger = list(_larger(call, taken))
    for other, changes in (
        (_at_once(model, call, taken), taken),
        (_at_once_or_one(model, call, larger), larger),
    ):
        if other is not None:
            yield other, [_changed(call, [change]) for change in changes]


def _at_once(model: nn.Module, call: Call, taken: list[Change]) -> Call | None:
    """A call with all changes that the model takes one by one, or with the first of them."""
    if not taken:
        return None
    together = _changed(call, taken)
    alone = len(taken) == 1  # which was just tried
    return together if alone or _runs(model, together) else _changed(call, taken[:1])


def _at_once_or_one(model: nn.Module, call: Call, changes: list[Change]) -> Call | None:
    """A call with all changes, or with the first that the model takes alone."""
    tries = [changes, *([change] for change in changes if len(changes) > 1)]
    calls = (_changed(call, tried) for tried in tries if tried)
    return next((other for other in calls if _runs(model, other)), None)


def sizes_of(call: Call) -> str:
    """The shapes of the tensors of a call: ``2x3x168x168``."""
    shapes = [leaf.shape for leaf in leaves(call) if isinstance(leaf, torch.Tensor)]
    return ", ".join("x".join(map(str, shape)) or "scalar" for shape in dict.fromkeys(shapes))


def _changes(call: Call) -> Iterator[Change]:
    """The changes to try: one for the batch, one for each size of the other dimensions."""
    tensors = [leaf for leaf in leaves(call) if isinstance(leaf, torch.Tensor) and leaf.dim() > 1]
    if tensors:
        batch = tensors[0].shape[0]
        if batch:
            yield True, batch, 1 if batch > 1 else 2
    for size in dict.fromkeys(n for tensor in tensors for n in tensor.shape[1:]):
        if size > 2:
            yield False, size, size * 3 // 4 if size > 7 else size - 1


def _larger(call: Call, taken: list[Change]) -> Iterator[Change]:
    """A quarter more for each size that can be smaller, or is too small to be."""
    smaller = {size for leading, size, _ in taken if not leading}
    tensors = [leaf for leaf in leaves(call) if isinstance(leaf, torch.Tensor)]
    for size in dict.fromkeys(n for tensor in tensors for n in tensor.shape[1:]):
        if size in smaller or 0 < size <= 2:
            yield False, size, size + max(1, size // 4)


def _changed(call: Call, changes: list[Change]) -> Call:
    def change(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        for leading, size, new in changes:
            for dim in range(leaf.dim()):
                if leaf.shape[dim] == size and leading == (dim == 0):
                    leaf = _resized(leaf, dim, new)
        return leaf

    args, kwargs = map_leaves(change, call)
    return args, kwargs


def _resized(tensor: torch.Tensor, dim: int, size: int) -> torch.Tensor:
    """The first ``size`` entries of a dimension; where there are too few, others made of them."""
    return torch.cat([tensor, tensor.flip(-1)], dim).narrow(dim, 0, size).contiguous()


def _runs(model: nn.Module, call: Call) -> bool:
    try:
        return not trace(model, *call).data_dependent
    except TraceError:
        return False
