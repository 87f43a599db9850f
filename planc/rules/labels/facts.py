"""The findings of one walk over a graph: ties, pins, requests, demands, costs, row by row.

The label algebra and the rules write here while the analysis walks the graph; the analysis reads
afterwards. This is the one mutable object of the analysis, never visible outside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from planc.rules.labels.atoms import NEVER as NEVER
from planc.rules.labels.atoms import Atoms as Atoms
from planc.rules.labels.atoms import canonical as canonical
from planc.rules.labels.labelled import Labelled, Layer

Op = Literal["balanced", "equal", "more", "multiple", "share"]
Width = tuple[Labelled, int]
"""A dimension of a labelled value."""


@dataclass(frozen=True, slots=True)
class Demand:
    """Argument ``arg`` of node ``node`` (item ``index`` of a sequence) must be ``sign`` times the
    width of dimension ``dim`` of ``labelled`` after pruning.
    """

    node: int
    arg: str
    index: int | None
    labelled: Labelled
    dim: int
    sign: int = 1


@dataclass(frozen=True, slots=True)
class Relation:
    """A condition on the width ``left`` after pruning, required by node ``node``:

    * ``balanced``: all lines of the ragged dimension are equally long;
    * ``equal``: it is as wide as ``right``, because the operator computes one from the other;
    * ``more``: it is wider than ``right``, because the operator would treat it differently;
    * ``multiple``: it is a multiple of ``right``, as the operator requires;
    * ``share``: it is ``right`` plus ``plus``, divided by ``parts`` and rounded down.

    With ``module_only`` it binds the module alone: the graph's constants can be rewritten.
    """

    node: int
    op: Op
    left: Width
    right: Width | int = 0
    module_only: bool = False
    plus: int = 0
    parts: int = 1


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
    widths: tuple[Width, ...]


@dataclass(frozen=True, slots=True)
class Slot:
    """A dimension of a tensor with atoms: ``first`` and the ``count - 1`` after it.

    ``rows`` is None for the dimension's own atoms, one for each index. Otherwise the atom of index
    i is ``first + rows[i] - 1``, or none where ``rows[i]`` is 0 (a row family). With ``over``, each
    of ``blocks`` equal ranges of dimension ``over`` has atoms of its own (a ragged dimension).
    """

    tensor: int
    dim: int
    first: int
    count: int
    rows: Atoms | None = None
    over: int = -1
    blocks: int = 1


@dataclass(frozen=True, slots=True)
class Rows:
    """A request for a row family of a tensor's dimension: another layer on its own atoms, with row
    ``array[i]`` for index i, and none where it is 0.
    """

    tensor: int
    dim: int
    rows: bytes

    @property
    def array(self) -> Atoms:
        return np.frombuffer(self.rows, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Ragged:
    """A request for own atoms in each of ``blocks`` equal ranges of dimension ``over``."""

    tensor: int
    dim: int
    over: int
    blocks: int


@dataclass
class Facts:
    """The builder written to by rules. ``node`` is the index of the node being walked, ``shapes``
    are the shapes of its results, ``read`` tells which of them are used, and ``itemsize`` is the
    size in bytes of an element of the first. ``in_order`` is True if its first operand is stored in
    row-major order. ``unsure`` is True if another run may use other results.
    """

    slots: list[Slot] = field(default_factory=list)
    next_atom: int = 1
    node: int = -1
    shapes: tuple[tuple[int, ...], ...] = ()
    read: tuple[bool, ...] = ()
    unsure: bool = False
    itemsize: int = 1
    in_order: bool = False
    ties: list[tuple[Atoms, Atoms, int]] = field(default_factory=list)
    pins: list[Note] = field(default_factory=list)
    mixings: list[Note] = field(default_factory=list)
    tags: list[tuple[Atoms, str]] = field(default_factory=list)
    demands: list[Demand] = field(default_factory=list)
    ignored: set[tuple[int, str, int | None]] = field(default_factory=set)
    relations: list[Relation] = field(default_factory=list)
    products: list[Product] = field(default_factory=list)
    ended: list[tuple[Atoms, int]] = field(default_factory=list)
    requests: dict[Rows | Ragged, None] = field(default_factory=dict)
    unknown: list[int] = field(default_factory=list)
    _bounds: Atoms | None = None
    _seen_balance: set[tuple[Any, ...]] = field(default_factory=set)

    # -- atoms -----------------------------------------------------------------------------

    def fresh(self, count: int) -> Atoms:
        """``count`` new atoms."""
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
        """Remove atoms together, element by element after broadcasting."""
        if a is not b:
            self.ties.append((a, b, self.node))

    def pin(self, layers: Sequence[Layer], reason: str) -> None:
        """Never remove the atoms of ``layers``."""
        for layer in layers:
            self.pins.append(Note(layer.atoms, reason, self.node))

    def mix(self, layers: Sequence[Layer], reason: str, module_only: bool = False) -> None:
        """Record that removing coordinates of ``layers`` differs from zeroing them; ``module_only``
        if the rewritten graph can compensate.
        """
        for layer in layers:
            self.mixings.append(Note(layer.atoms, reason, self.node, module_only))

    def end(self, layers: Sequence[Layer]) -> None:
        """Record layers consumed by the node: it sums or otherwise reduces over them."""
        self.ended.extend((layer.atoms, self.node) for layer in layers)

    def tag(self, layers: Sequence[Layer], kind: str) -> None:
        """Mark the atoms of ``layers`` with a kind (heads, ...)."""
        for layer in layers:
            self.tags.append((layer.atoms, kind))

    def demand(
        self, arg: str, index: int | None, labelled: Labelled, dim: int, sign: int = 1
    ) -> None:
        """Require an argument to be a width (see :class:`Demand`)."""
        self.demands.append(Demand(self.node, arg, index, labelled, dim, sign))

    def ignore(self, arg: str, index: int | None = None) -> None:
        """Leave a number of an argument to itself: no result depends on it."""
        self.ignored.add((self.node, arg, index))

    def related(self, op: Op) -> Iterator[Relation]:
        """The relations of one kind (see :class:`Relation`)."""
        return (relation for relation in self.relations if relation.op == op)

    def equal(self, left: Width, right: Width, module_only: bool = False) -> None:
        """Require two dimensions to stay equally wide."""
        self.relations.append(Relation(self.node, "equal", left, right, module_only))

    def share(self, left: Width, right: Width, plus: int, parts: int) -> None:
        """Require a width computed by the operator itself: ``(right + plus) // parts``."""
        relation = Relation(self.node, "share", left, right, True, plus, parts)
        self.relations.append(relation)

    def plural(self, labelled: Labelled, dim: int, least: int = 2) -> None:
        """Require a dimension to keep at least two coordinates, or ``least``."""
        if labelled.targeting(dim) and least > 1:
            self.relations.append(Relation(self.node, "more", (labelled, dim), least - 1))

    def aligned(self, labelled: Labelled, dim: int, size: int) -> None:
        """Require the elements of a dimension, in the type of the node's result, to fill multiples
        of ``size`` bytes.
        """
        count = size // self.itemsize
        if labelled.targeting(dim) and count > 1:
            self.relations.append(Relation(self.node, "multiple", (labelled, dim), count))

    def wider(self, left: Width, right: Width) -> None:
        """Require a dimension to stay wider than another."""
        self.relations.append(Relation(self.node, "more", left, right))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the node's first result."""
        return self.shapes[0]

    def cost(self, factor: int, *widths: Width) -> None:
        """MACs of the node: ``factor`` times the product of the widths."""
        self.products.append(Product(self.node, factor, widths))

    def balance(self, x: Labelled) -> None:
        """Require every line of a ragged dimension to lose equally many coordinates, so that ``x``
        stays a tensor.
        """
        for dim in {layer.target for layer in x.layers if layer.ragged}:
            layers = x.targeting(dim)
            key = (dim, *((layer.atoms.shape, layer.atoms.tobytes()) for layer in layers))
            if key not in self._seen_balance:
                self._seen_balance.add(key)
                self.relations.append(Relation(self.node, "balanced", (x, dim)))

    # -- requests for the next walk ----------------------------------------------------------

    def request_rows(self, atoms: Atoms, rows: Atoms) -> None:
        """Request a row family: another layer on the tensors' own atoms ``atoms``, with one atom
        for each distinct value of ``rows`` and none where it is 0. Both arrays have one shape.
        """
        atoms, rows = atoms.reshape(-1), rows.reshape(-1)
        slots = self.slot_of(atoms)
        for index in np.unique(slots):
            if index < 0:
                continue
            slot = self.slots[index]
            if slot.blocks > 1:
                continue
            here = slots == index
            spec = np.full(slot.count, -1, dtype=np.int64)
            at, wanted = atoms[here] - slot.first, rows[here]
            spec[at] = wanted
            if (spec[at] != wanted).any():
                continue  # one atom in two rows
            spec = np.where(spec < 0, 0, spec)
            if slot.rows is not None:  # rows of rows
                spec = np.where(slot.rows == 0, 0, spec[slot.rows - 1])
            spec = canonical(spec)
            sizes = np.bincount(spec)[1:]
            if len(sizes) > 1 and sizes.max() > 1:
                self.requests[Rows(slot.tensor, slot.dim, spec.tobytes())] = None

    def request_ragged(self, inner: Layer, outer: Layer, blocks: int) -> None:
        """Request own atoms of the dimension labelled by ``inner`` for each of ``blocks`` equal
        ranges of the one labelled by ``outer``, if both are dimensions of one tensor. The request
        includes tensors it is computed from element by element (a weight and its mask).
        """
        within, over = self._whole(inner.atoms), self._whole(outer.atoms)
        if within is None or over is None:
            return
        for one in self._with_tied(within):
            for other in self._with_tied(over):
                if one.tensor == other.tensor and one.blocks == other.blocks == 1:
                    self.requests[Ragged(one.tensor, one.dim, other.dim, blocks)] = None

    def _whole(self, atoms: Atoms) -> Slot | None:
        """The slot with exactly ``atoms`` as its own atoms, in order; None if there is none."""
        flat = atoms.reshape(-1)
        index = int(self.slot_of(flat[:1])[0]) if len(flat) else -1
        if index < 0:
            return None
        slot = self.slots[index]
        own = slot.first == flat[0] and slot.count == len(flat) and slot.rows is None
        return slot if own and bool((np.diff(flat) == 1).all()) else None

    def _with_tied(self, slot: Slot) -> list[Slot]:
        """``slot``, and the slots with atoms tied to its atoms one to one and in order."""
        found = {slot.first: slot}
        for a, b, _ in self.ties:
            if a.size == b.size == slot.count:
                ends = [self._whole(side) for side in (a, b)]
                if slot in ends:
                    found |= {end.first: end for end in ends if end is not None}
        return list(found.values())
