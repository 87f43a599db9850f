"""The plan: all removals as one immutable value, the only input of ``apply`` beside the model.

Everything here is plain frozen data. ``provenance``, ``outputs``, the costs and the latency, and
``mixing``, ``kind`` and ``scores`` of groups exist for people and never influence ``apply``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from hashlib import sha256
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from planc.ir.groups import Group, Indices
from planc.ir.units import marked
from planc.plan.head import notebook_html

Attributes = tuple[tuple[str, Any], ...]
Natural = Annotated[int, msgspec.Meta(ge=0)]
Digest = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
ORIGINS = ("", "file", "factory", "model")
"""Origins of weights, see :class:`Provenance`."""
CLASS = "class"
"""Key of the class name in a module's table. No plan changes it."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A parameter or buffer of the source model; tied names share one entry."""

    names: tuple[str, ...]
    shape: tuple[Natural, ...]
    kind: str  # "parameter" or "buffer"

    @property
    def name(self) -> str:
        return self.names[0]


@dataclass(frozen=True, slots=True)
class ModuleSpec:
    """A module of the source model: its class and its structural attributes, sorted by name.

    Structural attributes are those behind the sizes of the traced run, those describing torch.nn's
    own layers, and those changed by the plan. Plans of older versions list every number, flag and
    string of a module, and no class.
    """

    path: str
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class AttributeChange:
    """A structural attribute rewritten by the plan."""

    module: str
    name: str
    before: Any
    after: Any

    @property
    def adds_field(self) -> bool:
        """True for an integer added to an object of plain data, or taken out again; the other side
        is None.
        """
        types = {type(self.before), type(self.after)}
        return "." in self.name and types == {type(None), int}

    def __str__(self) -> str:
        path = f"{self.module}.{self.name}" if self.module else self.name
        return f"{path}: {self.before} -> {self.after}"


def is_public(name: str) -> bool:
    """Return True if a plan may change an attribute of that name.

    The name is an identifier, or up to four joined by dots (``config.hidden_size``, for an object
    held by a module), without leading underscores.
    """
    parts = name.split(".")
    return len(parts) <= 4 and all(p.isidentifier() and not p.startswith("_") for p in parts)


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """SHA-256 digests of the tensor table, the structural attributes and the groups."""

    attributes: Digest
    structure: Digest
    tensors: Digest


@dataclass(frozen=True, slots=True)
class Cost:
    """MACs of one run on the example inputs, number of parameters (tied ones once), bytes of
    parameters.
    """

    macs: Natural
    params: Natural
    bytes: Natural


@dataclass(frozen=True, slots=True)
class Latency:
    """Nanoseconds of a run before and after, as predicted for a machine by a latency table."""

    after: Natural
    before: Natural
    machine: str


@dataclass(frozen=True, slots=True)
class Provenance:
    """The origin of the removals: criterion, policy, seed, versions, weights and statistics.

    It has no clock and no path: equal inputs give equal bytes.

    Attributes:
        criterion, policy: their texts.
        seed: for random criteria.
        versions: of planc and torch.
        weights: SHA-256 of the tensors at hand when the scores were computed
            (:mod:`planc.plan.weights`); None if unknown, as in files of version 1.
        origin: "file" for weights read from a file, "factory" for weights as the model's factory
            built them on the command line, possibly random, "model" for a module given to the
            library; empty if unknown.
        statistics: SHA-256 of the calibration statistics read by the criterion; None without any.
        decisions: changes made by a reviewer, in order ("keep layer1.conv1.weight:0 2,6").
    """

    criterion: str
    policy: str
    seed: int
    versions: tuple[tuple[str, str], ...]
    weights: Digest | None = None
    origin: str = ""
    statistics: Digest | None = None
    decisions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WidthConstraint:
    """A condition on the kept widths of a model, for people to read; a plan is not bound by it.

    ``text`` is an equation or names a group left whole; ``reason`` names the operator behind it,
    with file and line.
    """

    text: str
    reason: str


@dataclass(frozen=True, slots=True)
class PlanGroup(Group):
    """A group with the units to remove: sorted, below ``size``, equally many in each row.

    They are a tuple or, in a plan read from a file, the equal :class:`planc.ir.units.Units`.
    ``scores`` are the scores of all units on request, one little-endian float32 each, else None.
    """

    removed: Sequence[int] = ()
    scores: bytes | None = None

    @property
    def kept(self) -> int:
        """The number of units kept."""
        return self.size - len(self.removed)

    @property
    def unit_scores(self) -> NDArray[np.float32] | None:
        """The scores as an array of length ``size``, all finite; None if the plan has none."""
        return None if self.scores is None else np.frombuffer(self.scores, dtype="<f4")


@dataclass(frozen=True, slots=True)
class OutputChange:
    """An output of the model that shrinks: consumers index their inputs by ``kept``.

    Attributes:
        name: the path of the tensor in the result, such as "hidden_states.0"; empty for a result
            that is one tensor.
        dim: the shrinking dimension.
        size: its size before.
        kept: the kept indices, sorted, fewer than ``size`` and at least one; a tuple or the equal
            :class:`planc.ir.units.Units`.
    """

    name: str
    dim: Natural
    size: Natural
    kept: Sequence[int]


@dataclass(frozen=True)
class Plan:
    """An immutable pruning plan. All groups of the model are listed, also those left whole."""

    source: Fingerprints
    result: Fingerprints
    tensors: tuple[TensorSpec, ...]
    modules: tuple[ModuleSpec, ...]
    groups: tuple[PlanGroup, ...]
    attributes: tuple[AttributeChange, ...]
    inputs: Any  # specification of the example inputs (planc.plan.specification), nested tuples
    target: str  # "module" or "graph"
    provenance: tuple[Provenance, ...]  # one for each composed plan
    cost_before: Cost
    cost_after: Cost
    shapes: bytes  # digest of every predicted operator and shape, in order
    constraints: tuple[WidthConstraint, ...] = ()
    requires: tuple[str, ...] = ()
    outputs: tuple[OutputChange, ...] = ()  # those that shrink, for consumers
    latency: Latency | None = None  # where a table was given

    @property
    def fingerprint(self) -> str:
        """The identity of the plan's source structure, as hexadecimal SHA-256."""
        source = self.source
        return sha256(source.attributes + source.structure + source.tensors).hexdigest()

    @cached_property
    def cuts(self) -> dict[str, Cut]:
        """The kept indices of each cut tensor, by its first name; whole tensors are absent."""
        return cuts(self.tensors, self.groups)

    def _repr_html_(self) -> str:
        """Show the savings in a notebook."""
        return notebook_html(self)

    def __repr__(self) -> str:
        from planc.plan.review.summary import line

        return line(self)

    def __str__(self) -> str:
        return self.summary()

    def summary(self) -> str:
        """The plan in a few lines: origin, removed units, costs before and after, widths."""
        from planc.plan.review.summary import summary

        return summary(self)

    def __hash__(self) -> int:
        # the digests stand for the large tables; equal plans have equal digests
        return hash((self.source, self.result, self.groups, self.attributes, self.target))

    def replace(self, **changes: Any) -> Plan:
        """A copy with some fields changed."""
        return Plan(**({f.name: getattr(self, f.name) for f in fields(self)} | changes))


@dataclass(frozen=True, slots=True)
class Ragged:
    """The indices ``kept`` in the range ``start <= i < stop`` of another dimension."""

    start: int
    stop: int
    kept: Indices


@dataclass(frozen=True)
class Cut:
    """The kept indices of one tensor.

    ``kept[d]`` are the sorted indices kept in dimension ``d``, None for all. ``ragged`` lists the
    dimensions with different kept indices along another dimension, as (dimension, other dimension,
    ranges); the ranges are in order and cover the other dimension. ``shape`` is the new shape.
    """

    kept: tuple[Indices | None, ...]
    ragged: tuple[tuple[int, int, tuple[Ragged, ...]], ...]
    shape: tuple[int, ...]


def cuts(tensors: tuple[TensorSpec, ...], groups: tuple[PlanGroup, ...]) -> dict[str, Cut]:
    """The kept indices of each tensor touched by removals.

    Raises:
        ValueError: ranges of one ragged dimension would keep different numbers of indices.
    """
    shapes = {tensor.name: tensor.shape for tensor in tensors}
    dense: dict[tuple[str, int], list[Indices]] = {}
    ragged: dict[tuple[str, int, int], dict[tuple[int, int], list[Indices]]] = {}
    for group in groups:
        if not group.removed:
            continue
        gone = marked(group.removed, group.size)
        runs = {run for member in group.members for run in member.runs}  # many members share a run
        indices = {run: run.indices(gone) for run in runs}
        for member in group.members:
            removed = [indices[run] for run in member.runs]
            if member.over is None:
                dense.setdefault((member.tensor, member.dim), []).extend(removed)
            else:
                ranges = ragged.setdefault((member.tensor, member.dim, member.over.dim), {})
                span = (member.over.start, member.over.stop)
                ranges.setdefault(span, []).extend(removed)
    complements: dict[tuple[int, ...], Indices] = {}
    result = {}
    for name in dict.fromkeys([key[0] for key in dense] + [key[0] for key in ragged]):
        result[name] = _cut(name, shapes[name], dense, ragged, complements)
    return result


def _complement(
    size: int, removed: list[Indices], found: dict[tuple[int, ...], Indices]
) -> Indices:
    """The kept indices below ``size``, cached by the identity of the removed arrays."""
    key = (size, *map(id, removed))
    if key not in found:
        stays = np.ones(size, dtype=bool)
        for indices in removed:
            stays[indices] = False
        found[key] = np.flatnonzero(stays)
    return found[key]


def _cut(
    name: str,
    shape: tuple[int, ...],
    dense: dict[tuple[str, int], list[Indices]],
    ragged: dict[tuple[str, int, int], dict[tuple[int, int], list[Indices]]],
    complements: dict[tuple[int, ...], Indices],
) -> Cut:
    kept: list[Indices | None] = [None] * len(shape)
    after = list(shape)
    for dim in range(len(shape)):
        if (name, dim) in dense:
            indices = _complement(shape[dim], dense[name, dim], complements)
            if len(indices) < shape[dim]:
                kept[dim], after[dim] = indices, len(indices)
    parts = []
    for (tensor, dim, over), ranges in ragged.items():
        if tensor != name:
            continue
        also = dense.get((name, dim), [])
        blocks = [
            Ragged(start, stop, _complement(shape[dim], [*removed, *also], complements))
            for (start, stop), removed in sorted(ranges.items())
        ]
        lengths = {len(block.kept) for block in blocks}
        if len(lengths) > 1:
            raise ValueError(f"{name}: ranges of dimension {over} keep {sorted(lengths)} indices")
        covered = [block.start for block in blocks[1:]] == [block.stop for block in blocks[:-1]]
        if not covered or blocks[0].start != 0 or blocks[-1].stop != shape[over]:
            raise ValueError(f"{name}: ranges do not cover dimension {over} of {shape[over]}")
        kept[dim], after[dim] = None, lengths.pop()
        parts.append((dim, over, tuple(blocks)))
    return Cut(tuple(kept), tuple(parts), tuple(after))
