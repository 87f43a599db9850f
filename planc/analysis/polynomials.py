"""Widths after pruning as polynomials: integers times products of variables.

A variable is the index of a group (its number of units kept in each row) or the key of a module's
attribute. Pure arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")
Variable = int | tuple[str, str, tuple[int, ...]]
Monomial = tuple[Variable, ...]


def _order(variable: Variable) -> tuple[int, Any]:
    return (0, variable) if isinstance(variable, int) else (1, variable)


@dataclass(frozen=True, slots=True)
class Poly:
    """A sum of monomials with nonzero integer coefficients, in a fixed order."""

    terms: tuple[tuple[Monomial, int], ...] = ()

    @staticmethod
    def of(terms: Mapping[Monomial, int]) -> Poly:
        present = [(m, c) for m, c in terms.items() if c]
        return Poly(tuple(sorted(present, key=lambda t: (len(t[0]), [_order(v) for v in t[0]]))))

    @staticmethod
    def const(value: int) -> Poly:
        return Poly.of({(): value})

    @staticmethod
    def variable(variable: Variable) -> Poly:
        return Poly.of({(variable,): 1})

    def __add__(self, other: Poly) -> Poly:
        terms = dict(self.terms)
        for monomial, c in other.terms:
            terms[monomial] = terms.get(monomial, 0) + c
        return Poly.of(terms)

    def __neg__(self) -> Poly:
        return self.scaled(-1)

    def __sub__(self, other: Poly) -> Poly:
        return self + -other

    def __mul__(self, other: Poly) -> Poly:
        terms: dict[Monomial, int] = {}
        for m, c in self.terms:
            for n, d in other.terms:
                monomial = tuple(sorted(m + n, key=_order))
                terms[monomial] = terms.get(monomial, 0) + c * d
        return Poly.of(terms)

    def scaled(self, factor: int) -> Poly:
        return Poly.of({m: c * factor for m, c in self.terms})

    @property
    def constant(self) -> int | None:
        """The value of a polynomial without variables, None for others."""
        if not self.terms:
            return 0
        if len(self.terms) == 1 and self.terms[0][0] == ():
            return self.terms[0][1]
        return None

    @property
    def variables(self) -> frozenset[Variable]:
        return frozenset(v for monomial, _ in self.terms for v in monomial)

    @property
    def degree(self) -> int:
        return max((len(monomial) for monomial, _ in self.terms), default=0)

    def divided(self, other: Poly) -> Poly | None:
        """The quotient by a polynomial of one term, None if there is a remainder."""
        if len(other.terms) != 1:
            return None
        (divisor, factor), terms = other.terms[0], {}
        for monomial, c in self.terms:
            rest = list(monomial)
            if c % factor:
                return None
            for variable in divisor:
                if variable not in rest:
                    return None
                rest.remove(variable)
            terms[tuple(rest)] = c // factor
        return Poly.of(terms)

    def substituted(self, values: Mapping[Variable, Poly]) -> Poly:
        """The polynomial with some variables replaced."""
        if not any(v in values for v in self.variables):
            return self
        total = Poly()
        for monomial, c in self.terms:
            product = Poly.const(c)
            for variable in monomial:
                product = product * values.get(variable, Poly.variable(variable))
            total = total + product
        return total

    def value(self, of: Callable[[Variable], int]) -> int:
        """The value for variables with the values ``of``."""
        total = 0
        for monomial, c in self.terms:
            for variable in monomial:
                c *= of(variable)
            total += c
        return total

    def text(self, name: Callable[[Variable], str]) -> str:
        """The polynomial in ordinary notation, with the given names of variables."""
        parts = []
        for monomial, c in self.terms:
            names = [name(v) for v in monomial]
            parts.append(" * ".join(([str(c)] if c != 1 or not names else []) + names))
        return " + ".join(parts) or "0"


def by_group(values: Sequence[T]) -> Callable[[Variable], T]:
    """The values of variables in polynomials of groups alone, from one value per group."""

    def of(variable: Variable) -> T:
        assert isinstance(variable, int), "widths are polynomials in groups alone"
        return values[variable]

    return of


def product(polys: Iterable[Poly]) -> Poly:
    result = Poly.const(1)
    for poly in polys:
        result = result * poly
    return result
