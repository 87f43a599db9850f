"""One to three plans side by side: their groups and tensors matched by name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING

from planc.cli.report.scores import Distribution, distribution
from planc.errors import PlancError
from planc.plan.head import LETTERS
from planc.plan.plan import Plan, PlanGroup

if TYPE_CHECKING:
    from planc.analysis import Analysis

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Sizes:
    """A tensor before, and after each plan; None where a plan has no such tensor."""

    name: str
    kind: str
    before: Shape
    after: tuple[Shape | None, ...]

    @property
    def changed(self) -> bool:
        return any(shape != self.before for shape in self.after)

    @property
    def counts(self) -> list[int]:
        """Elements before, and after each plan."""
        return [0 if shape is None else prod(shape) for shape in (self.before, *self.after)]


@dataclass(frozen=True, slots=True)
class Row:
    """A group in each plan; None where a plan has no group of that name."""

    sides: tuple[PlanGroup | None, ...]

    @property
    def group(self) -> PlanGroup:
        """The group in the first plan with one of that name."""
        return next(side for side in self.sides if side is not None)

    @property
    def comparable(self) -> bool:
        """True if all plans have the group, with equally many units."""
        return all(side is not None and side.size == self.group.size for side in self.sides)

    @property
    def pruned(self) -> bool:
        return any(side is not None and side.removed for side in self.sides)

    @property
    def differs(self) -> bool:
        """True if plans remove other units, or describe the group otherwise; scores aside."""
        first = replace(self.group, scores=None)
        return any(side is None or replace(side, scores=None) != first for side in self.sides)

    @property
    def common(self) -> float | None:
        """Share of the units removed by any plan that all plans remove; None if not comparable."""
        if not self.comparable:
            return None
        sets = [set(side.removed) for side in self.sides if side is not None]
        either = len(set[int]().union(*sets))
        return len(sets[0].intersection(*sets)) / either if either else 1.0


@dataclass(frozen=True)
class Sides:
    """The plans of a page."""

    plans: tuple[Plan, ...]

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """Groups in the order of the first plan, then those of the others."""
        tables = [{group.name: group for group in plan.groups} for plan in self.plans]
        names = dict.fromkeys(name for table in tables for name in table)
        return tuple(Row(tuple(table.get(name) for table in tables)) for name in names)

    @cached_property
    def scores(self) -> tuple[tuple[Distribution | None, ...], ...]:
        """The distribution of scores of each row, for each plan."""
        return tuple(
            tuple(None if side is None else distribution(side) for side in row.sides)
            for row in self.rows
        )

    def macs(self, analysis: Analysis) -> dict[str, tuple[int, ...]]:
        """MACs of each module before, and after each plan.

        Raises:
            PlancError: the analysis is not that of the model of the plans.
        """
        cells = [group.cells for group in analysis.groups]
        columns = [analysis.macs_by_module(cells)]
        for letter, plan in zip(LETTERS, self.plans, strict=False):
            kept = {group.name: group.kept // group.rows for group in plan.groups}
            names = [group.name for group in analysis.groups]
            columns.append(analysis.macs_by_module([kept.get(name, 0) for name in names]))
            found = [sum(columns[0].values()), sum(columns[-1].values())]
            expected = [plan.cost_before.macs, plan.cost_after.macs]
            if found != expected or set(kept) != set(names):
                raise PlancError(
                    f"the analysis has {len(names)} groups and {found[0]:,} MACs, plan {letter} "
                    f"{len(kept)} groups and {expected[0]:,} MACs: give the analysis of the model "
                    "and the inputs that the plan is made for"
                )
        return {name: tuple(column[name] for column in columns) for name in columns[0]}

    @cached_property
    def tensors(self) -> tuple[Sizes, ...]:
        """Tensors in the order of the first plan, then those of the others."""
        tables = [_after(plan) for plan in self.plans]
        specs = {tensor.name: tensor for plan in reversed(self.plans) for tensor in plan.tensors}
        names = dict.fromkeys(name for table in tables for name in table)
        return tuple(
            Sizes(name, specs[name].kind, specs[name].shape, tuple(t.get(name) for t in tables))
            for name in names
        )


def _after(plan: Plan) -> dict[str, Shape]:
    shapes = {tensor.name: tensor.shape for tensor in plan.tensors}
    return shapes | {name: cut.shape for name, cut in plan.cuts.items()}
