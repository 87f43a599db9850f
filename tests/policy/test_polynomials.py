"""Polynomials in arrays are those of planc.analysis.polynomials, to the last digit."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from planc.analysis.arrays import Polynomials
from planc.analysis.polynomials import Poly

GROUPS = 4
monomials = st.lists(st.integers(0, GROUPS - 1), max_size=4).map(lambda m: tuple(sorted(m)))
polys = st.dictionaries(monomials, st.integers(-(10**6), 10**6), max_size=6).map(Poly.of)
counts = st.lists(st.integers(1, 10**4), min_size=GROUPS, max_size=GROUPS)


def value(poly: Poly, kept: list[int]) -> int:
    return poly.value(lambda g: kept[g])  # type: ignore[index]


@given(st.lists(polys, max_size=4), counts, st.data())
def test_values_and_rises_are_exact(
    some: list[Poly], whole: list[int], data: st.DataObject
) -> None:
    kept = [data.draw(st.integers(1, n)) for n in whole]
    steps = [data.draw(st.integers(0, n - k)) for n, k in zip(whole, kept, strict=True)]
    compiled = Polynomials(some, np.array(whole))
    assert compiled.values(np.array(kept)).tolist() == [value(poly, kept) for poly in some]
    rises = compiled.rises(np.array(kept), np.array(steps))
    for i, poly in enumerate(some):
        for g in range(GROUPS):
            more = [n + steps[g] * (h == g) for h, n in enumerate(kept)]
            assert rises[i, g] == value(poly, more) - value(poly, kept)


def test_values_beyond_64_bits_are_exact() -> None:
    poly = Poly.of({(0, 0, 0, 0): 1, (): 1})
    compiled = Polynomials([poly], np.array([10**6]))
    assert compiled.values(np.array([10**6])).tolist() == [10**24 + 1]
