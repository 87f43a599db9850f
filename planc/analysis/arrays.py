"""Many polynomials evaluated at once: widths and costs compiled to arrays.

Polynomials in kept units (:mod:`planc.analysis.polynomials`) give their values, and their rise with
a wider group, in microseconds. The results are exact: Python integers replace 64 bits where needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planc.analysis.polynomials import Poly, by_group

Kept = NDArray[np.int64]
"""The number of units kept in each row, by group."""

_SAFE = 1 << 62


class Polynomials:
    """``polys`` in the groups' counts, compiled to arrays; no count exceeds ``whole``."""

    def __init__(self, polys: Sequence[Poly], whole: Kept) -> None:
        groups = len(whole)
        terms = [(i, m, c) for i, poly in enumerate(polys) for m, c in poly.terms]
        degree = max((len(m) for _, m, _ in terms), default=0)
        sizes = (Poly(tuple((m, abs(c)) for m, c in poly.terms)) for poly in polys)
        bound = max((size.value(by_group(whole.tolist())) for size in sizes), default=0)
        kind: Any = np.int64 if bound < _SAFE else object
        self._count, self._groups, self._kind = len(polys), groups, kind
        self._owner = np.array([i for i, _, _ in terms], dtype=np.int64)
        self._factor = np.array([c for _, _, c in terms], dtype=kind)
        # group number `groups` stands for the constant 1
        self._places = np.full((len(terms), degree), groups, dtype=np.int64)
        touched: list[tuple[int, int, int]] = []
        for t, (_, monomial, _) in enumerate(terms):
            self._places[t, : len(monomial)] = monomial
            for g in dict.fromkeys(monomial):
                assert isinstance(g, int), "widths are polynomials in groups alone"
                touched.append((t, g, monomial.count(g)))
        self._term, self._group, self._power = (
            np.array([entry[i] for entry in touched], dtype=np.int64) for i in range(3)
        )
        rest = self._places[self._term]
        self._rest = np.where(rest == self._group[:, None], groups, rest)

    def values(self, kept: Kept) -> NDArray[Any]:
        """The value of each polynomial."""
        return self._sums(self._owner, self._factor * self._products(self._places, kept))

    def rises(self, kept: Kept, steps: Kept) -> NDArray[Any]:
        """The rise of polynomial i if group g alone keeps ``steps[g]`` more units per row: ``[i,
        g]``.
        """
        now = kept.astype(self._kind)[self._group]
        rise = (now + steps.astype(self._kind)[self._group]) ** self._power - now**self._power
        rise = rise * self._factor[self._term] * self._products(self._rest, kept)
        total = np.zeros((self._count, self._groups), dtype=self._kind)
        np.add.at(total, (self._owner[self._term], self._group), rise)
        return total

    def _products(self, places: NDArray[np.int64], kept: Kept) -> NDArray[Any]:
        extended = np.append(kept, 1).astype(self._kind)
        result: NDArray[Any] = extended[places].prod(axis=1)
        return result

    def _sums(self, owner: NDArray[np.int64], values: NDArray[Any]) -> NDArray[Any]:
        total = np.zeros(self._count, dtype=self._kind)
        np.add.at(total, owner, values)
        return total
