"""Solution of equations: attributes as polynomials in kept units, and the remaining constraints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from planc.analysis.equations.quantities import Constraint, Equations, Key, Quantity
from planc.analysis.grouping import Grouping
from planc.analysis.polynomials import Poly, Variable
from planc.ir.graph import Graph
from planc.ir.groups import joined


class Solver:
    """Solves equations for the attributes in them."""

    def __init__(self, graph: Graph, grouping: Grouping, found: Sequence[Constraint]) -> None:
        self.graph, self.grouping, self.found = graph, grouping, found
        self.attributes: dict[Variable, Poly] = {}

    def equations(self, whole: Mapping[int, str], numbers: Mapping[Key, str]) -> Equations:
        """The equations with every determined attribute eliminated.

        Args:
            whole: unpruned groups, with the reason.
            numbers: attributes used as numbers, with the operator.
        """
        self._define()
        fixed: dict[Variable, Poly] = dict(self.attributes)
        for constraint in self.found:
            for variable in constraint.left.variables | constraint.right.variables:
                if not isinstance(variable, int) and variable not in fixed:
                    fixed[variable] = Poly.const(_traced(self.graph, variable))
        kept: dict[tuple[Quantity, Poly], Constraint] = {}
        for constraint in self.found:
            left, right = constraint.left.substituted(fixed), constraint.right.substituted(fixed)
            assert isinstance(right, Poly)
            if left != right:
                kept.setdefault((left, right), Constraint(left, right, constraint.reason))
        attributes = {k: p for k, p in self.attributes.items() if not isinstance(k, int)}
        mixing: dict[int, list[str]] = {}
        for key, reason in numbers.items():
            for v in attributes.get(key, Poly()).variables:
                if isinstance(v, int):
                    mixing.setdefault(v, []).append(reason)
        reasons = {v: joined(found) for v, found in mixing.items()}
        return Equations(attributes, tuple(kept.values()), whole, reasons)

    def _define(self) -> None:
        """Determine the polynomial of every attribute with a solvable equation."""
        for exact in (True, False):
            self._define_all(exact, self.attributes)
        tied = self._tied_widths()
        if tied:  # 3 * head_size is a width only because three parts are equal
            self._define_all(False, {**self.attributes, **tied})
        self._define_one_of_several()

    def _define_all(self, exact: bool, known: Mapping[Variable, Poly]) -> None:
        for constraint in self.found:
            known = {**known, **self.attributes}
            left, right = constraint.left.substituted(known), constraint.right.substituted(known)
            assert isinstance(right, Poly)
            if isinstance(left, Poly):
                self._define_by(left, right, exact)
            elif not exact and len(_attributes(left)) == 1:
                for inner, value in _inverted(left, right):
                    self._define_by(inner, value, exact)

    def _define_one_of_several(self) -> None:
        """Determine an attribute of an equation with several (``fields * width``), the others
        keeping their values: the one that leaves most equations true.
        """
        for constraint in self.found:
            left = constraint.left.substituted(self.attributes)
            unknown = [v for v in _attributes(left) if v not in self.attributes]
            right = constraint.right.substituted(self.attributes)
            if len(unknown) < 2 or not isinstance(right, Poly) or right.constant is not None:
                continue
            found = {}
            for attribute in sorted(unknown, key=str):
                others = {v: self._as_traced(v) for v in unknown if v != attribute}
                alone = left.substituted(others)
                for inner, outer in _inverted(alone, right):
                    value = self._solved(inner, outer, exact=False)
                    if value is not None and value[0] == attribute:
                        found[attribute] = value[1]
            broken = {
                attribute: self._broken({attribute: value}) for attribute, value in found.items()
            }
            best = [a for a, count in broken.items() if count == min(broken.values())]
            if len(best) == 1:  # of two attributes of one value, either could be meant
                self.attributes[best[0]] = found[best[0]]

    def _as_traced(self, attribute: Variable) -> Poly:
        assert not isinstance(attribute, int)
        return Poly.const(_traced(self.graph, attribute))

    def _broken(self, values: Mapping[Variable, Poly]) -> int:
        """The number of equations that are not true with these attributes, the others as traced."""
        broken = 0
        for constraint in self.found:
            variables = constraint.left.variables | constraint.right.variables
            if variables.isdisjoint(values):
                continue
            attributes = (v for v in variables if not isinstance(v, int))
            fixed: dict[Variable, Poly] = {v: self._as_traced(v) for v in attributes}
            fixed |= {**self.attributes, **values}
            broken += constraint.left.substituted(fixed) != constraint.right.substituted(fixed)
        return broken

    def _tied_widths(self) -> dict[Variable, Poly]:
        """Kept units of groups, in terms of other groups by some constraint."""
        tied: dict[Variable, Poly] = {}
        for constraint in self.found:
            left = constraint.left.substituted(self.attributes)
            if not isinstance(left, Poly) or _attributes(left):
                continue
            zero = (left - constraint.right).substituted(tied)
            for monomial, c in zero.terms:
                if len(monomial) == 1 and abs(c) == 1 and _occurrences(zero, monomial[0]) == 1:
                    others = zero - Poly.of({monomial: c})
                    own = {monomial[0]: others.scaled(-c)}
                    tied = {v: poly.substituted(own) for v, poly in tied.items()} | own
                    break
        return tied

    def _define_by(self, left: Poly, right: Poly, exact: bool) -> None:
        solved = self._solved(left, right, exact)
        if solved is not None:
            self.attributes[solved[0]] = solved[1]

    def _solved(self, left: Poly, right: Poly, exact: bool) -> tuple[Variable, Poly] | None:
        """Solve ``factor * attribute + rest = right`` for the one attribute on the left."""
        unknown = _attributes(left)
        if len(unknown) != 1 or not _settable(unknown[0]) or unknown[0] in self.attributes:
            return None
        own = {m: c for m, c in left.terms if unknown[0] in m}
        factor = Poly.of(own).divided(Poly.variable(unknown[0]))
        if factor is None or unknown[0] in factor.variables:
            return None
        rest = right - (left - Poly.of(own))
        if exact and (factor.constant != 1 or rest.constant is not None):
            return None
        value = rest.divided(factor)
        if value is not None and self._is_traced(unknown[0], value):
            return unknown[0], value
        return None

    def _is_traced(self, attribute: Variable, value: Poly) -> bool:
        """True if the value equals the traced one with nothing removed."""
        assert not isinstance(attribute, int)

        def full(variable: Variable) -> int:
            groups = self.grouping.groups
            return groups[variable].cells if isinstance(variable, int) else 0

        return value.value(full) == _traced(self.graph, attribute)


def _occurrences(poly: Poly, variable: Variable) -> int:
    """The number of terms with a variable."""
    return sum(variable in monomial for monomial, _ in poly.terms)


def _attributes(quantity: Quantity) -> list[Variable]:
    return [variable for variable in quantity.variables if not isinstance(variable, int)]


def _inverted(left: Quantity, right: Poly) -> Iterator[tuple[Poly, Poly]]:
    """Equations between polynomials implied by ``left = right``."""
    if isinstance(left, Poly):
        yield left, right
        return
    if len(left.args) != 2:
        return
    one, other = left.args
    if isinstance(other, Poly):
        yield from _undone(left.op, one, other, right)
    if isinstance(one, Poly):
        yield from _undone_second(left.op, one, other, right)


def _undone(op: str, one: Quantity, other: Poly, right: Poly) -> Iterator[tuple[Poly, Poly]]:
    """``one op other = right``, solved for the first operand."""
    solved = {"+": right - other, "-": right + other, "//": right * other}.get(op)
    solved = right.divided(other) if op == "*" else solved
    if solved is not None:
        yield from _inverted(one, solved)


def _undone_second(op: str, one: Poly, other: Quantity, right: Poly) -> Iterator[tuple[Poly, Poly]]:
    """``one op other = right``, solved for the second operand."""
    solved = {"+": right - one, "-": one - right}.get(op)
    if op in ("*", "//"):
        solved = right.divided(one) if op == "*" else one.divided(right)
    if solved is not None:
        yield from _inverted(other, solved)


def _settable(variable: Variable) -> bool:
    return not isinstance(variable, int) and not variable[1].startswith("_")


def _traced(graph: Graph, key: Key) -> int:
    value: Any = graph.modules[key[0]].attributes[key[1]]
    for i in key[2]:
        value = value[i]
    return int(value)
