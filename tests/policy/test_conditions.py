"""Constraints asked all at once break exactly where each of them does."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from planc.analysis.equations import Constraint, Operation
from planc.analysis.polynomials import Poly, Variable
from planc.policy.feasible import Conditions

polys = st.dictionaries(
    st.lists(st.integers(0, 2), max_size=2).map(lambda m: tuple(sorted(m))),
    st.integers(-3, 3),
    max_size=3,
).map(Poly.of)
quotients = st.tuples(polys, st.integers(1, 3)).map(
    lambda pair: Operation("//", (pair[0], Poly.const(pair[1])))
)
constraints = st.lists(st.builds(Constraint, polys | quotients, polys, st.just("a test")))


@given(constraints, st.lists(st.integers(1, 6), min_size=3, max_size=3))
def test_broken_constraints_are_the_violated_ones(found: list[Constraint], kept: list[int]) -> None:
    def of(variable: Variable) -> int:
        assert isinstance(variable, int)
        return kept[variable]

    expected = [i for i, constraint in enumerate(found) if not constraint.holds(of)]
    conditions = Conditions(found, np.full(3, 6, dtype=np.int64))
    assert conditions.broken(np.array(kept, dtype=np.int64)) == expected
