"""Recovery: the plan behind an already pruned model, from its tensors and those of the original."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from planc.analysis import Analysis, analyze
from planc.apply.state_dict import apply_state_dict, entries_of
from planc.compile.axes import Axes
from planc.compile.places import settled
from planc.compile.select import Target, write_plan
from planc.errors import PolicyError
from planc.modules.given import as_module, module
from planc.modules.tables import shapes_of, tensors_of
from planc.modules.tree import tensors_by_name
from planc.plan.arguments import a_flag, a_mapping, a_number, optional, options, takes
from planc.plan.fingerprint import shape_difference, tensors_after
from planc.plan.plan import Plan
from planc.trace import trace

_UNSURE = 0.5


@dataclass(frozen=True, slots=True)
class RecoveredGroup:
    """A group of the recovered plan.

    Attributes:
        name: the group's name.
        removed: the number of units removed.
        confidence: from 0 (another unit fits as well) to 1 (the matched slices are equal, or
            nothing was removed): one minus the ratio of the squared distances to the matched unit
            and to the nearest removed one, for the worst unit.
    """

    name: str
    removed: int
    confidence: float


@dataclass(frozen=True, slots=True)
class Recovered:
    """Result of :func:`recover`.

    Attributes:
        plan: the plan; its result has the shapes of the pruned model.
        groups: all groups of the plan, each with its confidence.
        exact: the plan gives the tensors of the pruned model bit for bit.
    """

    plan: Plan
    groups: tuple[RecoveredGroup, ...]
    exact: bool

    @property
    def unsure(self) -> tuple[RecoveredGroup, ...]:
        """The groups of a confidence below one half: other units fit nearly as well."""
        return tuple(group for group in self.groups if group.confidence < _UNSURE)

    def __str__(self) -> str:
        removed = sum(group.removed for group in self.groups)
        how = "the tensors are equal" if self.exact else "the tensors were changed afterwards"
        lines = [f"{removed} units were removed; {how}"]
        lines += [f"{g.name}: not sure ({g.confidence:.2f})" for g in self.unsure]
        return "\n".join(lines)


def _tensors(name: str, value: Any) -> Mapping[str, Any]:
    """The check of a pruned model: its tensors by all their names."""
    if isinstance(value, Mapping):
        return a_mapping(name, value)
    return tensors_by_name(as_module(value, name))


@takes(
    original=module,
    pruned=_tensors,
    weights=optional(a_mapping),
    least=a_number,
    target=options("module", "graph", error=PolicyError),
    strict=a_flag,
)
def recover(
    original: nn.Module,
    pruned: nn.Module | Mapping[str, Any],
    args: Any = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    weights: Mapping[str, Any] | None = None,
    least: float = 0.0,
    target: Target = "module",
    strict: bool = False,
) -> Recovered:
    """Find the plan that leads from a model to an already pruned one, by their tensors.

    Kept slices stand in their old order; they may have been trained since::

        found = planc.recover(original, torch.load("pruned.pt"), images)
        print(found)  # how sure it is
        smaller = planc.apply(found.plan, original)

    Args:
        original: the module before pruning.
        pruned: the pruned module, or its state dict.
        args, kwargs: example inputs of the original, as for :func:`planc.compile`.
        weights: the tensors of the original by name, if not those of the module.
        least: refuse a group of a lower confidence, between 0 and 1.
        target, strict: as for :func:`planc.compile`.

    Returns:
        The plan, with a confidence for each group.

    Raises:
        PolicyError: the pruned model is no result of a plan: a tensor is absent, a dimension that
            cannot shrink has another size, or no removal gives the shapes; or a group is less sure
            than ``least``. Names the tensor or the group.
        TraceError, AnalysisError: as for :func:`planc.compile`.
    """
    analysis = analyze(trace(original, args, kwargs), strict)
    specs = tensors_of(original)
    before = entries_of(specs, tensors_by_name(original) if weights is None else weights).own
    after = entries_of(specs, pruned).own  # type: ignore[arg-type]  # converted by _tensors
    own = "original" if weights is None else "weights"
    arrays = _arrays(analysis, before, own), _arrays(analysis, after, "pruned")
    both = arrays[0].keys() & arrays[1].keys()  # buffers outside of state dicts may be absent
    matching = Axes(analysis, *({n: t for n, t in a.items() if n in both} for a in arrays))
    matching.solve()
    index = analysis.grouping.index
    removed = index.removed(settled(matching.places, matching.gone))
    try:
        plan = write_plan(analysis, removed, target, "tensors", "recover")
    except PolicyError as error:
        raise PolicyError(f"pruned is no result of a plan for the original: {error}") from None
    difference = shape_difference(tensors_after(plan.tensors, plan.cuts), shapes_of(after))
    if difference is not None:
        raise PolicyError(f"pruned is no result of a plan for the original: {difference}")
    sure = matching.sure()
    groups = tuple(
        RecoveredGroup(group.name, len(group.removed), sure[g] if group.removed else 1.0)
        for g, group in enumerate(plan.groups)
    )
    for group in groups:
        if group.confidence < least:
            raise PolicyError(
                f"group {group.name}: its units are recovered with a confidence of "
                f"{group.confidence:.2f}, least is {least}; look at the plan without least="
            )
    return Recovered(plan, groups, _exact(plan, before, after))


def _exact(plan: Plan, before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    known = {name for spec in plan.tensors for name in spec.names}
    found = apply_state_dict(plan, {n: t for n, t in before.items() if n in known and n in after})
    return all(
        torch.equal(tensor.cpu(), after[name].detach().cpu())
        for name, tensor in found.items()
        if isinstance(tensor, torch.Tensor)
    )


def _arrays(analysis: Analysis, state: Mapping[str, Any], what: str) -> dict[str, NDArray[Any]]:
    """The tensors with prunable dimensions under their first names.

    Raises:
        PolicyError: a parameter is absent, or on the meta device.
    """
    wanted = {member.tensor for group in analysis.groups for member in group.members}
    found = {}
    for tensor in analysis.graph.tensors:
        own = next((state[name] for name in tensor.names if name in state), None)
        if tensor.name not in wanted or (own is None and tensor.kind == "buffer"):
            continue
        if not isinstance(own, torch.Tensor):
            raise PolicyError(f"{what} has no tensor {tensor.name}; give all tensors of the model")
        if own.is_meta:
            raise PolicyError(f"{what}: {tensor.name} is on the meta device; load its values first")
        plain = own.detach().abs() if own.is_complex() else own.detach()
        found[tensor.name] = plain.float().cpu().numpy()
    return found
