"""Folding: constant contributions of units move into the biases of later operators.

Units may be constant, such as a channel with scale zero and a nonzero shift. Folding changes the
tensors of a model so that its outputs stay equal up to rounding and these units, like all others
without an effect, become zero. A constant entering a padded convolution has another sum at the rim;
its unit stays unchanged.
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
from planc.analysis.constants.products import groups_of
from planc.analysis.constants.views import base
from planc.analysis.constants.walk import Visit, overload, walk_constants
from planc.analysis.constants.weighted import steady
from planc.criteria.dead import Flags, Meeting, Units, contributions
from planc.ir.graph import Node, Ref, refs
from planc.ir.groups import Group, Member
from planc.ir.layers import whole

EVEN = 1e-12  # tolerated relative spread of a constant over places, in double precision


def fold_constants(analysis: Analysis, tensors: Mapping[str, Tensor]) -> None:
    """Fold constants into biases and zero the units without an effect, in place, repeating until
    nothing changes: units read only by such units then have no effect either.
    """
    folding = _Folding(analysis, tensors)
    with torch.no_grad():
        while folding.step():
            pass


@dataclass(frozen=True, slots=True, eq=False)
class _Sum:
    """The constant added by one channel to the results of a node; ``owners`` are its units."""

    owners: NDArray[np.int64]
    amount: NDArray[np.float64]
    tensor: str
    sign: int


class _Folding:
    def __init__(self, analysis: Analysis, tensors: Mapping[str, Tensor]) -> None:
        self.analysis, self.tensors = analysis, tensors
        # nothing is removed here, so no size used by a module changes
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
        """Move constants into biases, then zero units. True if that changed anything."""
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
        """The channels with a constant contribution and a bias to take it. Mark the units of the
        others in ``stays``.
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
        """The tensor added to the results of a node, with the sign of the addition."""
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
        """The name and sign of a vector over the results, if it is a tensor used by one node."""
        if not isinstance(ref, Ref) or len(self.uses.get(ref.id, [])) != 1:
            return None
        name = self.names.get(ref.id)
        fits = self.analysis.graph.values[ref.id].shape == meeting.meets.shape[:1]
        return None if name is None or not fits else (name, 1)

    def _empty(self, emptied: Flags) -> bool:
        """Zero the tensors of units. True if that changed any."""
        changed = False
        flags = self.units.split(emptied.astype(np.float64))
        for group, gone in zip(self.analysis.groups, flags, strict=True):
            for part, dim, where in self._parts(group, gone > 0):
                if bool(part.index_select(dim, where).any()):
                    part.index_fill_(dim, where, 0)
                    changed = True
        return changed

    def _parts(self, group: Group, gone: Flags) -> Iterator[tuple[Tensor, int, Tensor]]:
        """The tensor part, dimension and indices of the units ``gone`` of a group, member by
        member.
        """
        for member in group.members if gone.any() else ():
            direction = self.directions.get(member.tensor) == member.dim
            if direction or member.tensor in self.divisors:
                continue  # avoid a division by zero
            units, indices = member.expand()
            part = _part(self.tensors[member.tensor], member)
            yield part, member.dim, torch.from_numpy(indices[gone[units]]).to(part.device)


def _part(tensor: Tensor, member: Member) -> Tensor:
    """The part of a tensor covered by a member."""
    over = member.over
    return tensor if over is None else tensor.narrow(over.dim, over.start, over.stop - over.start)


def _amount(visit: Visit, meeting: Meeting, channel: int) -> NDArray[np.float64] | None:
    """The addition of a known channel to each result, None if it depends on the place."""
    affine = meeting.affine
    x, weight, at = affine.x, affine.weight, affine.at
    value, taken = x.value.narrow(at, channel, 1).double(), weight.value.double()
    form = affine.form
    if not weight.everywhere:
        return None
    if not form.convolution:
        return _even(value * (taken[channel] if form.transposed else taken[:, channel]), at)
    operator = overload(visit.node.op)
    if not steady(operator, visit.args):
        return None
    groups = groups_of(visit)
    results, channels = meeting.meets.shape
    out, inside = results // groups, channels // groups
    rows = slice(channel // inside * out, (channel // inside + 1) * out)
    if form.transposed:
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
    """The value of each index of a dimension if it is equal everywhere, else None."""
    lines = result.movedim(at, 0).flatten(1)
    low, high = lines.min(dim=1).values, lines.max(dim=1).values
    if bool((high - low > EVEN * lines.abs().max()).any()):
        return None
    found: NDArray[np.float64] = ((low + high) / 2).cpu().numpy()
    return found
