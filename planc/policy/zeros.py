"""Zeros: remove every unit whose score is at most a threshold."""

from __future__ import annotations

from dataclasses import dataclass

from planc.analysis import Analysis
from planc.criteria.scores import Scores
from planc.errors import PolicyError
from planc.policy.ratio import Counts


@dataclass(frozen=True, slots=True)
class Zeros:
    """Remove the units with a score of at most ``threshold``.

    Every row of a group loses as many units as the row with the fewest of them; every group keeps a
    unit. With the criterion :class:`planc.criteria.dead.Dead` these are the units without any
    effect on the outputs; with a magnitude, the units driven to zero by sparse training, or close
    to it.

    Raises:
        PolicyError: ``threshold`` is not a number of at least 0.
    """

    threshold: float = 0.0

    def __post_init__(self) -> None:
        number = isinstance(self.threshold, int | float) and not isinstance(self.threshold, bool)
        if not number or not self.threshold >= 0:
            raise PolicyError(
                f"Zeros: threshold {self.threshold!r} is the largest score that counts as zero; "
                "give 0 or more"
            )

    def __str__(self) -> str:
        return f"zeros({self.threshold:g})" if self.threshold else "zeros"

    def __call__(self, analysis: Analysis, scores: Scores) -> Counts:
        kept = []
        for group, units in zip(analysis.groups, scores.units, strict=True):
            zeros = units.reshape(group.rows, -1) <= self.threshold
            kept.append(max(1, group.cells - int(zeros.sum(axis=1).min())))
        return tuple(kept)
