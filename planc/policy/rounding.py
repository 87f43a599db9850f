"""Rounding: shrinking dimensions stay multiples of a number that suits the hardware."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from planc.analysis import Analysis
from planc.analysis.arrays import Kept, Polynomials
from planc.analysis.polynomials import Poly
from planc.policy.modifiers import Raise, Raising
from planc.policy.order import whole
from planc.policy.ratio import checked_count


@dataclass(frozen=True, slots=True)
class Rounded(Raising):
    """Round counts up, so that every shrinking dimension of every parameter and buffer is a
    multiple of ``to``, including those of concatenations and grouped weights.
    """

    to: int

    def __str__(self) -> str:
        return f"rounded({self.policy}, {self.to})"

    def raising(self, analysis: Analysis) -> Raise:
        """The next counts with every dimension whole or a multiple."""
        checked_count(self.to, "round_to", "give 8 for multiples of eight")
        return Rounding(analysis, self.to)


class Rounding:
    """Rounds counts up; groups in a dimension without a possible multiple stay whole.

    A dimension with pinned coordinates is rounded as a whole: ``offsets`` are the counts above a
    multiple of the step that fill it.
    """

    def __init__(self, analysis: Analysis, to: int) -> None:
        self.to, self.cells = to, whole(analysis)
        self.widths = Polynomials(analysis.widths, self.cells)
        self.full = self.widths.values(self.cells)
        self.users = [
            np.array(sorted(v for v in poly.variables if isinstance(v, int)), dtype=np.int64)
            for poly in analysis.widths
        ]
        self.single = np.ones(len(self.cells), dtype=np.int64)
        terms = {term for poly in analysis.widths for term in poly.terms}
        self.several = sorted((m, c) for m, c in terms if len(m) > 1)
        for monomial, factor in terms:
            if len(monomial) == 1:
                (g,) = monomial
                assert isinstance(g, int), "widths are polynomials in groups alone"
                self.single[g] = math.lcm(int(self.single[g]), to // math.gcd(to, factor))
        self.offsets = self._offsets(analysis.widths)

    def _offsets(self, widths: tuple[Poly, ...]) -> Kept:
        """For each group, the remainder of its count by its step.

        Pinned coordinates, and groups too small for a multiple, are filled up by another group.
        """
        offsets: Kept = np.zeros_like(self.cells)
        single = [_linear(poly) for poly in widths]
        small = {g for own in single for g in own if self.cells[g] < self.single[g]}
        rest = [
            dict(poly.terms).get((), 0) + sum(own[g] * int(self.cells[g]) for g in small & {*own})
            for poly, own in zip(widths, single, strict=True)
        ]
        even = {g for own, n in zip(single, rest, strict=True) if n % self.to == 0 for g in own}
        for own, n in zip(single, rest, strict=True):
            able = [g for g in own if g not in small | even]
            if n % self.to and able:
                g = able[0]
                fits = (r for r in range(self.single[g]) if (own[g] * r + n) % self.to == 0)
                offsets[g] = next(fits, 0)
        return offsets

    def steps(self, kept: Kept) -> Kept:
        """For each group, the step that makes every term of a width with it a multiple.

        If a term is a product of groups (heads x head_dim), unpruned groups are constants and the
        first pruned one is rounded.
        """
        found: Kept = self.single.copy()
        for monomial, factor in self.several:
            groups = [int(v) for v in monomial if isinstance(v, int)]
            shrinking = [g for g in groups if kept[g] < self.cells[g]] or groups
            g = shrinking[0]
            rest = factor * math.prod(int(self.cells[o]) for o in groups if o not in shrinking)
            found[g] = math.lcm(int(found[g]), self.to // math.gcd(self.to, rest))
        return found

    def __call__(self, kept: Kept) -> Kept:
        while True:
            steps = self.steps(kept)
            rounded: Kept = np.minimum(self.cells, kept + (self.offsets - kept) % steps)
            widths = self.widths.values(rounded)
            odd = (widths != self.full) & (widths % self.to != 0)
            if not odd.any():
                return rounded
            for i in np.flatnonzero(odd):
                rounded[self.users[i]] = self.cells[self.users[i]]
            kept = rounded


def _linear(width: Poly) -> dict[int, int]:
    """The factors of the groups in a width, without products of groups."""
    return {m[0]: f for m, f in width.terms if len(m) == 1 and isinstance(m[0], int)}
