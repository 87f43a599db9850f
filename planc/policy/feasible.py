"""Feasible counts: the counts nearest to a request that satisfy the model's size equations.

The result never removes more than requested. Each connected set of constraints is a small integer
programme, solved exactly by HiGHS (Huangfu and Hall 2018, through ``scipy.optimize.milp``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from planc.analysis import Analysis
from planc.analysis.arrays import Kept, Polynomials
from planc.analysis.equations import Constraint, Equations, Operation, Quantity
from planc.analysis.polynomials import Poly, Variable
from planc.ir.groups import Group
from planc.policy.order import whole
from planc.policy.ratio import Counts


def feasible(
    analysis: Analysis,
    equations: Equations,
    wanted: Counts,
    steps: Sequence[int] | None = None,
    offsets: Sequence[int] | None = None,
) -> Counts:
    """The counts nearest to ``wanted``, none below it, under all constraints.

    Args:
        wanted: for each group, the units to keep in each row.
        steps: for each group, the step whose multiple it keeps if it shrinks.
        offsets: for each group, the number of units above this multiple, by default none.
    """
    obeyed = Constraints(analysis, equations)(np.array(wanted, dtype=np.int64), steps, offsets)
    return tuple(obeyed.tolist())


_Grid = tuple[int, int]
"""The step of a group's count, and the number of units above its multiple."""


class Constraints:
    """The constraints of a model in clusters of shared groups, ready for repeated use."""

    def __init__(self, analysis: Analysis, equations: Equations) -> None:
        self._analysis, self._whole = analysis, sorted(equations.whole)
        self._cells = whole(analysis)
        self._compiled = _compiled(equations, self._cells)
        self._solved: dict[tuple[int, tuple[int, ...], tuple[_Grid, ...]], dict[int, int]] = {}

    @property
    def groups(self) -> frozenset[int]:
        """The groups bound by a constraint."""
        return frozenset(self._whole).union(*(c.members for c in self._compiled.clusters))

    def __call__(
        self,
        wanted: Kept,
        steps: Sequence[int] | None = None,
        offsets: Sequence[int] | None = None,
    ) -> Kept:
        """The nearest counts, as :func:`feasible` returns them."""
        kept: Kept = wanted.copy()
        kept[self._whole] = self._cells[self._whole]
        broken = self._compiled.broken(kept)
        of = [1] * len(kept) if steps is None else steps
        above = [0] * len(kept) if offsets is None else offsets
        grid = [*zip(of, above, strict=True)]
        for i, cluster in enumerate(self._compiled.clusters):
            members = cluster.members
            if i not in broken and (steps is None or self._rounded(kept, grid, members)):
                continue
            key = (i, tuple(kept[members].tolist()), tuple(grid[g] for g in members))
            if key not in self._solved:
                self._solved[key] = _solve(self._analysis, cluster, kept.tolist(), grid)
            solved = self._solved[key]
            for g in members:
                kept[g] = solved[g]
        return kept

    def _rounded(self, kept: Kept, grid: Sequence[_Grid], members: list[int]) -> bool:
        own, (of, above) = kept[members], np.array([grid[g] for g in members]).T
        return bool(((own == self._cells[members]) | ((own - above) % of == 0)).all())


class Conditions:
    """Constraints on counts of at most ``whole``, compiled to arrays."""

    def __init__(self, constraints: Sequence[Constraint], whole: Kept) -> None:
        zero = {
            i: constraint.left - constraint.right
            for i, constraint in enumerate(constraints)
            if isinstance(constraint.left, Poly)
        }
        self._zero, self._numbers = Polynomials(list(zero.values()), whole), list(zero)
        self._others = [(i, c) for i, c in enumerate(constraints) if i not in zero]

    def broken(self, kept: Kept) -> list[int]:
        """The positions of the violated constraints, in order."""
        values = self._zero.values(kept)
        broken = [self._numbers[i] for i in np.flatnonzero(values).tolist()]
        if not self._others:
            return broken
        of = _counts(kept.tolist())
        return sorted([*broken, *(i for i, other in self._others if not other.holds(of))])


def _counts(kept: Sequence[int] | Mapping[int, int]) -> Callable[[Variable], int]:
    """The counts as a function of a constraint's variables, all of them groups."""

    def of(variable: Variable) -> int:
        assert isinstance(variable, int)
        return kept[variable]

    return of


class _Cluster:
    """Constraints with groups in common."""

    def __init__(self, constraints: list[Constraint]) -> None:
        self.constraints = constraints
        self.members = sorted(frozenset().union(*(c.groups for c in constraints)))

    def holds(self, kept: Mapping[int, int]) -> bool:
        of = _counts(kept)
        return all(constraint.holds(of) for constraint in self.constraints)


class _Compiled:
    """The clusters of the constraints, with one check for all of them."""

    def __init__(self, constraints: Sequence[Constraint], cells: Kept) -> None:
        self.clusters = [_Cluster(cluster) for cluster in _clusters(constraints)]
        joined = [constraint for cluster in self.clusters for constraint in cluster.constraints]
        self._owner = [i for i, c in enumerate(self.clusters) for _ in c.constraints]
        self._conditions = Conditions(joined, cells)

    def broken(self, kept: Kept) -> set[int]:
        """The positions of the clusters with a violated constraint."""
        return {self._owner[i] for i in self._conditions.broken(kept)}


_COMPILED: WeakKeyDictionary[Equations, _Compiled] = WeakKeyDictionary()


def _compiled(equations: Equations, cells: Kept) -> _Compiled:
    if equations not in _COMPILED:
        _COMPILED[equations] = _Compiled(equations.constraints, cells)
    return _COMPILED[equations]


def _clusters(constraints: Sequence[Constraint]) -> list[list[Constraint]]:
    """Constraints with groups in common, directly or through others."""
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
    analysis: Analysis, cluster: _Cluster, wanted: Sequence[int], grid: Sequence[_Grid]
) -> dict[int, int]:
    """Counts for one cluster: rows as requested if possible, else whole; at worst all whole."""
    groups, members = analysis.groups, cluster.members
    whole = {g: groups[g].cells for g in members}
    rows = [g for g in members if g in analysis.grouping.rowed]
    for fixed in ({g: wanted[g] for g in rows}, {g: whole[g] for g in rows}):
        pinned = dict(fixed)
        while True:
            programme = _Programme(groups, wanted, grid)
            stuck = next((c for c in cluster.constraints if not programme.add(c, pinned)), None)
            if stuck is None:
                break
            free = [g for g in sorted(stuck.groups) if g not in pinned]
            if not free:
                break
            pinned |= {g: whole[g] for g in free}  # not linear: these groups stay whole
        if stuck is not None:
            continue
        found = programme.solution([g for g in members if g not in pinned])
        if found is not None:
            found |= pinned
            if cluster.holds(found):
                return found
    return whole


_Linear = tuple[dict[int, int], int]
"""Coefficients by column, and the constant term."""


def _combined(op: str, parts: list[_Linear], count: int) -> _Linear | None:
    """Sum, difference or multiple of linear parts, None if the result is not linear."""
    if len(parts) < count:
        return None
    if op == "neg":
        return _times(-1, parts[0])
    if op in ("+", "-"):
        return _sum(parts[0], parts[1] if op == "+" else _times(-1, parts[1]))
    for (terms, constant), other in (parts, parts[::-1]) if op == "*" else ():
        if not any(terms.values()):
            return _times(constant, other)
    return None


def _times(factor: int, part: _Linear) -> _Linear:
    return {column: factor * c for column, c in part[0].items()}, factor * part[1]


def _sum(left: _Linear, right: _Linear) -> _Linear:
    terms = dict(left[0])
    for column, c in right[0].items():
        terms[column] = terms.get(column, 0) + c
    return terms, left[1] + right[1]


@dataclass
class _Programme:
    """An integer programme over the groups' counts and a few auxiliary integers."""

    groups: Sequence[Group]
    wanted: Sequence[int]
    grid: Sequence[_Grid]
    columns: dict[Variable | str, int] = field(default_factory=dict)
    rows: list[tuple[dict[int, int], float, float]] = field(default_factory=list)

    def column(self, key: Variable | str) -> int:
        return self.columns.setdefault(key, len(self.columns))

    def row(self, terms: Mapping[int, int], low: float, high: float) -> None:
        self.rows.append((dict(terms), low, high))

    def add(self, constraint: Constraint, pinned: Mapping[int, int]) -> bool:
        """Add a constraint; False if it is not linear after substituting the ``pinned`` counts."""
        known: dict[Variable, Poly] = {g: Poly.const(n) for g, n in pinned.items()}
        left = self._linear(constraint.left.substituted(known))
        right = self._linear(constraint.right.substituted(known))
        if left is None or right is None:
            return False
        terms, constant = _sum(left, _times(-1, right))
        self.row(terms, -constant, -constant)
        return True

    def _linear(self, quantity: Quantity) -> _Linear | None:
        """Coefficients by column and a constant; quotients and remainders become new integers."""
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
        if quantity.op in ("//", "%", "/"):
            return self._quotient(quantity)
        parts = [self._linear(arg) for arg in quantity.args]
        return _combined(quantity.op, [part for part in parts if part is not None], len(parts))

    def _quotient(self, quantity: Operation) -> _Linear | None:
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
        """The counts of ``members``, None if the rows have no solution."""
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
        """Require a multiple of the rounding step above the offset, or the whole group."""
        column, (step, offset) = self.column(g), self.grid[g]
        cells = self.groups[g].cells - offset
        if step == 1:
            return
        times = self.column(f"steps of {g}")
        self.row({times: 1}, 0, cells // step)
        if cells % step == 0:
            self.row({column: 1, times: -step}, offset, offset)
            return
        rest = self.column(f"rest of {g}")
        self.row({rest: 1}, 0, 1)
        self.row({column: 1, times: -step, rest: -(cells % step)}, offset, offset)
        self.row({times: 1, rest: -(cells // step)}, 0, np.inf)
