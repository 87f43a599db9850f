"""What a policy is, and the numbers that policies are told: ratios, counts, kinds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

from planc.analysis import Analysis
from planc.criteria.scores import Scores
from planc.errors import PolicyError

Counts = tuple[int, ...]
"""For each group the number of units that stay in each row."""


class Policy(Protocol):
    """A pure function from analysis and scores to counts; ``str`` of it names it in plans."""

    def __call__(self, analysis: Analysis, scores: Scores) -> Counts:
        """How many units of a row each group keeps, at least one."""


def checked_ratio(ratio: float, what: str = "ratio") -> float:
    """The ratio if it is one.

    Raises:
        PolicyError: it is not in [0, 1).
    """
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 <= ratio < 1:
        raise PolicyError(
            f"{what} {ratio!r} is not in [0, 1): give the share of units to remove, 0.5 for half"
        )
    return float(ratio)


def checked_count(count: int, what: str, example: str) -> int:
    """The count if it is one.

    Raises:
        PolicyError: it is not a whole number from 1 on.
    """
    if isinstance(count, bool) or not isinstance(count, int):
        raise PolicyError(f"{what} {count!r} is not a whole number: {example}")
    if count < 1:
        raise PolicyError(f"{what} {count} is below 1: {example}")
    return count


def checked_kinds(analysis: Analysis, kinds: Mapping[str, float]) -> None:
    """Raises PolicyError for a kind that no group has, or a ratio out of range."""
    for kind, ratio in kinds.items():
        checked_ratio(ratio, f"kinds[{kind!r}]")
        checked_kind(analysis, kind)


def checked_kind(analysis: Analysis, kind: str) -> None:
    """Raises PolicyError for a kind that no group has."""
    present = sorted({group.kind for group in analysis.groups})
    if kind not in present:
        raise PolicyError(f"no group is of kind {kind!r}: this model has {', '.join(present)}")


def share(ratio: float, size: int) -> int:
    """The share ``ratio`` of ``size`` units, rounded down, whatever the last bit of the ratio."""
    return min(math.floor(ratio * size + 1e-9), size - 1)
