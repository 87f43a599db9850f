"""Dead units: units with a proof that their removal changes nothing.

A unit may be removed if, at every operator, its coordinates contribute zero to coordinates of other
units for every input. Where labels continue to a result, coordinates stay separate and contribute
nothing to others. Where labels end, coordinates are combined
(:meth:`planc.rules.labels.facts.Facts.end`): in a product one factor of each term must be zero, any
other operator requires operands of zero. Units combined other than by sums (mixing groups) are
never dead.
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
from planc.rules import find, is_builtin
from planc.rules.labels import Labelled, dense

Flags = NDArray[np.bool_]
Atoms = NDArray[np.int64]
PerGroup = tuple[NDArray[np.float64], ...]


@dataclass(frozen=True, slots=True)
class Dead:
    """Criterion: 0 for each unit with a proof that its removal changes no output, 1 for the others.

    ``target`` is "module" or "graph", the target of the plan. :class:`planc.policy.Zeros` removes
    exactly the units of score 0. The proof holds for finite activations, for the traced shapes, and
    for a model in evaluation mode.

    Raises:
        PolicyError: when called, if the analysed graph is in training mode.
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
    """All units of all groups in one row, looked up by their atoms. ``mixing`` are the units whose
    removal in a plan for ``target`` differs from zeroing them.
    """

    def __init__(self, analysis: Analysis, target: str) -> None:
        # atoms of no group share one extra place after all units
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
        """The units with labels ending at a node, None if there are none."""
        if node not in self._ending:
            return None
        found = self.none()
        for units in self._ending[node]:
            found[units] = True
        return found

    def mark(self, flags: Flags, atoms: NDArray[np.int64], where: Flags) -> None:
        """Set the flags of the units with atoms at True places of ``where``."""
        atoms, where = np.broadcast_arrays(atoms, where)
        flags[self.of_atom[atoms[where]]] = True

    def split(self, values: NDArray[np.float64]) -> PerGroup:
        """Values of all units, group by group."""
        return tuple(values[i:j] for i, j in pairwise(self._offsets))


def contributions(analysis: Analysis, units: Units, visit: Visit) -> Iterator[tuple[Atoms, Flags]]:
    """Yield atoms with the places where their coordinates contribute to other units.

    For an operator with a user's rule, only the labels are understood.
    """
    ending = units.ending(visit.index)
    rule = find(visit.node.op)
    understood = rule is not None and is_builtin(rule)
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
    """Places where columns of a matrix contribute to rows of other units."""
    weight = dense(weight)
    rows = [units.of_atom[layer.atoms] for layer in weight.targeting(0)]
    for layer in weight.targeting(1):
        own = units.of_atom[layer.atoms]
        yield layer.atoms, used & ~np.any([own == row for row in rows], axis=0) if rows else used


def _tensors(visit: Visit) -> Iterator[tuple[Ref, Known]]:
    """The tensors among the arguments of a node, with their known values."""
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
    """The channels entering a convolution or a linear layer, and its weights. ``incoming`` are the
    atoms of each channel and ``outgoing`` those of each result, one row for each layer of labels.
    ``meets[o, c]`` is True if channel c may add a nonzero value to result o.
    """

    units: Units
    affine: Affine
    incoming: Atoms
    outgoing: Atoms
    meets: Flags

    @staticmethod
    def of(analysis: Analysis, units: Units, visit: Visit) -> Meeting | None:
        """The meeting at a visited node; None for other operators, and for labels other than those
        of channels.
        """
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
        """``meets`` without the results removed together with the channel, by one layer's
        ``atoms``.
        """
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
