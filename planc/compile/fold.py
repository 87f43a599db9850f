"""Folding: what a unit adds to others for all inputs alike moves into their biases.

In: tensors of a model whose units may be constant, as a channel is whose scale is zero and whose
shift is not. Out: the tensors changed so that the model is equal to rounding, and these units, like
all others on which nothing depends, are zero. A constant that a padded convolution takes in is
another at the rim: then the unit stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from planc.analysis import Analysis
from planc.analysis.constants.products import CONVOLUTIONS, groups_of, transposed
from planc.analysis.constants.transfer import steady
from planc.analysis.constants.walk import Visit, base, overload, walk_constants
from planc.criteria.dead import Flags, Meeting, Units, contributions
from planc.ir.graph import Node, Ref, refs
from planc.ir.groups import Group, Member
from planc.ir.layers import whole

EVEN = 1e-12  # by how much a constant computed in double precision may differ from place to place


def fold_constants(analysis: Analysis, tensors: Mapping[str, Tensor]) -> None:
    """Folds constants into biases, and empties the units that nothing depends on, in place, until
    there are no more: what only such a unit has read is then read by none.
    """
    folding = _Folding(analysis, tensors)
    with torch.no_grad():
        while folding.step():
            pass


@dataclass(frozen=True, slots=True, eq=False)
class _Sum:
    """What channel ``channel`` adds to the results of a node; ``owners`` are its units."""

    owners: NDArray[np.int64]
    amount: NDArray[np.float64]
    tensor: str
    sign: int


class _Folding:
    def __init__(self, analysis: Analysis, tensors: Mapping[str, Tensor]) -> None:
        self.analysis, self.tensors = analysis, tensors
        # nothing is removed here: of the sizes that a module computes with, none changes
        self.units = Units(analysis, "graph")
        self.never = self.units.mixing.copy()
        self.never[-1] = True
        self.names = {t.value: t.name for t in analysis.graph.tensors}
        norms = (node for node in analysis.graph.nodes if base(node) == "batch_norm")
        self.divisors = {self.names.get(ref.id) for node in norms for ref in refs(node.args[4:5])}
        self.directions = whole((t.names, t.shape) for t in analysis.graph.tensors)
        self.uses: dict[int, list[int]] = {}
        for i, node in enumerate(analysis.graph.nodes):
            for ref in refs((node.args, node.kwargs_values)):
                self.uses.setdefault(ref.id, []).append(i)
        for value in analysis.graph.read_outside:
            self.uses.setdefault(value, []).append(-1)

    def step(self) -> bool:
        """Moves constants into biases, then empties units; whether that changed anything."""
        stays = self.never.copy()
        sums: list[_Sum] = []
        for visit in walk_constants(self.analysis, self.tensors):
            meeting = Meeting.of(self.analysis, self.units, visit)
            if meeting is None:
                for atoms, used in contributions(self.analysis, self.units, visit):
                    self.units.mark(stays, atoms, used)
            else:
                sums += self._meet(visit, meeting, stays)
        for found in sums:
            if not stays[found.owners].all():
                tensor = self.tensors[found.tensor]
                tensor += torch.from_numpy(found.sign * found.amount).to(tensor)
        return self._empty(~stays)

    def _meet(self, visit: Visit, meeting: Meeting, stays: Flags) -> Iterator[_Sum]:
        """The channels whose contribution is a constant that has a place to go to; the units of
        those whose contribution has none stay.
        """
        taken = [
            np.atleast_1d(meeting.contributed(atoms).any(axis=0)) for atoms in meeting.incoming
        ]
        place = self._place(visit.node, meeting)
        known = meeting.affine.known
        for atoms, used in zip(meeting.incoming, taken, strict=True):
            self.units.mark(stays, atoms, used if place is None else used & ~known)
        if place is None or not taken:
            return
        for channel in np.flatnonzero(np.any(taken, axis=0) & known).tolist():
            owners = np.array(
                [
                    self.units.of_atom[atoms[channel]]
                    for atoms, used in zip(meeting.incoming, taken, strict=True)
                    if used[channel]
                ]
            )
            amount = None if stays[owners].all() else _amount(visit, meeting, channel)
            if amount is None:
                stays[owners] = True
            else:
                yield _Sum(owners, amount, *place)

    def _place(self, node: Node, meeting: Meeting) -> tuple[str, int] | None:
        """The tensor that takes what is added to the results of a node, and with which sign."""
        bias = meeting.affine.bias
        if bias is not None:
            return self._own(bias, meeting)
        (ref,) = (ref for ref in node.outputs if ref is not None)
        uses = self.uses.get(ref.id, [])
        if len(uses) != 1 or uses[0] < 0:
            return None
        after = self.analysis.graph.nodes[uses[0]]
        if base(after) == "batch_norm" and after.args[0] == ref and after.args[5] is False:
            place = self._own(after.args[3], meeting)
            return None if place is None else (place[0], -1)
        last = meeting.affine.at == meeting.affine.x.value.dim() - 1
        if base(after) == "add" and last and len(after.args) == 2 and not after.kwargs:
            return self._own(after.args[1 if after.args[0] == ref else 0], meeting)
        return None

    def _own(self, ref: Any, meeting: Meeting) -> tuple[str, int] | None:
        """A vector over the results among the tensors, if only one node uses it."""
        if not isinstance(ref, Ref) or len(self.uses.get(ref.id, [])) != 1:
            return None
        name = self.names.get(ref.id)
        fits = self.analysis.graph.values[ref.id].shape == meeting.meets.shape[:1]
        return None if name is None or not fits else (name, 1)

    def _empty(self, emptied: Flags) -> bool:
        """Zeroes the tensors of units, whether that changed any."""
        changed = False
        flags = self.units.split(emptied.astype(np.float64))
        for group, gone in zip(self.analysis.groups, flags, strict=True):
            for part, dim, where in self._parts(group, gone > 0):
                if bool(part.index_select(dim, where).any()):
                    part.index_fill_(dim, where, 0)
                    changed = True
        return changed

    def _parts(self, group: Group, gone: Flags) -> Iterator[tuple[Tensor, int, Tensor]]:
        """Where the units ``gone`` of a group stand: in which part of a tensor, along which
        dimension, at which indices.
        """
        for member in group.members if gone.any() else ():
            direction = self.directions.get(member.tensor) == member.dim
            if direction or member.tensor in self.divisors:
                continue  # nothing is to be divided by zero
            units, indices = member.expand()
            part = _part(self.tensors[member.tensor], member)
            yield part, member.dim, torch.from_numpy(indices[gone[units]]).to(part.device)


def _part(tensor: Tensor, member: Member) -> Tensor:
    """The part of a tensor in which a member holds."""
    over = member.over
    return tensor if over is None else tensor.narrow(over.dim, over.start, over.stop - over.start)


def _amount(visit: Visit, meeting: Meeting, channel: int) -> NDArray[np.float64] | None:
    """What a known channel adds to each result, None where that depends on the place."""
    affine = meeting.affine
    x, weight, at = affine.x, affine.weight, affine.at
    value, taken = x.value.narrow(at, channel, 1).double(), weight.value.double()
    name = base(visit.node)
    if not weight.everywhere:
        return None
    if name not in CONVOLUTIONS:
        return _even(value * (taken[:, channel] if name == "linear" else taken[channel]), at)
    operator = overload(visit.node.op)
    if not steady(operator, visit.args):
        return None
    groups = groups_of(visit)
    results, channels = meeting.meets.shape
    out, inside = results // groups, channels // groups
    rows = slice(channel // inside * out, (channel // inside + 1) * out)
    if transposed(visit):
        some, rest = taken[channel : channel + 1], visit.args[3:4]
    else:
        some, rest = taken[rows, channel % inside : channel % inside + 1], visit.args[3:6]
    amount = _even(operator(value, some, None, *rest), at)
    if amount is None:
        return None
    every = np.zeros(results)
    every[rows] = amount
    return every


def _even(result: Tensor, at: int) -> NDArray[np.float64] | None:
    """The one value that each index of a dimension has everywhere, None if there are several."""
    lines = result.movedim(at, 0).flatten(1)
    low, high = lines.min(dim=1).values, lines.max(dim=1).values
    if bool((high - low > EVEN * lines.abs().max()).any()):
        return None
    found: NDArray[np.float64] = ((low + high) / 2).cpu().numpy()
    return found
