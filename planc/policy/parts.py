"""Parts: the layers that produce the units of a group, told apart from those that read them.

A member is *made* where its dimension is an output of a weight (``conv1.weight:0``), and *read*
where an operator sums over it (``fc.weight:1``). Every other member follows: biases, norms,
depthwise weights, positions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np

from planc.analysis import Analysis
from planc.analysis.uses import fed_values
from planc.criteria.roles import roles
from planc.ir.graph import Node, Ref
from planc.ir.groups import Group, Member
from planc.rules.contractions import contraction, einsum_letters

Place = tuple[str, int]
"""The first name of a tensor, and a dimension."""
_Use = tuple[int, int | None, int | None]
"""A value used as a weight, its output dimension and its input dimension."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The dimensions that weights produce, and those that they read."""

    made: frozenset[Place]
    read: frozenset[Place]

    def makers(self, group: Group) -> list[Member]:
        """The members that produce the group's units; without any, those that follow, or all."""
        made = [m for m in group.members if (m.tensor, m.dim) in self.made]
        return made or self.outputs(group) or list(group.members)

    def outputs(self, group: Group) -> list[Member]:
        """All members but the readers."""
        return [m for m in group.members if not self.reads(m)]

    def reads(self, member: Member) -> bool:
        """True for a member that is read alone. A tied tensor may be both."""
        place = (member.tensor, member.dim)
        return place in self.read and place not in self.made


_PARTS: WeakKeyDictionary[Analysis, Parts] = WeakKeyDictionary()


def parts(analysis: Analysis) -> Parts:
    """The parts of a model, found on first use."""
    if analysis not in _PARTS:
        _PARTS[analysis] = _parts(analysis)
    return _PARTS[analysis]


def _parts(analysis: Analysis) -> Parts:
    graph = analysis.graph
    fed = fed_values(graph)
    made: set[Place] = set()
    read: set[Place] = set()
    for node in graph.nodes:
        for value, out, into in _weights(analysis, node):
            if value not in fed:
                made |= _places(analysis, value, out)
                read |= _places(analysis, value, into)
    known = {name for name, _ in made | read}
    by_role = roles(graph)
    for tensor in graph.tensors:
        role = by_role.get(tensor.value)
        if role is not None and tensor.name not in known:
            made.add((tensor.name, role.out))
            read |= {(tensor.name, role.into)} if role.into is not None else set()
    return Parts(frozenset(made), frozenset(read))


def _places(analysis: Analysis, value: int, dim: int | None) -> set[Place]:
    """The dimensions of tensors with the coordinates of a value's dimension."""
    if dim is None:
        return set()
    facts, tensors = analysis.walked.facts, analysis.graph.tensors
    layers = analysis.walked.labels[value].targeting(dim)
    found = {int(s) for la in layers for s in np.unique(facts.slot_of(la.atoms.reshape(-1)))}
    slots = [facts.slots[s] for s in found if s >= 0]
    return {(tensors[slot.tensor].name, slot.dim) for slot in slots}


def _weights(analysis: Analysis, node: Node) -> Iterator[_Use]:
    """The operands of a contraction that may be weights."""
    shapes = analysis.graph.values
    name = node.op.split(".")[1]
    known = contraction(node.op)
    if name == "embedding" and isinstance(node.args[0], Ref):
        yield node.args[0].id, 1, None
    elif name == "einsum" and isinstance(node.args[0], str):
        yield from _of_einsum(node, [len(shapes[ref.id].shape) for ref in node.args[1]])
    elif known is not None and len(node.args) > known.weight:
        x, weight = node.args[known.x], node.args[known.weight]
        if not isinstance(weight, Ref) or not isinstance(x, Ref):
            return
        shape = shapes[weight.id].shape
        if known.convolution or name == "linear":
            apart = known.convolution and shape[1] == 1 and _in_groups(node)
            out, into = known.letters.index("o"), known.letters.index("i")
            yield weight.id, None if apart else out, None if apart else into
        else:
            yield weight.id, len(shape) - 1, max(len(shape) - 2, 0)
            rank = len(shapes[x.id].shape)
            yield x.id, rank - 2 if rank > 1 else None, rank - 1


def _in_groups(node: Node) -> bool:
    """True for a convolution of several groups, its argument 6."""
    given = dict(node.kwargs).get("groups", node.args[6] if len(node.args) > 6 else 1)
    return bool(given != 1)


def _of_einsum(node: Node, ranks: list[int]) -> Iterator[_Use]:
    inputs, output = einsum_letters(node.args[0], ranks)
    for i, (ref, own) in enumerate(zip(node.args[1], inputs, strict=True)):
        others = {letter for j, dims in enumerate(inputs) if j != i for letter in dims}
        out = [d for d, letter in enumerate(own) if letter in output and letter not in others]
        into = [d for d, letter in enumerate(own) if letter in others and letter not in output]
        yield from ((ref.id, dim, None) for dim in out)
        yield from ((ref.id, None, dim) for dim in into)
