"""Outlines: what all plans of an analysis have in common, and how the rest follows from the units
that go, compiled to arrays.

In: an analysis and a target. Out: :class:`Outline`, made once for each pair. Units are numbered
through over all groups.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from planc.analysis import Analysis
from planc.analysis.arrays import Kept, Polynomials
from planc.analysis.columns import Line
from planc.analysis.places import offsets_of
from planc.analysis.polynomials import Variable
from planc.analysis.structure import module_table
from planc.compile.attributes import Followers
from planc.errors import AnalysisError, PolicyError
from planc.ir.graph import Graph
from planc.ir.groups import Indices, Run
from planc.plan import fingerprint
from planc.plan.fingerprint import Form, Gap, canonical
from planc.plan.plan import (
    AttributeChange,
    Cost,
    Fingerprints,
    ModuleSpec,
    PlanGroup,
    TensorSpec,
    WidthConstraint,
)
from planc.policy.conditions import Conditions
from planc.policy.order import whole

Gone = NDArray[np.bool_]
"""For each unit whether it goes, and a last entry, false, for nobody (:mod:`planc.columns`)."""
Removed = tuple[tuple[int, ...], ...]
"""For each group the units that go."""
_TEXT = 1000  # bytes of a text for people, below the limit on strings in files


class Outline:
    """What is known of all plans of an analysis for one target. ``groups`` are whole."""

    def __init__(self, analysis: Analysis, target: str) -> None:
        graph, self._equations = analysis.graph, analysis.equations(target)
        self.tensors = tuple(TensorSpec(t.names, t.shape, t.kind) for t in graph.tensors)
        self.groups = tuple(
            PlanGroup(x.name, x.kind, x.size, x.rows, x.members, analysis.mixing(g, target))
            for g, x in enumerate(analysis.groups)
        )
        self.constraints = _constraints(analysis, target)
        self._cells = whole(analysis)
        self._conditions = Conditions(self._equations.constraints, self._cells)
        costs = analysis.cost
        self._costs = Polynomials([costs.macs, costs.params, costs.bytes], self._cells)
        self.cost = self.price(self._cells)
        self._number_rows()
        self._number_sizes(analysis)
        self._followers = Followers(
            graph,
            self._equations,
            {name: self._shapes[t.value] for t in graph.tensors for name in t.names},
            frozenset(i for i, column in enumerate(self._column) if column >= 0),
            self._cells,
        )
        self.modules = module_table(graph, self._followers.traced)
        self.source = Fingerprints(
            fingerprint.attributes_digest(self.modules),
            fingerprint.structure_digest(self.groups),
            fingerprint.tensors_digest(self.tensors),
        )
        self._prepare_digests(graph)

    def _number_rows(self) -> None:
        """Where groups and rows begin when their units are numbered through."""
        self.offsets = offsets_of(self.groups)
        rows = np.array([group.rows for group in self.groups], dtype=np.int64)
        self._group_of_row = np.repeat(np.arange(len(rows)), rows)
        self._first_rows = np.cumsum(rows) - rows
        lengths = self._cells[self._group_of_row]
        self._row_starts = np.cumsum(lengths) - lengths
        self._start_of_unit = np.repeat(self.offsets[:-1], np.diff(self.offsets))

    def _number_sizes(self, analysis: Analysis) -> None:
        """Numbers the sizes of values that differ in extent or in what they lose, and notes which
        columns of members must lose as much as which columns of labels.
        """
        labelled, uses = analysis.columns
        numbers: dict[tuple[int, int], int] = {}
        self._shapes = [
            [
                numbers.setdefault((size, uses.get(value, {}).get(dim, -1)), len(numbers))
                for dim, size in enumerate(x.shape)
            ]
            for value, x in enumerate(analysis.graph.values)
        ]
        self._full = np.array([size for size, _ in numbers], dtype=np.int64)
        self._column = np.array([column for _, column in numbers], dtype=np.int64)
        parts = list(_member_columns(self.groups, self.tensors, self.offsets))
        self._columns, found = labelled.joined([column for _, _, column in parts])
        pairs: dict[tuple[int, int], tuple[str, int]] = {}
        values = {tensor.name: tensor.value for tensor in analysis.graph.tensors}
        for (name, dim, _), number in zip(parts, found, strict=True):
            label = uses.get(values[name], {}).get(dim, -1)
            if number != label:
                pairs.setdefault((number, label), (name, dim))
        having = {(name, dim) for name, dim, _ in parts}
        for name, value in values.items():
            for dim, label in uses.get(value, {}).items():
                if (name, dim) not in having:
                    pairs.setdefault((-1, label), (name, dim))
        self._same = np.array(list(pairs), dtype=np.int64).reshape(-1, 2)
        self._where = list(pairs.values())

    def _prepare_digests(self, graph: Graph) -> None:
        """Packs the tables of results with gaps for what removals change."""
        gaps = [Gap(i) for i in range(len(self._full))]
        sizes = [
            gaps[i] if column >= 0 else size
            for i, (size, column) in enumerate(
                zip(self._full.tolist(), self._column.tolist(), strict=True)
            )
        ]
        shapes = [tuple(sizes[i] for i in shape) for shape in self._shapes]
        self._tensor_form = Form(
            fingerprint.tensor_rows(
                TensorSpec(t.names, shapes[t.value], t.kind) for t in graph.tensors
            )
        )
        self._shape_form = Form(
            fingerprint.shape_rows(
                (node.op, [shapes[ref.id] for ref in node.outputs if ref], node.literals)
                for node in graph.lasting
            )
        )
        traced = self._followers.traced
        self._gap_of = {key: i for i, key in enumerate(traced)}
        self._attributes = [canonical(value) for value in traced.values()]
        self._attribute_form = Form(
            fingerprint.attribute_rows(
                fingerprint.modules_after(
                    self.modules,
                    (AttributeChange(*key, traced[key], Gap(i)) for key, i in self._gap_of.items()),
                )
            )
        )

    def price(self, kept: Kept) -> Cost:
        """The cost when groups keep so many units in each row."""
        return Cost(*self._costs.values(kept).tolist())

    def gone(self, removed: Removed) -> Gone:
        """The units that go, out of those of each group.

        Raises:
            PolicyError: a group has no such unit.
        """
        gone = np.zeros(int(self.offsets[-1]) + 1, dtype=bool)
        starts = self.offsets[:-1].tolist()
        for group, start, units in zip(self.groups, starts, removed, strict=True):
            own = np.asarray(units, dtype=np.int64)
            if ((own < 0) | (own >= group.size)).any():
                raise PolicyError(
                    f"group {group}: it has no unit {int(own[(own < 0) | (own >= group.size)][0])}"
                )
            gone[start + own] = True
        return gone

    def removed(self, gone: Gone) -> Removed:
        """The units of each group that go, in order."""
        flat = np.flatnonzero(gone)
        units = (flat - self._start_of_unit[flat]).tolist()
        ends = pairwise(np.searchsorted(flat, self.offsets).tolist())
        return tuple(tuple(units[start:stop]) for start, stop in ends)

    def counts(self, gone: Gone) -> Kept:
        """What each group keeps in each row.

        Raises:
            PolicyError: rows of a group keep unequal numbers, or none; or the model cannot run
                with so many. Names the group, or the constraint.
        """
        stay = np.add.reduceat(~gone[:-1], self._row_starts, dtype=np.int64)
        kept: Kept = stay[self._first_rows]
        odd = (stay != kept[self._group_of_row]) | (stay < 1)
        if odd.any():
            g = int(self._group_of_row[odd][0])
            found = sorted(set(stay[self._group_of_row == g].tolist()))
            raise PolicyError(
                f"group {self.groups[g]}: {found} units would stay in its rows; equally many, and "
                "at least one, must stay in each"
            )
        self._check(kept)
        return kept

    def _check(self, kept: Kept) -> None:
        for g, reason in self._equations.whole.items():
            if kept[g] != self._cells[g]:
                raise PolicyError(f"group {self.groups[g]} must stay whole: {reason}")
        for i in self._conditions.broken(kept):
            constraint = self._equations.constraints[i]

            def value(variable: Variable) -> int:
                assert isinstance(variable, int)
                return int(kept[variable])

            def name(variable: Variable) -> str:
                assert isinstance(variable, int)
                return f"kept {self.groups[variable].name}"

            raise PolicyError(
                f"{constraint.left.text(name)} = {constraint.left.value(value)} must equal "
                f"{constraint.right.text(name)} = {constraint.right.value(value)}: "
                f"{constraint.reason}"
            )

    def sizes(self, gone: Gone) -> list[int]:
        """All sizes of values, by their numbers.

        Raises:
            AnalysisError: labels and members of groups disagree on one.
        """
        lost = np.append(self._columns.lost(gone), 0)  # the last is that of what cannot shrink
        differ = np.flatnonzero(lost[self._same[:, 0]] != lost[self._same[:, 1]])
        if len(differ):
            name, dim = self._where[differ[0]]
            member, label = lost[self._same[differ[0]]].tolist()
            raise AnalysisError(
                f"{name}:{dim}: the labels predict {label} indices less, the members of its groups "
                f"{member}; please report this model"
            )
        after: list[int] = (self._full - lost[self._column]).tolist()
        return after

    def changes(self, kept: Kept, sizes: Sequence[int]) -> tuple[AttributeChange, ...]:
        """The structural attributes that change."""
        return self._followers.changes(kept, sizes)

    def result(
        self, removed: Removed, sizes: Sequence[int], changes: Sequence[AttributeChange]
    ) -> tuple[Fingerprints, bytes]:
        """The fingerprints of what a plan makes, and the digest of its shapes."""
        packed = [canonical(size) for size in sizes]
        fingerprints = Fingerprints(
            self._attributes_digest(changes),
            fingerprint.pruned_structure(self.source.structure, removed),
            self._tensor_form.digest(packed),
        )
        return fingerprints, self._shape_form.digest(packed)

    def described(
        self, changes: Sequence[AttributeChange]
    ) -> tuple[tuple[ModuleSpec, ...], Fingerprints]:
        """The table of modules of a plan with these changes, and the fingerprints of its source:
        the attributes of a configuration, which is searched for, are only listed once they change.
        """
        if all((change.module, change.name) in self._gap_of for change in changes):
            return self.modules, self.source
        modules = fingerprint.joined(self.modules, fingerprint.modules_before(changes))
        return modules, replace(self.source, attributes=fingerprint.attributes_digest(modules))

    def _attributes_digest(self, changes: Sequence[AttributeChange]) -> bytes:
        packed = list(self._attributes)
        for change in changes:
            number = self._gap_of.get((change.module, change.name))
            if number is None:
                modules, _ = self.described(changes)
                return fingerprint.attributes_digest(fingerprint.modules_after(modules, changes))
            packed[number] = canonical(change.after)
        return self._attribute_form.digest(packed)


_OUTLINES: WeakKeyDictionary[Analysis, dict[str, Outline]] = WeakKeyDictionary()


def outline(analysis: Analysis, target: str) -> Outline:
    """The outline of an analysis for a target, made when first asked for."""
    of_target = _OUTLINES.setdefault(analysis, {})
    if target not in of_target:
        of_target[target] = Outline(analysis, target)
    return of_target[target]


def _member_columns(
    groups: Sequence[PlanGroup], tensors: Sequence[TensorSpec], offsets: Indices
) -> Iterator[tuple[str, int, tuple[Line, ...]]]:
    """The columns of units that the members of groups give each dimension of each tensor; of a
    ragged dimension one for each range.
    """
    shapes = {tensor.name: tensor.shape for tensor in tensors}
    expanded: dict[tuple[Run, ...], tuple[Indices, Indices]] = {}
    dense: dict[tuple[str, int], list[tuple[Indices, Indices]]] = {}
    ragged: dict[tuple[str, int], dict[object, list[tuple[Indices, Indices]]]] = {}
    for group, offset in zip(groups, offsets[:-1].tolist(), strict=True):
        for member in group.members:
            if member.runs not in expanded:
                expanded[member.runs] = member.expand()
            units, indices = expanded[member.runs]
            place, entry = (member.tensor, member.dim), (units + offset, indices)
            if member.over is None:
                dense.setdefault(place, []).append(entry)
            else:
                ragged.setdefault(place, {}).setdefault(member.over, []).append(entry)
    for place in dict.fromkeys([*dense, *ragged]):
        size, everywhere = shapes[place[0]][place[1]], dense.get(place, [])
        for entries in ragged.get(place, {None: []}).values():
            yield *place, _lines(size, [*entries, *everywhere], int(offsets[-1]))


def _lines(size: int, entries: Sequence[tuple[Indices, Indices]], nobody: int) -> tuple[Line, ...]:
    """A column of as few lines as hold all units and their indices."""
    lines: list[Line] = []
    for units, indices in entries:
        free = next((line for line in lines if (line[indices] == nobody).all()), None)
        if free is None:
            free = np.full(size, nobody, dtype=np.int64)
            lines.append(free)
        free[indices] = units
    return tuple(lines)


def _constraints(analysis: Analysis, target: str) -> tuple[WidthConstraint, ...]:
    """What binds the widths, with the names of files but no paths, which differ by machine."""
    graph = analysis.graph
    files = {node.source[0] for node in graph.nodes}
    files |= {comparison.source[0] for comparison in graph.comparisons}
    files.discard("")
    longest = sorted(files, key=lambda file: (-len(file), file))

    def short(text: str) -> str:
        for file in longest:
            text = text.replace(file, Path(file).name)
        packed = text.encode()
        return text if len(packed) <= _TEXT else packed[:_TEXT].decode(errors="ignore") + " ..."

    bounds = analysis.bounds(target)
    return tuple(dict.fromkeys(WidthConstraint(short(b.text), short(b.reason)) for b in bounds))
