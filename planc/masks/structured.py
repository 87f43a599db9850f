"""Structured masks as plans: remove the units covered by masks, and report the rest with reasons.

A unit may be removed if the model computes the same without it. Not every member of the unit has to
be zero: in a sum over the unit, one zero factor in each product suffices. The rules state for each
operator which results are zero for zero operands (:class:`planc.rules.labels.Layer`). The graph is
walked again with only the zero members marked, which shows if the removal of a unit is noticed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from planc.analysis import Analysis, analyze
from planc.analysis.grouping import PINNED
from planc.analysis.walk import walk_with_values
from planc.apply.replay import vanished
from planc.compile.select import Target, write_plan
from planc.criteria.dead import Dead
from planc.errors import PolicyError
from planc.masks.choose import matching
from planc.masks.covered import Covered, Flags, Zeros, covered_atoms
from planc.masks.elements import zeroed
from planc.masks.hooks import hidden
from planc.modules.given import module
from planc.modules.hooks import masked_tensors, values_as_used
from planc.modules.tables import tensors_of
from planc.plan.arguments import a_flag, optional, options, some_patterns, takes
from planc.plan.masks import MaskPlan, check_masked, mask_plan, masks_given
from planc.plan.plan import Plan
from planc.policy.feasible import feasible
from planc.trace import trace


@dataclass(frozen=True, slots=True)
class Refused:
    """Units of a group, or indices of a pinned dimension, covered by a mask but kept.

    Attributes:
        name: the group's name, or "tensor:dim" for a pinned dimension.
        units: the unit or dimension indices.
        reason: the reason in words.
    """

    name: str
    units: tuple[int, ...]
    reason: str

    def __str__(self) -> str:
        shown = ", ".join(map(str, self.units[:8])) + (", ..." if len(self.units) > 8 else "")
        return f"{self.name} [{shown}]: {self.reason}"


@dataclass(frozen=True, slots=True)
class FromMasks:
    """Result of :func:`from_masks`.

    Attributes:
        plan: the plan removing the covered units.
        rest: the remaining masked elements, in the indices of the original model;
            :func:`planc.masks.after` translates them to the result.
        refused: whole units among the remaining elements, with reasons.
    """

    plan: Plan
    rest: MaskPlan
    refused: tuple[Refused, ...]

    def __str__(self) -> str:
        removed = sum(len(group.removed) for group in self.plan.groups)
        lines = [
            f"{removed} masked units can go; {self.rest.removed} masked elements stay as zeros",
            *map(str, self.refused),
        ]
        return "\n".join(lines)


@takes(
    model=module,
    masks=optional(masks_given),
    assume_zero=some_patterns,
    target=options("module", "graph", error=PolicyError),
    strict=a_flag,
)
def from_masks(
    model: nn.Module,
    args: Any = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    masks: MaskPlan | None = None,
    assume_zero: Sequence[str] = (),
    target: Target = "module",
    strict: bool = False,
) -> FromMasks:
    """Return the plan removing the units covered by masks, and the masks without a structured form.

    A unit is removed if a mask covers it in at least one tensor, and the model computes the same
    without it: ``planc.apply(plan, model)`` gives the outputs of ``model`` (with ``masks``
    applied). To this end, all contributions of the unit to sums must be zero, by masks or by
    values: the weights producing it and the shifts after them, or all weights reading it, or the
    activation's result from the two. A shift behind masked weights may remain as a constant, and
    keeps the unit; :func:`planc.fold` moves constants into biases if possible::

        folded = planc.fold(planc.bake(model), args)
        planc.from_masks(folded, args, masks=planc.masks.read(model))

    Args:
        model: the module.
        args, kwargs: example inputs, as for :func:`planc.compile`.
        masks: a mask plan for the model; by default the model's masks of torch.nn.utils.prune.
        assume_zero: patterns of tensors, such as biases and norms, taken as masked wherever other
            tensors of a unit are. The outputs are then those of the model with zeros there too.
        target, strict: as for :func:`planc.compile`.

    Returns:
        The plan, the remaining masks and the refused units.

    Raises:
        PolicyError: there are no masks, a pattern matches nothing, or a weight is not finite.
        StalePlan: the mask plan was made for another model.
        TraceError, AnalysisError: as for :func:`planc.compile`.
    """
    tensors = tensors_of(model)
    if masks is None:
        hooked = masked_tensors(model)
        if not hooked:
            raise PolicyError(
                f"{type(model).__name__} carries no masks of torch.nn.utils.prune: prune it so, or "
                "give a mask plan with masks="
            )
        masks = mask_plan(tensors, {masked.original: hidden(masked) for masked in hooked})
    check_masked(masks, tensors)
    assumed = {name for pattern in assume_zero for name in matching(tensors, pattern)}
    analysis = analyze(trace(model, args, kwargs), strict)
    zeros = Zeros(masks, _as_masked(masks, values_as_used(model)), assumed)
    covered = Covered(analysis, masks, zeros)
    exact, refused = _exact(analysis, covered, target, zeros.values)
    removed, kept_back = _allowed(analysis, exact, target)
    plan = write_plan(analysis, removed, target, "masks", "from_masks")
    gone = analysis.gone(removed)
    labels = {t.name: analysis.walked.labels[t.value] for t in analysis.graph.tensors}
    rest = {
        mask.tensor: masks.elements(mask.tensor) & ~vanished(labels[mask.tensor], gone)
        for mask in masks.masks
    }
    found = (*refused, *kept_back, *_pinned(analysis, masks))
    return FromMasks(plan, mask_plan(masks.tensors, rest, masks.provenance), found)


def _as_masked(masks: MaskPlan, values: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    """Return the values with zeros at masked elements; those on the meta device are unchanged."""
    return dict(values) | {
        name: zeroed(values[name], masks.elements(name))
        for mask in masks.masks
        for name in masks.specs[mask.tensor].names
        if not values[name].is_meta
    }


@dataclass(frozen=True, slots=True)
class _Question:
    """Units of a group with nonzero members in the slots ``nonzero``: removable if unnoticed."""

    group: int
    units: tuple[int, ...]
    slots: frozenset[int]
    nonzero: frozenset[int]


def _exact(
    analysis: Analysis, covered: Covered, target: Target, values: Mapping[str, torch.Tensor]
) -> tuple[dict[int, Flags], list[Refused]]:
    """Return the removable candidates of each group, and the reasons for keeping the others.

    If zeros alone do not decide, the values may, as with a negative shift before a ReLU.
    """
    exact: dict[int, Flags] = {}
    refused: list[Refused] = []
    waiting: list[_Question] = []
    for g, candidates in sorted(covered.candidates.items()):
        exact[g] = np.zeros_like(candidates)
        units = np.flatnonzero(candidates)
        mixing = analysis.mixing(g, target)
        if mixing:
            reason = f"removing is not zeroing: {mixing}"
            refused.append(Refused(analysis.groups[g].name, tuple(units.tolist()), reason))
            continue
        slots = sorted(covered.slots[g])
        patterns = np.stack([covered.slots[g][s][units] for s in slots])
        kinds, kind_of = np.unique(patterns, axis=1, return_inverse=True)
        for k in range(kinds.shape[1]):
            nonzero = frozenset(s for s, zero in zip(slots, kinds[:, k], strict=True) if not zero)
            alike = tuple(units[kind_of.reshape(-1) == k].tolist())
            if nonzero:
                waiting.append(_Question(g, alike, frozenset(slots), nonzero))
            else:
                exact[g][list(alike)] = True
    doubtful: list[tuple[_Question, str]] = []
    while waiting:
        asked, waiting = _apart(waiting)
        reasons = _noticed(analysis, asked, target)
        for question in asked:
            if question.group not in reasons:
                exact[question.group][list(question.units)] = True
            else:
                doubtful.append((question, reasons[question.group]))
    if doubtful and not analysis.graph.training:
        alive = Dead(target)(analysis, values)
        for question, _ in doubtful:
            units = np.array(question.units)
            exact[question.group][units[alive[question.group][units] == 0]] = True
    for question, reason in doubtful:
        stays = tuple(unit for unit in question.units if not exact[question.group][unit])
        if stays:
            refused.append(_refusal(analysis, replace(question, units=stays), reason))
    return exact, refused


def _apart(waiting: Sequence[_Question]) -> tuple[list[_Question], list[_Question]]:
    """Split questions into those answered by one walk, which share no slot, and the others."""
    asked: list[_Question] = []
    later: list[_Question] = []
    taken: set[int] = set()
    for question in waiting:
        if taken & question.slots:
            later.append(question)
        else:
            taken |= question.slots
            asked.append(question)
    return asked, later


def _noticed(analysis: Analysis, asked: Sequence[_Question], target: Target) -> dict[int, str]:
    """Return the groups whose removal the rest of the model notices, with reasons."""
    nonzero = frozenset[int]().union(*(question.nonzero for question in asked))
    facts = walk_with_values(analysis.graph, analysis.walked, nonzero)
    reasons: dict[int, str] = {}
    for note in facts.mixings:
        if not (note.module_only and target == "graph"):
            where = f" in {analysis.graph.nodes[note.node]}" if note.node >= 0 else ""
            for g in np.unique(analysis.grouping.group[note.atoms]).tolist():
                reasons.setdefault(g, note.reason + where)
    return reasons


def _refusal(analysis: Analysis, question: _Question, reason: str) -> Refused:
    slots = analysis.walked.facts.slots
    names = dict.fromkeys(
        analysis.graph.tensors[slots[s].tensor].name for s in sorted(question.nonzero)
    )
    return Refused(
        analysis.groups[question.group].name,
        question.units,
        f"not zero there: {', '.join(names)}; {reason}",
    )


def _allowed(
    analysis: Analysis, exact: Mapping[int, Flags], target: Target
) -> tuple[tuple[tuple[int, ...], ...], list[Refused]]:
    """Return the units removed within the model's constraints, and those held back by them."""
    groups = analysis.groups
    wanted = [group.cells for group in groups]
    for g, units in exact.items():
        fewest = int(units.reshape(groups[g].rows, groups[g].cells).sum(axis=1).min())
        wanted[g] = max(groups[g].cells - fewest, 1)
    counts = feasible(analysis, analysis.equations(target), tuple(wanted))
    removed: list[tuple[int, ...]] = [() for _ in groups]
    refused = []
    for g, units in exact.items():
        rows, cells = groups[g].rows, groups[g].cells
        table = units.reshape(rows, cells)
        goes = table & (np.cumsum(table, axis=1) <= cells - counts[g])
        removed[g] = tuple(np.flatnonzero(goes.reshape(-1)).tolist())
        stays = tuple(np.flatnonzero((table & ~goes).reshape(-1)).tolist())
        if stays:
            equal = "; every row loses equally many" if rows > 1 else ""
            reason = f"the model must keep {counts[g]} of {cells}{equal}"
            refused.append(Refused(groups[g].name, stays, reason))
    return tuple(removed), refused


def _pinned(analysis: Analysis, masks: MaskPlan) -> list[Refused]:
    """Return the indices of pinned dimensions covered by masks."""
    reasons = {(pin.tensor, pin.dim): pin.reason for pin in analysis.pins}
    refused = []
    for slot in analysis.walked.facts.slots:
        tensor = analysis.graph.tensors[slot.tensor]
        reason = reasons.get((tensor.name, slot.dim))
        if tensor.name in masks.by_name and slot.rows is None and slot.blocks == 1 and reason:
            covered = covered_atoms(slot, masks.elements(tensor.name))
            covered &= analysis.grouping.group[slot.first : slot.first + slot.count] == PINNED
            if covered.any():
                indices = tuple(np.flatnonzero(covered).tolist())
                refused.append(Refused(f"{tensor.name}:{slot.dim}", indices, f"pinned: {reason}"))
    return refused
