"""Comparison at other input sizes: another batch, smaller and larger images, shorter and longer
sequences.

The pruned model must accept every tried size accepted by the original, and agree with it there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from planc.analysis import Analysis, analyze
from planc.analysis.outputs import freed
from planc.apply.validate import Call
from planc.errors import SizeMismatch, TraceError, VerificationError
from planc.modules.nesting import leaves, map_leaves
from planc.plan.fingerprint import structure_digest
from planc.plan.plan import Plan
from planc.trace import trace
from planc.verify.outputs import differ, difference, graph_or_reason, run
from planc.verify.rounding import Pair, settled

_EQUAL = "outputs equal those of"
_ELSEWHERE = "with inputs of {} the model has other groups, for which this plan was not made"

Change = tuple[bool, int, int]  # leading dimensions, or all others, of one size, and the new size


def check_other_sizes(
    plan: Plan,
    model: nn.Module,
    smaller: nn.Module,
    masked: nn.Module | None,
    call: Call,
    allowed: float,
) -> tuple[str, str]:
    """Compare outputs on inputs of other sizes than those of ``call``.

    The reference is the masked original or, if a mixing group was pruned (``masked`` is None), the
    graph rewritten for each size.

    Returns:
        The sizes that were not compared, with reasons, and the comparisons made, both in words.

    Raises:
        VerificationError: the pruned model fails or differs on inputs for which the model has the
            plan's groups.
    """
    compared = _AtOtherSizes(plan, model, smaller, masked, allowed).compared_or_refused
    found: dict[str, None] = {}
    for other, alone in other_calls(model, call):
        taken, text = compared(other)
        found[text] = None
        if not taken:
            found |= {text: None for taken, text in map(compared, alone) if taken}
    left, made = ([t for t in found if (_EQUAL in t) == equal] for equal in (False, True))
    if not found:
        left = ["no other sizes compared: the original takes none of those tried"]
    return "; ".join(left), "; ".join(made)


@dataclass(frozen=True, slots=True, eq=False)
class _AtOtherSizes:
    """The models to compare; ``masked`` is None if a mixing group was pruned."""

    plan: Plan
    model: nn.Module
    smaller: nn.Module
    masked: nn.Module | None
    allowed: float

    def compared_or_refused(self, other: Call) -> tuple[bool, str]:
        """Return False if a graph refuses the sizes of another call, and the outcome in words."""
        try:
            return True, self._compared(other, sizes_of(other))
        except SizeMismatch as refused:
            return (
                False,
                f"with inputs of {sizes_of(other)} the graph refuses, as it says: {refused}",
            )

    def _compared(self, other: Call, sizes: str) -> str:
        """Return the outcome of a comparison at the sizes of another call.

        Raises:
            SizeMismatch: a graph refuses these sizes.
            VerificationError: as for :func:`check_other_sizes`.
        """
        what = f"the masked original with inputs of {sizes}"
        if self.masked is not None:
            reference = self.masked
        else:
            analysis = analyze(freed(trace(self.model, *other), self.plan))
            if not self._same_groups(analysis):
                return _ELSEWHERE.format(sizes)
            gone = analysis.gone([group.removed for group in self.plan.groups])
            graph = graph_or_reason(self.plan, analysis, gone, self.model, other)
            if isinstance(graph, str):
                return f"with inputs of {sizes} {graph}"
            reference = graph
            what = f"the rewritten graph with inputs of {sizes}"
        try:
            expected = run(reference, other)
        except Exception:
            return f"not compared with inputs of {sizes}: the original does not take their values"
        try:
            outputs = _outputs(self.smaller, other, sizes)
            try:
                error, remark = difference(outputs, expected, self.allowed, what), ""
            except VerificationError as failure:
                pair = Pair(self.smaller, reference, other)
                error, remark = settled(failure, pair, self.allowed)
        except VerificationError as failure:
            if differ(expected, run(reference, other, seed=1)):  # e.g. reads beyond its inputs
                return (
                    f"not compared with inputs of {sizes}: there the original is not the same twice"
                )
            if self._same_groups(analyze(freed(trace(self.model, *other), self.plan))):
                raise
            return f"{_ELSEWHERE.format(sizes)} and the pruned model fails: {failure}"
        return f"{_EQUAL} {what}, too: {error:.1e} relative{remark}"

    def _same_groups(self, analysis: Analysis) -> bool:
        return structure_digest(analysis.groups) == self.plan.source.structure


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


def other_calls(model: nn.Module, call: Call) -> Iterator[tuple[Call, list[Call]]]:
    """Yield the accepted ones of two calls: one with smaller sizes, one with larger.

    Each changes as many sizes at once as the model accepts, and has with it the calls changing one
    of these alone.
    """
    taken = [change for change in _changes(call) if _runs(model, _changed(call, [change]))]
    larger = list(_larger(call, taken))
    for other, changes in (
        (_at_once(model, call, taken), taken),
        (_at_once_or_one(model, call, larger), larger),
    ):
        if other is not None:
            yield other, [_changed(call, [change]) for change in changes]


def _at_once(model: nn.Module, call: Call, taken: list[Change]) -> Call | None:
    """Return a call with all changes accepted one by one, or with the first of them."""
    if not taken:
        return None
    together = _changed(call, taken)
    alone = len(taken) == 1  # already tried
    return together if alone or _runs(model, together) else _changed(call, taken[:1])


def _at_once_or_one(model: nn.Module, call: Call, changes: list[Change]) -> Call | None:
    """Return a call with all changes, or with the first one accepted alone."""
    tries = [changes, *([change] for change in changes if len(changes) > 1)]
    calls = (_changed(call, tried) for tried in tries if tried)
    return next((other for other in calls if _runs(model, other)), None)


def sizes_of(call: Call) -> str:
    """Return the shapes of the tensors of a call as text: ``2x3x168x168``."""
    shapes = [leaf.shape for leaf in leaves(call) if isinstance(leaf, torch.Tensor)]
    return ", ".join("x".join(map(str, shape)) or "scalar" for shape in dict.fromkeys(shapes))


def _changes(call: Call) -> Iterator[Change]:
    """Yield the changes to try: one for the batch, one for each size of the other dimensions."""
    tensors = [leaf for leaf in leaves(call) if isinstance(leaf, torch.Tensor) and leaf.dim() > 1]
    if tensors:
        batch = tensors[0].shape[0]
        if batch:
            yield True, batch, 1 if batch > 1 else 2
    for size in dict.fromkeys(n for tensor in tensors for n in tensor.shape[1:]):
        if size > 2:
            yield False, size, size * 3 // 4 if size > 7 else size - 1


def _larger(call: Call, taken: list[Change]) -> Iterator[Change]:
    """Yield an increase by a quarter for each size accepted smaller, or too small to shrink."""
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
    """Return the first ``size`` entries of a dimension, extended by flipped copies if necessary."""
    return torch.cat([tensor, tensor.flip(-1)], dim).narrow(dim, 0, size).contiguous()


def _runs(model: nn.Module, call: Call) -> bool:
    try:
        return not trace(model, *call).data_dependent
    except TraceError:
        return False
