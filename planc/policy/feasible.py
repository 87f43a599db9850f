"""Obeying the constraints: the nearest counts that the model can run with.

In: the counts a policy asks for and the size equations. Out: counts that satisfy every one of them
and never remove more than was asked. Each connected set of constraints is a small integer
programme, solved exactly by HiGHS (Huangfu and Hall 2018, through ``scipy.optimize.milp``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from planc.analysis import Analysis
from planc.equations import Constraint, Equations, Operation, Quantity
from planc.groups import Group
from planc.policy.modifiers import step_of
from planc.policy.ratio import Counts
from planc.widths import Poly, Variable


def feasible(analysis: Analysis, equations: Equations, wanted: Counts, round_to: int = 1) -> Counts:
    """The counts nearest to ``wanted``, none below it, for which every constraint holds."""
    groups = analysis.groups
    counts = list(wanted)
    for g in equations.whole:
        counts[g] = groups[g].cells
    for cluster in _clusters(equations.constraints):
        members = sorted(frozenset().union(*(c.groups for c in cluster)))
        solved = _solve(analysis, cluster, members, counts, round_to)
        for g in members:
            counts[g] = solved[g]
    return tuple(counts)


def _clusters(constraints: Sequence[Constraint]) -> list[list[Constraint]]:
    """Constraints that share groups, directly or through others."""
    clusters: list[tuple[set[int], list[Constraint]]] = []
    for constraint in constraints:
        groups, own = set(constraint.groups), [constraint]
        apart = []
        for cluster in clusters:
            if cluster[0] & groups:
                groups |= cluster[0]
                own = cluster[1] + own
            else:
                apart.append(cluster)
        clusters = [*apart, (groups, own)]
    return [cluster for _, cluster in clusters]


def _solve(
    analysis: Analysis,
    cluster: list[Constraint],
    members: list[int],
    wanted: Sequence[int],
    round_to: int,
) -> dict[int, int]:
    """Counts for one cluster: rows as asked if there is a way, else whole; at worst all whole."""
    groups = analysis.groups
    whole = {g: groups[g].cells for g in members}
    rows = [g for g in members if g in analysis.grouping.rowed]
    for fixed in ({g: wanted[g] for g in rows}, {g: whole[g] for g in rows}):
        pinned = dict(fixed)
        while True:
            programme = _Programme(groups, wanted, round_to)
            stuck = next((c for c in cluster if not programme.add(c, pinned)), None)
            if stuck is None:
                break
            free = [g for g in sorted(stuck.groups) if g not in pinned]
            if not free:
                break
            pinned |= {g: whole[g] for g in free}  # no integer programme: they stay whole
        if stuck is not None:
            continue
        found = programme.solution([g for g in members if g not in pinned])
        if found is not None:
            found |= pinned
            if all(c.holds(lambda v, found=found: found[v]) for c in cluster):  # type: ignore[misc]
                return found
    return whole


@dataclass
class _Programme:
    """An integer programme over the groups' counts and a few auxiliary integers."""

    groups: Sequence[Group]
    wanted: Sequence[int]
    round_to: int
    columns: dict[Variable | str, int] = field(default_factory=dict)
    rows: list[tuple[dict[int, int], float, float]] = field(default_factory=list)

    def column(self, key: Variable | str) -> int:
        return self.columns.setdefault(key, len(self.columns))

    def row(self, terms: Mapping[int, int], low: float, high: float) -> None:
        self.rows.append((dict(terms), low, high))

    def add(self, constraint: Constraint, pinned: Mapping[int, int]) -> bool:
        """Adds a constraint; False if it is not linear once ``pinned`` counts are put in."""
        known: dict[Variable, Poly] = {g: Poly.const(n) for g, n in pinned.items()}
        left = self._linear(constraint.left.substituted(known))
        right = self._linear(constraint.right.substituted(known))
        if left is None or right is None:
            return False
        terms = dict(left[0])
        for column, c in right[0].items():
            terms[column] = terms.get(column, 0) - c
        value = right[1] - left[1]
        self.row(terms, value, value)
        return True

    def _linear(self, quantity: Quantity) -> tuple[dict[int, int], int] | None:
        """Coefficients by column and a constant; quotients and remainders by new integers."""
        if isinstance(quantity, Poly):
            if quantity.degree > 1:
                return None
            terms, constant = {}, 0
            for monomial, c in quantity.terms:
                if monomial:
                    terms[self.column(monomial[0])] = c
                else:
                    constant = c
            return terms, constant
        if quantity.op in ("+", "-", "neg"):
            return self._sum(quantity)
        return self._quotient(quantity)

    def _sum(self, quantity: Operation) -> tuple[dict[int, int], int] | None:
        terms: dict[int, int] = {}
        constant = 0
        for i, part in enumerate(map(self._linear, quantity.args)):
            if part is None:
                return None
            sign = -1 if quantity.op == "neg" or (quantity.op == "-" and i) else 1
            for column, c in part[0].items():
                terms[column] = terms.get(column, 0) + sign * c
            constant += sign * part[1]
        return terms, constant

    def _quotient(self, quantity: Operation) -> tuple[dict[int, int], int] | None:
        if quantity.op not in ("//", "%", "/"):
            return None
        dividend = self._linear(quantity.args[0])
        divisor = quantity.args[1]
        by = divisor.constant if isinstance(divisor, Poly) else None
        if dividend is None or by is None or by <= 0:
            return None
        terms, constant = dividend
        quotient = self.column(f"quotient {len(self.columns)}")
        rest = 0 if quantity.op == "/" else by - 1
        self.row({**terms, quotient: -by}, -constant, rest - constant)
        if quantity.op == "%":
            return {**terms, quotient: -by}, constant
        return {quotient: 1}, 0

    def solution(self, members: list[int]) -> dict[int, int] | None:
        """The counts of ``members``, None if there are none that satisfy all rows."""
        for g in members:
            self._round(g)
        n = len(self.columns)
        if not n:
            ok = all(low <= 0 <= high for terms, low, high in self.rows if not terms)
            return {} if ok else None
        low, high, price = np.full(n, -np.inf), np.full(n, np.inf), np.zeros(n)
        for g in members:
            column = self.columns[g]
            low[column], high[column] = self.wanted[g], self.groups[g].cells
            # a unit of a small group weighs more; the order of groups breaks ties
            price[column] = 1 / self.groups[g].cells * (1 + 1e-4 * column / n)
        matrix = np.zeros((len(self.rows), n))
        bounds = np.zeros((len(self.rows), 2))
        for i, (terms, least, most) in enumerate(self.rows):
            for column, c in terms.items():
                matrix[i, column] = c
            bounds[i] = least, most
        result = milp(
            price,
            integrality=np.ones(n),
            bounds=Bounds(low, high),
            constraints=LinearConstraint(matrix, bounds[:, 0], bounds[:, 1]),
            options={"time_limit": 20},
        )
        if result.x is None:
            return None
        return {g: round(float(result.x[self.columns[g]])) for g in members}

    def _round(self, g: int) -> None:
        """Counts are multiples of the rounding step, or everything stays."""
        column, cells = self.column(g), self.groups[g].cells
        step = step_of(self.groups[g], self.round_to)
        if step == 1:
            return
        times = self.column(f"steps of {g}")
        self.row({times: 1}, 0, cells // step)
        if cells % step == 0:
            self.row({column: 1, times: -step}, 0, 0)
            return
        rest = self.column(f"rest of {g}")
        self.row({rest: 1}, 0, 1)
        self.row({column: 1, times: -step, rest: -(cells % step)}, 0, 0)
        self.row({times: 1, rest: -(cells // step)}, 0, np.inf)
