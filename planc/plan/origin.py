"""Origins of a pruned model's tensors, indices and units of groups in the original model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from planc.ir.graph import CAPTURED
from planc.ir.groups import Group, Indices, Member
from planc.plan.plan import Plan, TensorSpec


def own_tensors(first: Plan, tensors: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    """The tensors of a rewritten graph without the constants of the original."""
    known = {name for spec in first.tensors for name in spec.names}
    return tuple(
        spec for spec in tensors if spec.name in known or not spec.name.startswith(CAPTURED)
    )


@dataclass(frozen=True, slots=True)
class _Piece:
    """Original indices of one member in the range ``start:stop`` of dimension ``over`` (everywhere
    if None), in the order of the member's units.
    """

    indices: Indices
    over: int | None
    start: int
    stop: int


class Origin:
    """Maps coordinates of the result of ``first``, with those ``tensors``, to the original."""

    def __init__(self, first: Plan, tensors: tuple[TensorSpec, ...]) -> None:
        self.cuts = first.cuts
        self.shapes = {spec.name: spec.shape for spec in first.tensors}
        primary = {name: spec.name for spec in first.tensors for name in spec.names}
        # the two models may differ in the first of tied names
        self.names = {spec.name: primary[spec.name] for spec in own_tensors(first, tensors)}

    def kept(self, tensor: str, dim: int) -> Indices:
        """The original indices of a dimension that is not ragged."""
        kept = self.cuts[tensor].kept[dim] if tensor in self.cuts else None
        return np.arange(self.shapes[tensor][dim]) if kept is None else kept

    def positions(self, member: Member, dim: int) -> Indices:
        """The original indices of another dimension covered by a member of a later group."""
        kept = self.kept(self.names[member.tensor], dim)
        over = member.over
        return kept[over.start : over.stop] if over is not None and over.dim == dim else kept

    def pieces(self, member: Member, indices: Indices) -> Iterator[_Piece]:
        """The original indices of a member of a later group."""
        tensor = self.names[member.tensor]
        ragged = self.cuts[tensor].ragged if tensor in self.cuts else ()
        for dim, over, blocks in ragged:
            if dim == member.dim:
                positions = self.positions(member, over)
                for block in blocks:
                    if _meets(positions, block.start, block.stop):
                        yield _Piece(block.kept[indices], over, block.start, block.stop)
                return
        yield _Piece(self.kept(tensor, member.dim)[indices], None, 0, 0)


def units_in(origin: Origin, candidate: Group, group: Group) -> Indices | None:
    """The unit of ``candidate`` behind each unit of ``group``, None without a one-to-one map."""
    lookup: dict[tuple[str, int], _Owners] = {}
    lowest = np.full(group.size, candidate.size, dtype=np.int64)
    highest = np.full(group.size, -1, dtype=np.int64)
    for member in group.members:
        place = (origin.names[member.tensor], member.dim)
        if place not in lookup:
            lookup[place] = _Owners(candidate, *place, origin.shapes[place[0]][place[1]])
        units, indices = member.expand()
        for piece in origin.pieces(member, indices):
            for owners in lookup[place].of(piece, member, origin):
                if owners.min() < 0:
                    return None
                np.minimum.at(lowest, units, owners)
                np.maximum.at(highest, units, owners)
    one_each = np.array_equal(lowest, highest) and len(np.unique(lowest)) == group.size
    return lowest if one_each else None


class _Owners:
    """The unit of a group at each index of one dimension of one tensor."""

    def __init__(self, group: Group, tensor: str, dim: int, size: int) -> None:
        self.dense: Indices = np.full(size, -1, dtype=np.int64)
        self.ranges: dict[tuple[int, int, int], Indices] = {}
        for member in group.members:
            if (member.tensor, member.dim) != (tensor, dim):
                continue
            owners = self.dense
            if member.over is not None:
                span = (member.over.dim, member.over.start, member.over.stop)
                owners = self.ranges.setdefault(span, np.full(size, -1, dtype=np.int64))
            units, indices = member.expand()
            owners[indices] = units

    def of(self, piece: _Piece, member: Member, origin: Origin) -> Iterator[Indices]:
        """The owners of the indices of a piece, in each range of the group it meets."""
        met = False
        for (over, start, stop), owners in self.ranges.items():
            if piece.over == over:
                start, stop = max(start, piece.start), min(stop, piece.stop)
            if _meets(origin.positions(member, over), start, stop):
                met = True
                dense = self.dense[piece.indices]
                yield np.where(dense < 0, owners[piece.indices], dense)
        if not met:
            yield self.dense[piece.indices]


def _meets(positions: Indices, start: int, stop: int) -> bool:
    return bool(np.searchsorted(positions, start) < np.searchsorted(positions, stop))
