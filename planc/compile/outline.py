"""Outlines: the part of a plan that depends only on the analysis, precomputed.

:class:`Outline`, made once for each analysis and target, completes it for a set of removed units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from weakref import WeakKeyDictionary

from planc.analysis import Analysis
from planc.analysis.arrays import Kept, Polynomials
from planc.analysis.grouping import UnitMask
from planc.analysis.polynomials import by_group
from planc.analysis.structure import module_table
from planc.compile.attributes import Followers
from planc.errors import AnalysisError, PolicyError
from planc.plan import fingerprint
from planc.plan.plan import (
    AttributeChange,
    Cost,
    Cut,
    Fingerprints,
    ModuleSpec,
    PlanGroup,
    TensorSpec,
    WidthConstraint,
    cuts,
)
from planc.policy.feasible import Conditions
from planc.policy.order import whole

Removed = tuple[tuple[int, ...], ...]
"""The removed units of each group."""
Shape = tuple[int, ...]
_TEXT = 1000  # bytes of a text for people, below the limit on strings in files


class Outline:
    """The common part of all plans of an analysis for one target. ``groups`` are whole."""

    def __init__(self, analysis: Analysis, target: str) -> None:
        self._graph, self._equations = analysis.graph, analysis.equations(target)
        self._index, self._predicted = analysis.grouping.index, analysis.predicted
        self.tensors = tuple(TensorSpec(t.names, t.shape, t.kind) for t in self._graph.tensors)
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
        names = {t.value: t.names for t in self._graph.tensors}
        prunable = {
            (name, dim) for value, dim in self._predicted.prunable for name in names.get(value, ())
        }
        self._followers = Followers(self._graph, self._equations, prunable, self._cells)
        self.modules = module_table(self._graph, self._followers.traced)
        self.source = Fingerprints(
            fingerprint.attributes_digest(self.modules),
            fingerprint.structure_digest(self.groups),
            fingerprint.tensors_digest(self.tensors),
        )

    def price(self, kept: Kept) -> Cost:
        """The cost for ``kept`` units of each group per row."""
        return Cost(*self._costs.values(kept).tolist())

    def gone(self, removed: Removed) -> UnitMask:
        """Mask over all units, from the removed units of each group.

        Raises:
            PolicyError: a group has no such unit.
        """
        for group, units in zip(self.groups, removed, strict=True):
            for unit in units:
                if not 0 <= unit < group.size:
                    raise PolicyError(f"group {group}: it has no unit {unit}")
        return self._index.mask(removed)

    def pruned(self, gone: UnitMask) -> tuple[PlanGroup, ...]:
        """The groups with their removed units."""
        removed = self._index.removed(gone)
        pairs = zip(self.groups, removed, strict=True)
        return tuple(replace(group, removed=units) for group, units in pairs)

    def counts(self, gone: UnitMask) -> Kept:
        """The number of units kept by each group in each row.

        Raises:
            PolicyError: rows of a group keep unequal numbers, or none; or the model cannot run
                with so many. Names the group, or the constraint.
        """
        kept: Kept = self._cells.copy()
        for g, (group, own) in enumerate(zip(self.groups, self._index.split(gone), strict=True)):
            stay = group.cells - own.reshape(group.rows, -1).sum(axis=1)
            if stay.min() != stay.max() or stay.min() < 1:
                found = sorted(set(stay.tolist()))
                raise PolicyError(
                    f"group {group}: {found} units would stay in its rows; equally many, and "
                    "at least one, must stay in each"
                )
            kept[g] = stay[0]
        self._check(kept)
        return kept

    def _check(self, kept: Kept) -> None:
        for g, reason in self._equations.whole.items():
            if kept[g] != self._cells[g]:
                raise PolicyError(f"group {self.groups[g]} must stay whole: {reason}")
        for i in self._conditions.broken(kept):
            constraint = self._equations.constraints[i]
            value = by_group(kept.tolist())
            name = by_group([f"kept {group.name}" for group in self.groups])
            raise PolicyError(
                f"{constraint.left.text(name)} = {constraint.left.value(value)} must equal "
                f"{constraint.right.text(name)} = {constraint.right.value(value)}: "
                f"{constraint.reason}"
            )

    def cuts(self, groups: tuple[PlanGroup, ...], shapes: Sequence[Shape]) -> dict[str, Cut]:
        """The kept indices of the tensors cut by groups, checked against predicted shapes.

        Args:
            groups: with their removed units.
            shapes: of all values, from :meth:`shapes`.

        Raises:
            AnalysisError: labels and members of groups disagree on a shape.
        """
        found = cuts(self.tensors, groups)
        for tensor in self._graph.tensors:
            cut, predicted = found.get(tensor.name), shapes[tensor.value]
            after = tensor.shape if cut is None else cut.shape
            for dim, (size, label, member) in enumerate(
                zip(tensor.shape, predicted, after, strict=True)
            ):
                if label != member:
                    raise AnalysisError(
                        f"{tensor.name}:{dim}: the labels predict {size - label} indices less, the "
                        f"members of its groups {size - member}; please report this model"
                    )
        return found

    def shapes(self, gone: UnitMask) -> list[Shape]:
        """The predicted shapes of all values."""
        return self._predicted.after(gone)

    def changes(self, kept: Kept, after: Sequence[TensorSpec]) -> tuple[AttributeChange, ...]:
        """The changed structural attributes, for the tensors of the pruned model."""
        shapes = {name: spec.shape for spec in after for name in spec.names}
        return self._followers.changes(kept, shapes)

    def described(
        self, changes: Sequence[AttributeChange]
    ) -> tuple[tuple[ModuleSpec, ...], Fingerprints]:
        """The module table of a plan with these changes, and the fingerprints of its source.

        Attributes of a configuration are found by search; they are listed only once changed.
        """
        if all((change.module, change.name) in self._followers.traced for change in changes):
            return self.modules, self.source
        modules = fingerprint.joined(self.modules, fingerprint.modules_before(changes))
        return modules, replace(self.source, attributes=fingerprint.attributes_digest(modules))

    def shapes_digest(self, shapes: Sequence[Shape]) -> bytes:
        """The digest of the operators' results, of the given shapes."""
        return fingerprint.shapes_digest(
            (node.op, [shapes[ref.id] for ref in node.outputs if ref], node.literals)
            for node in self._graph.lasting
        )


_OUTLINES: WeakKeyDictionary[Analysis, dict[str, Outline]] = WeakKeyDictionary()


def outline(analysis: Analysis, target: str) -> Outline:
    """The outline of an analysis for a target, made on first use."""
    of_target = _OUTLINES.setdefault(analysis, {})
    if target not in of_target:
        of_target[target] = Outline(analysis, target)
    return of_target[target]


def _constraints(analysis: Analysis, target: str) -> tuple[WidthConstraint, ...]:
    """The conditions on widths, with file names instead of paths: paths differ by machine."""
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
