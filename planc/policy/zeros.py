"""Zeros: exactly the units that are worth nothing go."""

from __future__ import annotations

from dataclasses import dataclass

from planc.analysis import Analysis
from planc.criteria.scores import Scores
from planc.policy.ratio import Counts


@dataclass(frozen=True, slots=True)
class Zeros:
    """Units whose score is zero go, as many from each row of a group as from the row that has the
    fewest of them; every group keeps a unit.

    With the criterion :class:`planc.constants.dead.Dead` these are the units whose removal
    changes no output; with a magnitude those that sparse training drove to zero.
    """

    def __str__(self) -> str:
        return "zeros"

    def __call__(self, analysis: Analysis, scores: Scores) -> Counts:
        kept = []
        for group, units in zip(analysis.groups, scores.units, strict=True):
            zeros = int((units.reshape(group.rows, -1) == 0).sum(axis=1).min())
            kept.append(max(1, group.cells - zeros))
        return tuple(kept)
