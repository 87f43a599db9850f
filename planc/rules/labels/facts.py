"""What one walk over a graph finds out: ties, pins, requests, demands, costs, row by row.

The label algebra and the rules write here while the analysis walks; afterwards the analysis reads.
The one mutable object of the analysis, never seen outside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from planc.rules.labels import Labelled, Layer

Atoms = NDArray[np.int64]

NEVER = 0
"""The atom that is never removed."""


@dataclass(frozen=True, slots=True)
class Demand:
    """Argument ``arg`` of node ``node`` (item ``index`` of it, if a sequence) must be ``sign``
    times the width of dimension ``dim`` of ``labelled`` after pruning.
    """

    node: int
    arg: str
    index: int | None
    labelled: Labelled
    dim: int
    sign: int = 1


@dataclass(frozen=True, slots=True)
class Equal:
    """Two dimensions that must stay equally wide, because the operator computes one from the
    other. Where the graph's constants can say otherwise, only the module is ``bound``.
    """

    node: int
    left: tuple[Labelled, int]
    right: tuple[Labelled, int]
    module_only: bool


@dataclass(frozen=True, slots=True)
class Balance:
    """Dimension ``dim`` of ``labelled`` is ragged: all its lines must stay equally long."""

    node: int
    labelled: Labelled
    dim: int


@dataclass(frozen=True, slots=True)
class Plural:
    """Dimension ``dim`` of ``labelled`` must keep two coordinates at least: the operator takes a
    dimension of one for something else.
    """

    node: int
    labelled: Labelled
    dim: int


@dataclass(frozen=True, slots=True)
class Multiple:
    """Dimension ``dim`` of ``labelled`` must keep a multiple of ``of`` coordinates: the operator
    takes no others.
    """

    node: int
    labelled: Labelled
    dim: int
    of: int


@dataclass(frozen=True, slots=True)
class Wider:
    """Two dimensions of which the left one must stay wider: the operator tells them apart by it."""

    node: int
    left: tuple[Labelled, int]
    right: tuple[Labelled, int]


@dataclass(frozen=True, slots=True)
class Note:
    """Atoms with the reason why they are pinned or mixing, and the node where it was found."""

    atoms: Atoms
    reason: str
    node: int
    module_only: bool = False


@dataclass(frozen=True, slots=True)
class Product:
    """A cost: ``factor`` times the widths of dimensions of labelled values."""

    node: int
    factor: int
    widths: tuple[tuple[Labelled, int], ...]


@dataclass(frozen=True, slots=True)
class Slot:
    """A dimension of a tensor that has atoms, ``first`` and the ``count - 1`` after it.

    ``rows`` is None for the dimension's own atoms, one for each index; else the atom of index i is
    ``first + rows[i] - 1``, or none where ``rows[i]`` is 0 (a row family). With ``over``, each of
    ``blocks`` equal ranges of dimension ``over`` has atoms of its own (a ragged dimension).
    """

    tensor: int
    dim: int
    first: int
    count: int
    rows: Atoms | None = None
    over: int = -1
    blocks: int = 1


@dataclass
class Facts:
    """The builder that rules write to. ``node`` is the index of the node being walked and
    ``shapes`` are those of its results, ``itemsize`` is the bytes of an element of the first.
    """

    slots: list[Slot] = field(default_factory=list)
    next_atom: int = 1
    node: int = -1
    shapes: tuple[tuple[int, ...], ...] = ()
    itemsize: int = 1
    ties: list[tuple[Atoms, Atoms, int]] = field(default_factory=list)
    pins: list[Note] = field(default_factory=list)
    mixings: list[Note] = field(default_factory=list)
    tags: list[tuple[Atoms, str]] = field(default_factory=list)
    demands: list[Demand] = field(default_factory=list)
    balances: list[Balance] = field(default_factory=list)
    equals: list[Equal] = field(default_factory=list)
    plurals: list[Plural] = field(default_factory=list)
    multiples: list[Multiple] = field(default_factory=list)
    widers: list[Wider] = field(default_factory=list)
    products: list[Product] = field(default_factory=list)
    ended: list[tuple[Atoms, int]] = field(default_factory=list)
    requests: dict[tuple[Any, ...], Any] = field(default_factory=dict)
    unknown: list[int] = field(default_factory=list)
    _bounds: Atoms | None = None
    _seen_balance: set[tuple[Any, ...]] = field(default_factory=set)

    # -- atoms -----------------------------------------------------------------------------

    def fresh(self, count: int) -> Atoms:
        """New atoms."""
        first = self.next_atom
        self.next_atom += count
        return np.arange(first, first + count, dtype=np.int64)

    def slot_of(self, atoms: Atoms) -> Atoms:
        """The index of the slot of each atom, -1 for atoms of no tensor."""
        if self._bounds is None:
            self._bounds = np.array([slot.first for slot in self.slots], dtype=np.int64)
        if not len(self._bounds):
            return np.full(atoms.shape, -1, dtype=np.int64)
        found = np.searchsorted(self._bounds, atoms, side="right") - 1
        last = self.slots[-1]
        found[(atoms == NEVER) | (atoms >= last.first + last.count)] = -1
        return found

    # -- findings --------------------------------------------------------------------------

    def tie(self, a: Atoms, b: Atoms) -> None:
        """Atoms that are removed together, element by element after broadcasting."""
        if a is not b:
            self.ties.append((a, b, self.node))

    def pin(self, layers: Sequence[Layer], reason: str) -> None:
        """Layers whose atoms are never removed."""
        for layer in layers:
            self.pins.append(Note(layer.atoms, reason, self.node))

    def mix(self, layers: Sequence[Layer], reason: str, module_only: bool = False) -> None:
        """Layers for which removing coordinates is not the same as zeroing them; ``module_only``
        where the rewritten graph can compensate.
        """
        for layer in layers:
            self.mixings.append(Note(layer.atoms, reason, self.node, module_only))

    def end(self, layers: Sequence[Layer]) -> None:
        """Layers that no result of the node has: it takes together what they tell apart."""
        self.ended.extend((layer.atoms, self.node) for layer in layers)

    def tag(self, layers: Sequence[Layer], kind: str) -> None:
        """Layers whose atoms are of a kind (heads, ...)."""
        for layer in layers:
            self.tags.append((layer.atoms, kind))

    def demand(
        self, arg: str, index: int | None, labelled: Labelled, dim: int, sign: int = 1
    ) -> None:
        """An argument that must be a width (see :class:`Demand`)."""
        self.demands.append(Demand(self.node, arg, index, labelled, dim, sign))

    def equal(
        self, left: tuple[Labelled, int], right: tuple[Labelled, int], module_only: bool = False
    ) -> None:
        """Two dimensions that must stay equally wide (see :class:`Equal`)."""
        self.equals.append(Equal(self.node, left, right, module_only))

    def plural(self, labelled: Labelled, dim: int) -> None:
        """A dimension that must not shrink to one coordinate (see :class:`Plural`)."""
        if labelled.targeting(dim):
            self.plurals.append(Plural(self.node, labelled, dim))

    def aligned(self, labelled: Labelled, dim: int, size: int) -> None:
        """A dimension whose elements must fill multiples of ``size`` bytes (see :class:`Multiple`),
        of the type that the node's result has.
        """
        if labelled.targeting(dim):
            self.multiples.append(Multiple(self.node, labelled, dim, max(1, size // self.itemsize)))

    def wider(self, left: tuple[Labelled, int], right: tuple[Labelled, int]) -> None:
        """A dimension that must stay wider than another (see :class:`Wider`)."""
        self.widers.append(Wider(self.node, left, right))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the node's first result."""
        return self.shapes[0]

    def cost(self, factor: int, *widths: tuple[Labelled, int]) -> None:
        """MACs of the node: ``factor`` times the product of the widths."""
        self.products.append(Product(self.node, factor, widths))

    def balance(self, x: Labelled) -> None:
        """Every line of a ragged dimension loses equally many, or ``x`` would not be a tensor."""
        for dim in {layer.target for layer in x.layers if layer.ragged}:
            layers = x.targeting(dim)
            key = (dim, *((layer.atoms.shape, layer.atoms.tobytes()) for layer in layers))
            if key not in self._seen_balance:
                self._seen_balance.add(key)
                self.balances.append(Balance(self.node, x, dim))

    # -- requests for the next walk ----------------------------------------------------------

    def request_rows(self, atoms: Atoms, rows: Atoms) -> None:
        """Asks for a row family: the tensors' own atoms ``atoms`` get another layer, one atom for
        each distinct value of ``rows``, 0 where there is none. Arrays of one shape.
        """
        atoms, rows = atoms.reshape(-1), rows.reshape(-1)
        slots = self.slot_of(atoms)
        for index in np.unique(slots):
            if index < 0:
                continue
            slot = self.slots[index]
            if slot.rows is not None or slot.blocks > 1:
                continue
            here = slots == index
            spec = np.full(slot.count, -1, dtype=np.int64)
            at, wanted = atoms[here] - slot.first, rows[here]
            spec[at] = wanted
            if (spec[at] != wanted).any():
                continue  # one atom in two rows
            spec = canonical(np.where(spec < 0, 0, spec))
            sizes = np.bincount(spec)[1:]
            if len(sizes) > 1 and sizes.max() > 1:
                self.requests.setdefault((slot.tensor, slot.dim, spec.tobytes()), spec)

    def request_ragged(self, inner: Layer, outer: Layer, blocks: int) -> None:
        """Asks that the dimension that ``inner`` labels gets own atoms for each of ``blocks`` equal
        ranges of the one that ``outer`` labels, where both are dimensions of one tensor; and the
        same of tensors that it is computed from, element by element (a weight and its mask).
        """
        within, over = self._whole(inner.atoms), self._whole(outer.atoms)
        if within is None or over is None:
            return
        for one in self._with_tied(within):
            for other in self._with_tied(over):
                if one.tensor == other.tensor and one.blocks == other.blocks == 1:
                    self.requests.setdefault((one.tensor, one.dim, other.dim, blocks), None)

    def _whole(self, atoms: Atoms) -> Slot | None:
        """The slot of a dimension's own atoms, if ``atoms`` are all of one, in order."""
        flat = atoms.reshape(-1)
        index = int(self.slot_of(flat[:1])[0]) if len(flat) else -1
        if index < 0:
            return None
        slot = self.slots[index]
        own = slot.first == flat[0] and slot.count == len(flat) and slot.rows is None
        return slot if own and bool((np.diff(flat) == 1).all()) else None

    def _with_tied(self, slot: Slot) -> list[Slot]:
        """The slot, and those whose atoms are tied to its, one to one and in order."""
        found = {slot.first: slot}
        for a, b, _ in self.ties:
            if a.size == b.size == slot.count:
                ends = [self._whole(side) for side in (a, b)]
                if slot in ends:
                    found |= {end.first: end for end in ends if end is not None}
        return list(found.values())


def canonical(ids: Atoms) -> Atoms:
    """``ids`` renumbered 1, 2, ... in order of first occurrence; 0 stays 0."""
    present = ids[ids != 0]
    steps = np.diff(present)
    if (steps >= 0).all():  # in order, as nearly all are: no need to sort
        numbered = np.zeros(ids.shape, dtype=np.int64)
        if len(present):
            numbered[ids != 0] = np.concatenate(([1], 1 + np.cumsum(steps > 0)))
        return numbered
    values, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
    order = np.argsort(np.where(values == 0, -1, first), kind="stable")
    rank = np.empty(len(values), dtype=np.int64)
    has_zero = bool((values == 0).any())
    rank[order] = np.arange(len(values)) + (0 if has_zero else 1)
    return rank[inverse].reshape(ids.shape)
