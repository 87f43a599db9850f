"""Criteria made of criteria: scores on one scale in every group, and a fallback criterion."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from planc.analysis import Analysis
from planc.criteria.members import Values
from planc.criteria.scores import Criterion, Opinions, Weights, is_relative, opinions
from planc.criteria.statistics import Statistics, needs_of
from planc.errors import PolicyError

Normalization = Literal["mean", "max", "sum", "standardization", "gaussian", "none"]


def _over(scores: Values, by: float) -> Values:
    """The quotient; scores stay unchanged where the divisor is not positive."""
    return scores / by if by > 0 else scores


_NORMALIZATIONS: Mapping[str, Callable[[Values], Values]] = {
    "mean": lambda scores: _over(scores, float(scores.mean())),
    "max": lambda scores: _over(scores, float(scores.max())),
    "sum": lambda scores: _over(scores, float(scores.sum())),
    "standardization": lambda scores: _over(
        scores - scores.min(), float(scores.max() - scores.min())
    ),
    "gaussian": lambda scores: _over(scores - scores.mean(), float(scores.std())),
    "none": lambda scores: scores,
}


@dataclass(frozen=True)
class Normalized:
    """A criterion's scores on one scale in each group, so that groups can compete.

    A ranking over several groups takes them as they are.

    For the scores x of a group, ``by`` selects the scale: ``mean``, ``max`` and ``sum`` divide by
    that value, ``standardization`` is (x - min) / (max - min), ``gaussian`` is (x - mean) /
    standard deviation, ``none`` keeps x. A divisor of 0 is left out.

    Raises:
        PolicyError: the normalization is unknown.
    """

    criterion: Criterion
    by: Normalization = "mean"

    def __post_init__(self) -> None:
        if not isinstance(self.by, str) or self.by not in _NORMALIZATIONS:
            known = ", ".join(get_args(Normalization))
            raise PolicyError(f"unknown normalization {self.by!r}: choose one of {known}")

    def __str__(self) -> str:
        return f"{self.criterion}, by {self.by}"

    @property
    def needs(self) -> tuple[str, ...]:
        """The required statistics."""
        return needs_of(self.criterion)

    def __call__(
        self, analysis: Analysis, weights: Weights, statistics: Statistics | None = None
    ) -> Opinions:
        return tuple(
            None if scores is None else _NORMALIZATIONS[self.by](scores)
            for scores in opinions(self.criterion, analysis, weights, statistics)
        )


@dataclass(frozen=True)
class Fallback:
    """The scores of ``first``, and of ``second`` for groups where ``first`` is undefined, such as
    groups without batch normalization in network slimming.

    The scales of the two may differ: normalize both where groups compete.
    """

    first: Criterion
    second: Criterion

    def __str__(self) -> str:
        return f"{self.first}, else {self.second}"

    @property
    def needs(self) -> tuple[str, ...]:
        """The required statistics."""
        return tuple(dict.fromkeys((*needs_of(self.first), *needs_of(self.second))))

    @property
    def relative(self) -> bool:
        """True if neither criterion has a scale of its own."""
        return is_relative(self.first) and is_relative(self.second)

    def __call__(
        self, analysis: Analysis, weights: Weights, statistics: Statistics | None = None
    ) -> Opinions:
        first = opinions(self.first, analysis, weights, statistics)
        if all(scores is not None for scores in first):
            return first
        second = opinions(self.second, analysis, weights, statistics)
        return tuple(
            other if scores is None else scores for scores, other in zip(first, second, strict=True)
        )
