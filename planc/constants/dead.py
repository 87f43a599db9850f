"""Dead units: those that provably change nothing when they go.

A unit may go when, at every operator, what its coordinates contribute to other coordinates is zero
for every input. Operators that work coordinate by coordinate contribute nothing to others; in a
convolution or a linear layer either what comes in is zero or the weights that it meets are;
anything else needs what comes in to be zero. Units over which something is taken together (mixing
groups) are left alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planc.analysis import Analysis
from planc.constants.known import COORDINATEWISE, Known
from planc.constants.walk import Visit, base, walk_constants
from planc.criteria.scores import Weights
from planc.errors import PolicyError
from planc.grouping import PINNED
from planc.ir import Ref
from planc.labels import Labelled, Layer, dense

Flags = NDArray[np.bool_]
PerGroup = tuple[NDArray[np.float64], ...]


@dataclass(frozen=True, slots=True)
class Dead:
    """0 for each unit whose removal provably changes no output, 1 for the others.

    With :class:`planc.policy.Zeros` exactly those units go. The proof holds for activations that
    are finite, for the shapes that were traced, and for a model that is not training.
    """

    def __str__(self) -> str:
        return "dead"

    def __call__(self, analysis: Analysis, weights: Weights) -> PerGroup:
        if analysis.graph.training:
            raise PolicyError("units are dead in a model that is not training: call model.eval()")
        units = Units(analysis)
        alive = units.none()
        for visit in walk_constants(analysis, weights):
            for atoms, used in contributions(analysis, units, visit):
                units.mark(alive, atoms, used)
        return units.split(np.where(alive | units.mixing, 1.0, 0.0))


class Units:
    """All units of all groups in one row, by the atoms that they are made of."""

    def __init__(self, analysis: Analysis) -> None:
        grouping = analysis.grouping
        self._sizes = np.cumsum([group.size for group in analysis.groups])
        begins = np.append(0, self._sizes)[:-1]
        flat = begins[np.maximum(grouping.group, 0)] + grouping.unit if len(begins) else None
        total = int(self._sizes[-1]) if len(begins) else 0
        # what belongs to no group has a place of its own after all units
        self.of_atom = np.full(len(grouping.group), total, dtype=np.int64)
        if flat is not None:
            self.of_atom = np.where(grouping.group == PINNED, total, flat)
        self.mixing = self.none()
        for g, group in enumerate(analysis.groups):
            if group.mixing or analysis.mixing(g, "module"):
                self.mixing[begins[g] : begins[g] + group.size] = True

    def none(self) -> Flags:
        """No unit."""
        return np.zeros(int(self._sizes[-1]) + 1 if len(self._sizes) else 1, dtype=bool)

    def mark(self, flags: Flags, atoms: NDArray[np.int64], where: Flags) -> None:
        """Sets the flags of the units whose atoms stand ``where``."""
        atoms, where = np.broadcast_arrays(atoms, where)
        flags[self.of_atom[atoms[where]]] = True

    def split(self, values: NDArray[np.float64]) -> PerGroup:
        """Values of all units, group by group."""
        return tuple(np.split(values[:-1], self._sizes[:-1])) if len(self._sizes) else ()


def contributions(
    analysis: Analysis, units: Units, visit: Visit
) -> Iterator[tuple[NDArray[np.int64], Flags]]:
    """Atoms, with where what they label contributes to coordinates of other units."""
    name = base(visit.node)
    if visit.node.op.startswith("aten.") and name in COORDINATEWISE:
        return
    meeting = Meeting.of(analysis, units, visit)
    if meeting is not None:
        for atoms in meeting.incoming:
            yield atoms, np.atleast_1d(meeting.contributed(atoms).any(axis=0))
        return
    for ref, known in _tensors(visit):
        x = dense(analysis.walked.labels[ref.id])
        if x.layers:
            maybe = known.maybe.cpu().numpy()
            for layer in x.layers:
                # along other dimensions than those that are summed, coordinates stay apart
                if name not in ("sum", "mean") or _summed(visit, x, layer):
                    yield layer.atoms, maybe


def _summed(visit: Visit, x: Labelled, layer: Layer) -> bool:
    dims = visit.args[1] if len(visit.args) > 1 else None
    if isinstance(dims, int):
        dims = (dims,)
    if not isinstance(dims, tuple) or not dims:
        return True
    return any(layer.atoms.shape[dim % x.rank] > 1 for dim in dims)


def _tensors(visit: Visit) -> Iterator[tuple[Ref, Known]]:
    """The tensors among the arguments of a node, with what is known of them."""
    pairs = [
        (visit.node.args, visit.args),
        (visit.node.kwargs_values, tuple(visit.kwargs.values())),
    ]
    while pairs:
        argument, known = pairs.pop()
        if isinstance(argument, Ref):
            yield argument, known
        elif isinstance(argument, tuple):
            pairs += zip(argument, known, strict=True)


@dataclass(frozen=True, slots=True, eq=False)
class Meeting:
    """Where channels that come into a convolution or a linear layer meet its weights.

    ``incoming`` are the atoms of each channel and ``outgoing`` those of each result, one row for
    each layer of labels; ``meets[o, c]`` says whether result o takes from channel c what may not be
    zero.
    """

    units: Units
    incoming: NDArray[np.int64]
    outgoing: NDArray[np.int64]
    meets: Flags

    @staticmethod
    def of(analysis: Analysis, units: Units, visit: Visit) -> Meeting | None:
        """None where the operator is another, or labels are not those of channels."""
        name = base(visit.node)
        if name not in ("conv1d", "conv2d", "conv3d", "linear") or visit.kwargs:
            return None
        x, weight = visit.args[0], visit.args[1]
        rank, linear = x.value.dim(), name == "linear"
        at = rank - 1 if linear else 1
        if not linear and rank != weight.value.dim():
            return None  # an image without a batch
        labels = analysis.walked.labels
        ends = (visit.node.args[0], visit.node.outputs[0])
        rows = [_channels(labels[ref.id], at) for ref in ends if ref is not None]
        if rows[0] is None or rows[1] is None:
            return None
        others = [d for d in range(rank) if d != at]
        channels = (x.maybe.any(dim=others) if others else x.maybe).cpu().numpy()
        taken = weight.maybe if linear else weight.maybe.flatten(2).any(dim=2)
        spread = _spread(taken.cpu().numpy(), 1 if linear else groups_of(visit))
        return Meeting(units, rows[0], rows[1], spread & channels)

    def contributed(self, atoms: NDArray[np.int64]) -> Flags:
        """``meets`` without the results that leave with the channel, by one layer's ``atoms``."""
        own = self.units.of_atom[atoms]
        leaves = np.zeros_like(self.meets)
        for results in self.outgoing:
            leaves |= self.units.of_atom[results][:, None] == own
        found: Flags = self.meets & ~leaves
        return found


def groups_of(visit: Visit) -> int:
    """The groups of a convolution."""
    return int(visit.args[6]) if len(visit.args) > 6 else 1


def _channels(x: Labelled, at: int) -> NDArray[np.int64] | None:
    """The atoms along a dimension, a row for each layer; None if they depend on another one."""
    rows = []
    for layer in dense(x).layers:
        along = layer.atoms.shape[at] > 1
        if layer.ragged or (along and layer.target != at):
            return None
        if layer.target == at:
            rows.append(layer.atoms.reshape(-1))
    return np.stack(rows) if rows else np.zeros((0, x.shape[at]), dtype=np.int64)


def _spread(taken: Flags, groups: int) -> Flags:
    """The weights of a convolution in groups, spread over all channels: [out, in]."""
    out, inside = taken.shape
    spread = np.zeros((out, inside * groups), dtype=bool)
    for i in range(groups):
        rows = slice(i * (out // groups), (i + 1) * (out // groups))
        spread[rows, i * inside : (i + 1) * inside] = taken[rows]
    return spread
