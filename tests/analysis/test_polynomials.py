"""Widths as polynomials: arithmetic, division, substitution, and how they are written."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from planc.analysis.polynomials import Poly, Variable, product

TERMS = st.dictionaries(
    st.lists(st.integers(0, 3), max_size=3).map(lambda m: tuple(sorted(m))), st.integers(-5, 5)
)
POLYS = TERMS.map(Poly.of)
VALUES = st.lists(st.integers(-4, 4), min_size=4, max_size=4)


@given(POLYS, POLYS, VALUES)
def test_arithmetic_agrees_with_that_of_values(p: Poly, q: Poly, values: list[int]) -> None:
    def of(variable: Variable) -> int:
        assert isinstance(variable, int)
        return values[variable]

    assert (p + q).value(of) == p.value(of) + q.value(of)
    assert (p - q).value(of) == p.value(of) - q.value(of)
    assert (p * q).value(of) == p.value(of) * q.value(of)
    assert p.scaled(3).value(of) == 3 * p.value(of)
    known = {variable: Poly.const(values[variable]) for variable in range(4)}
    assert p.substituted(known) == Poly.const(p.value(of))


@given(POLYS, POLYS)
def test_equal_polynomials_are_equal_objects(p: Poly, q: Poly) -> None:
    assert p + q == q + p
    assert p * q == q * p
    assert p - p == Poly()
    assert hash(p + q) == hash(q + p)


@given(POLYS, st.lists(st.integers(0, 3), max_size=2), st.integers(1, 5))
def test_division_undoes_multiplication_by_one_term(p: Poly, m: list[int], c: int) -> None:
    divisor = Poly.of({tuple(sorted(m)): c})
    assert (p * divisor).divided(divisor) == p


def test_division_with_a_remainder_is_none() -> None:
    g, h = Poly.variable(0), Poly.variable(1)
    assert (g.scaled(3)).divided(Poly.const(2)) is None
    assert g.divided(h) is None
    assert (g + Poly.const(1)).divided(g) is None
    assert g.divided(g + h) is None


def test_what_is_known_of_a_polynomial() -> None:
    g, key = Poly.variable(0), ("encoder", "heads", ())
    mixed = g * Poly.variable(key) + Poly.const(3)
    assert mixed.variables == {0, key}
    assert mixed.degree == 2
    assert mixed.constant is None
    assert Poly.const(7).constant == 7
    assert Poly().constant == 0
    assert product([g, g, Poly.const(2)]).text(lambda v: f"kept {v}") == "2 * kept 0 * kept 0"
    assert mixed.text(lambda v: "g" if v == 0 else "heads") == "3 + g * heads"
    assert Poly().text(str) == "0"
