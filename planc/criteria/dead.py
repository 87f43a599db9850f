"""Dead units: those that provably change nothing when they go.

A unit may go when, at every operator, what its coordinates contribute to other coordinates is zero
for every input. Where the labels go on to a result, coordinates stay apart, and contribute nothing
to others; where they end, something is taken together (:meth:`planc.facts.Facts.end`): in a product
one factor of each term must be zero, anything else needs what comes in to be zero. Units over which
something else than sums is taken together (mixing groups) are left alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from planc.analysis import Analysis
from planc.analysis.constants.known import Known
from planc.analysis.constants.products import Affine, factors
from planc.analysis.constants.recurrent import parameters, recurrent
from planc.analysis.constants.walk import Visit, walk_constants
from planc.criteria.scores import Weights
from planc.errors import PolicyError
from planc.ir.graph import Ref
from planc.rules import find
from planc.rules.labels import Labelled, dense

Flags = NDArray[np.bool_]
Atoms = NDArray[np.int64]
PerGroup = tuple[NDArray[np.float64], ...]


@dataclass(frozen=True, slots=True)
class Dead:
    """0 for each unit whose removal in a plan for ``target`` ("module" or "graph") provably changes
    no output, 1 for the others.

    With :class:`planc.policy.Zeros` exactly those units go. The proof holds for activations that
    are finite, for the shapes that were traced, and for a model that is not training.
    """

    target: str = "module"

    def __str__(self) -> str:
        return "dead"

    def __call__(self, analysis: Analysis, weights: Weights) -> PerGroup:
        if analysis.graph.training:
            raise PolicyError("units are dead in a model that is not training: call model.eval()")
        units = Units(analysis, self.target)
        alive = units.none()
        for visit in walk_constants(analysis, weights):
            for atoms, used in contributions(analysis, units, visit):
                units.mark(alive, atoms, used)
        return units.split(np.where(alive | units.mixing, 1.0, 0.0))


class Units:
    """All units of all groups in one row, by the atoms that they are made of; ``mixing`` are those
    that a plan for ``target`` cannot remove as if they were zero.
    """

    def __init__(self, analysis: Analysis, target: str) -> None:
        # what belongs to no group has a place of its own after all units
        index = analysis.grouping.index
        self._offsets, self.of_atom = index.offsets, index.of_atom
        self.mixing = self.none()
        for g in range(len(analysis.groups)):
            if analysis.mixing(g, target):
                self.mixing[self._offsets[g] : self._offsets[g + 1]] = True
        self._ending: dict[int, list[NDArray[np.int64]]] = {}
        for atoms, node in analysis.walked.facts.ended:
            self._ending.setdefault(node, []).append(self.of_atom[atoms].reshape(-1))

    def none(self) -> Flags:
        """No unit."""
        return np.zeros(int(self._offsets[-1]) + 1, dtype=bool)

    def ending(self, node: int) -> Flags | None:
        """The units with labels that end at a node, None if there are none."""
        if node not in self._ending:
            return None
        found = self.none()
        for units in self._ending[node]:
            found[units] = True
        return found

    def mark(self, flags: Flags, atoms: NDArray[np.int64], where: Flags) -> None:
        """Sets the flags of the units whose atoms stand ``where``."""
        atoms, where = np.broadcast_arrays(atoms, where)
        flags[self.of_atom[atoms[where]]] = True

    def split(self, values: NDArray[np.float64]) -> PerGroup:
        """Values of all units, group by group."""
        return tuple(values[i:j] for i, j in pairwise(self._offsets))


def contributions(analysis: Analysis, units: Units, visit: Visit) -> Iterator[tuple[Atoms, Flags]]:
    """Atoms, with where what they label contributes to coordinates of other units.

    Of an operator with a rule of the user's own nothing is understood but the labels.
    """
    ending = units.ending(visit.index)
    rule = find(visit.node.op)
    understood = rule is not None and rule.__module__.startswith("planc.rules.")
    if understood and ending is None:
        return
    labels = analysis.walked.labels
    meeting = Meeting.of(analysis, units, visit)
    if meeting is not None:
        for atoms in meeting.incoming:
            yield atoms, np.atleast_1d(meeting.contributed(atoms).any(axis=0))
        return
    layers = recurrent(visit.node.op, visit.args) if not visit.kwargs else None
    if layers is not None:
        weights = parameters(visit.node.args)
        for at, used in layers.reads():
            yield from _apart(units, labels[weights[at].id], used.cpu().numpy())
        return
    product = factors(visit)
    if product is not None:
        for factor in product:
            for layer in dense(labels[factor.ref.id]).layers:
                if layer.target in factor.summed:
                    yield layer.atoms, factor.meets
        return
    for ref, known in _tensors(visit):
        x = dense(labels[ref.id])
        if x.layers:
            maybe = known.maybe.cpu().numpy()
            for layer in x.layers:
                ends = ending[units.of_atom[layer.atoms]] if ending is not None else False
                yield layer.atoms, maybe & ends if understood else maybe


def _apart(units: Units, weight: Labelled, used: Flags) -> Iterator[tuple[Atoms, Flags]]:
    """Where the columns of a matrix contribute to rows of other units than theirs."""
    weight = dense(weight)
    rows = [units.of_atom[layer.atoms] for layer in weight.targeting(0)]
    for layer in weight.targeting(1):
        own = units.of_atom[layer.atoms]
        yield layer.atoms, used & ~np.any([own == row for row in rows], axis=0) if rows else used


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
    affine: Affine
    incoming: Atoms
    outgoing: Atoms
    meets: Flags

    @staticmethod
    def of(analysis: Analysis, units: Units, visit: Visit) -> Meeting | None:
        """None where the operator is another, or labels are not those of channels."""
        affine = Affine.of(visit)
        if affine is None or visit.node.outputs[0] is None:
            return None
        labels = analysis.walked.labels
        incoming = _channels(labels[affine.source.id], affine.at)
        outgoing = _channels(labels[visit.node.outputs[0].id], affine.at)
        if incoming is None or outgoing is None:
            return None
        return Meeting(units, affine, incoming, outgoing, affine.meets)

    def contributed(self, atoms: Atoms) -> Flags:
        """``meets`` without the results that leave with the channel, by one layer's ``atoms``."""
        own = self.units.of_atom[atoms]
        leaves = np.zeros_like(self.meets)
        for results in self.outgoing:
            leaves |= self.units.of_atom[results][:, None] == own
        found: Flags = self.meets & ~leaves
        return found


def _channels(x: Labelled, at: int) -> Atoms | None:
    """The atoms along a dimension, a row for each layer; None if they depend on another one."""
    rows = []
    for layer in dense(x).layers:
        along = layer.atoms.shape[at] > 1
        if layer.ragged or (along and layer.target != at):
            return None
        if layer.target == at:
            rows.append(layer.atoms.reshape(-1))
    return np.stack(rows) if rows else np.zeros((0, x.shape[at]), dtype=np.int64)
