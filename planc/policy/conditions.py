"""Conditions: which constraints do not hold of what groups keep, asked of all of them at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from planc.analysis.arrays import Kept, Polynomials
from planc.analysis.equations import Constraint
from planc.analysis.polynomials import Poly, Variable


class Conditions:
    """Constraints on counts none of which is above ``whole``, compiled to arrays."""

    def __init__(self, constraints: Sequence[Constraint], whole: Kept) -> None:
        zero = {
            i: constraint.left - constraint.right
            for i, constraint in enumerate(constraints)
            if isinstance(constraint.left, Poly)
        }
        self._zero, self._numbers = Polynomials(list(zero.values()), whole), list(zero)
        self._others = [(i, c) for i, c in enumerate(constraints) if i not in zero]

    def broken(self, kept: Kept) -> list[int]:
        """The places of the constraints that do not hold, in order."""
        values = self._zero.values(kept)
        broken = [self._numbers[i] for i in np.flatnonzero(values).tolist()]
        if not self._others:
            return broken
        counts = kept.tolist()

        def of(variable: Variable) -> int:
            assert isinstance(variable, int)
            count: int = counts[variable]
            return count

        return sorted([*broken, *(i for i, other in self._others if not other.holds(of))])
