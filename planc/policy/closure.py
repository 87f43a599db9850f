"""Closure: the smallest counts at or above a request that obey all modifiers and constraints.

Modifiers and constraints only ever raise counts. Applying them in turn therefore ends, at the
latest with every group whole.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence

import numpy as np

from planc.analysis import Analysis
from planc.analysis.arrays import Kept
from planc.analysis.equations import Equations
from planc.criteria.scores import Scores
from planc.errors import PlancWarning
from planc.policy.feasible import Constraints
from planc.policy.modifiers import Modifier, Raise, in_words
from planc.policy.order import whole
from planc.policy.ratio import Counts, Policy
from planc.policy.rounding import Rounding

EXPLAIN = "planc explain MODEL (planc.analyze(...).pins in Python) says why"


def nested(policy: Policy) -> Iterator[Policy]:
    """A policy and the policies inside it, outermost first."""
    inside: Policy | None = policy
    while inside is not None:
        yield inside
        inside = getattr(inside, "policy", None)


def modifiers(policy: Policy) -> Iterator[Modifier]:
    """The modifiers in a policy, outermost first."""
    return (inside for inside in nested(policy) if isinstance(inside, Modifier))


class Closure:
    """Raises counts until ``raises`` and the constraints of ``equations`` hold."""

    def __init__(
        self, analysis: Analysis, equations: Equations, raises: tuple[Raise, ...] = ()
    ) -> None:
        self._raises = raises
        self._constraints = Constraints(analysis, equations)
        self._roundings = [r for r in raises if isinstance(r, Rounding)]

    @property
    def bound(self) -> frozenset[int]:
        """The groups bound by a constraint of the model."""
        return self._constraints.groups

    def __call__(self, kept: Kept) -> Kept:
        """The counts, raised until everything is obeyed."""
        while True:
            before = kept
            for raised in self._raises:
                kept = raised(kept)
            kept = self._constraints(kept, *self._steps(kept))
            if np.array_equal(before, kept):
                return kept

    def _steps(self, kept: Kept) -> tuple[tuple[int, ...] | None, tuple[int, ...] | None]:
        """The step of each group's count, and the remainder by it."""
        if not self._roundings:
            return None, None
        several = zip(*(r.steps(kept).tolist() for r in self._roundings), strict=True)
        offsets = np.max([r.offsets for r in self._roundings], axis=0)
        return tuple(math.lcm(*steps) for steps in several), tuple(offsets.tolist())


def closed(analysis: Analysis, equations: Equations, scores: Scores, policy: Policy) -> Counts:
    """The counts of a policy, raised until its modifiers and the model's constraints hold.

    Warns with :class:`planc.errors.PlancWarning` if the model has no groups, or the modifiers alone
    keep every group whole.
    """
    if not analysis.groups:
        warnings.warn(f"nothing can be removed: {EXPLAIN}", PlancWarning, stacklevel=2)
    wishes = tuple(modifiers(policy))
    raises = tuple(modifier.raising(analysis) for modifier in wishes)
    wanted = np.array(policy(analysis, scores), dtype=np.int64)
    closure, full = Closure(analysis, equations, raises), whole(analysis)
    kept = closure(wanted)
    if wishes and np.array_equal(kept, full):
        least, free = np.ones_like(full), Closure(analysis, equations)
        if np.array_equal(closure(least), full) and not np.array_equal(free(least), full):
            _warn_of_nothing(analysis, wishes, raises)
    return tuple(kept.tolist())


def _warn_of_nothing(
    analysis: Analysis, wishes: Sequence[Modifier], raises: Sequence[Raise]
) -> None:
    """Name the single modifier with nothing left to remove, or all of them together."""
    full = whole(analysis)
    least = np.ones_like(full)
    alone = [w for w, r in zip(wishes, raises, strict=True) if np.array_equal(r(least), full)]
    said = " together with ".join(in_words(modifier) for modifier in alone[:1] or wishes)
    widest = max(analysis.groups, key=lambda group: group.size)
    text = (
        f"{said}: every group stays whole and nothing is removed; the largest, {widest.name}, has "
        f"{widest.size} units: ask for less"
    )
    warnings.warn(text, PlancWarning, stacklevel=2)
