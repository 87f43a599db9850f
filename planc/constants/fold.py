"""Folding: what a unit adds to others for all inputs alike moves into their biases.

In: a model whose units may be constant, as a channel is whose scale is zero and whose shift is not.
Out: a model of the same structure, equal to rounding, in which these units are zero and nothing
depends on them. A constant that a padded convolution takes in is another at the borders: then the
unit stays as it is.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from planc.analysis import Analysis
from planc.constants.dead import Meeting, Units, contributions, groups_of
from planc.constants.walk import Visit, base, overload, walk_constants
from planc.ir import Ref, refs

EVEN = 1e-12  # by how much a constant computed in double precision may differ from place to place


def folded(analysis: Analysis, model: nn.Module) -> nn.Module:
    """A copy of the model that was analysed in which constants have been folded into biases."""
    result = copy.deepcopy(model)
    tensors = {
        **dict(result.named_parameters(remove_duplicate=False)),
        **dict(result.named_buffers(remove_duplicate=False)),
    }
    with torch.no_grad():
        _Folding(analysis, tensors).write()
    return result


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
        self.units = Units(analysis)
        self.stays = self.units.none()
        self.stays[-1] = True
        self.sums: list[_Sum] = []
        self.names = {t.value: t.name for t in analysis.graph.tensors}
        self.uses: dict[int, list[int]] = {}
        for i, node in enumerate(analysis.graph.nodes):
            for ref in refs((node.args, node.kwargs_values)):
                self.uses.setdefault(ref.id, []).append(i)
        for ref in analysis.graph.outputs:
            self.uses.setdefault(ref.id, []).append(-1)

    def write(self) -> None:
        """Moves constants into biases, then empties the units they came from."""
        for visit in walk_constants(self.analysis, self.tensors):
            meeting = Meeting.of(self.analysis, self.units, visit)
            if meeting is None:
                for atoms, used in contributions(self.analysis, self.units, visit):
                    self.units.mark(self.stays, atoms, used)
            else:
                self._meet(visit, meeting)
        goes = ~(self.stays | self.units.mixing)
        emptied = self.units.none()
        for found in self.sums:
            owners = found.owners[goes[found.owners]]
            if len(owners):
                emptied[owners] = True
                tensor = self.tensors[found.tensor]
                tensor += torch.from_numpy(found.sign * found.amount).to(tensor)
        self._empty(emptied)

    def _meet(self, visit: Visit, meeting: Meeting) -> None:
        """Notes the channels whose contribution is a constant that has a place to go to."""
        taken = [
            np.atleast_1d(meeting.contributed(atoms).any(axis=0)) for atoms in meeting.incoming
        ]
        place = self._place(visit)
        known = _known_channels(visit)
        for atoms, used in zip(meeting.incoming, taken, strict=True):
            self.units.mark(self.stays, atoms, used if place is None else used & ~known)
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
            amount = None if self.stays[owners].all() else _amount(visit, channel)
            if amount is None:
                self.stays[owners] = True
            else:
                self.sums.append(_Sum(owners, amount, *place))

    def _place(self, visit: Visit) -> tuple[str, int] | None:
        """The tensor that takes what is added to the results of a node, and with which sign."""
        nodes = self.analysis.graph.nodes
        if self._own(visit.node.args[1]) is None:
            return None
        bias = visit.node.args[2] if len(visit.node.args) > 2 else None
        if isinstance(bias, Ref):
            name = self._own(bias)
            return None if name is None else (name, 1)
        (ref,) = (ref for ref in visit.node.outputs if ref is not None)
        uses = self.uses.get(ref.id, [])
        if len(uses) != 1 or uses[0] < 0:
            return None
        after = nodes[uses[0]]
        if base(after) != "batch_norm" or after.args[0] != ref or after.args[5] is not False:
            return None
        name = self._own(after.args[3])
        return None if name is None else (name, -1)

    def _own(self, ref: Any) -> str | None:
        """The name of a parameter or buffer that only one node uses."""
        if not isinstance(ref, Ref) or len(self.uses.get(ref.id, [])) != 1:
            return None
        return self.names.get(ref.id)

    def _empty(self, emptied: NDArray[np.bool_]) -> None:
        """Zeroes the parameters of units."""
        flags = self.units.split(emptied.astype(np.float64))
        for group, gone in zip(self.analysis.groups, flags, strict=True):
            for member in group.members if gone.any() else ():
                tensor = self.tensors[member.tensor]
                if not isinstance(tensor, nn.Parameter):
                    continue
                units, indices = member.expand()
                where = torch.from_numpy(indices[gone[units] > 0]).to(tensor.device)
                part: Tensor = tensor
                if member.over is not None:
                    over = member.over
                    part = tensor.narrow(over.dim, over.start, over.stop - over.start)
                part.index_fill_(member.dim, where, 0)


def _known_channels(visit: Visit) -> NDArray[np.bool_]:
    """The channels that come into a node and are the same for all inputs."""
    x = visit.args[0].known
    at = x.dim() - 1 if base(visit.node) == "linear" else 1
    others = [d for d in range(x.dim()) if d != at]
    known: NDArray[np.bool_] = (x.all(dim=others) if others else x).cpu().numpy()
    return known


def _amount(visit: Visit, channel: int) -> NDArray[np.float64] | None:
    """What a known channel adds to each result, None where that depends on the place."""
    x, weight = visit.args[0], visit.args[1]
    linear = base(visit.node) == "linear"
    at = x.value.dim() - 1 if linear else 1
    value, taken = x.value.narrow(at, channel, 1).double(), weight.value.double()
    if linear:
        return _even(value * taken[:, channel], at)
    groups = groups_of(visit)
    out, inside = taken.shape[0] // groups, taken.shape[1]
    rows = slice(channel // inside * out, (channel // inside + 1) * out)
    some = taken[rows, channel % inside : channel % inside + 1]
    result = overload(visit.node.op)(value, some, None, *visit.args[3:6])
    amount = _even(result, at)
    if amount is None:
        return None
    every = np.zeros(taken.shape[0])
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
