"""The policy protocol, and the checks of its numbers: ratios, counts, kinds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

from planc.analysis import Analysis
from planc.criteria.scores import Scores
from planc.errors import PolicyError

Counts = tuple[int, ...]
"""For each group, the number of units kept in each row."""


class Policy(Protocol):
    """A pure function from analysis and scores to counts. Its ``str`` names it in plans."""

    def __call__(self, analysis: Analysis, scores: Scores) -> Counts:
        """The number of units of a row kept by each group, at least one."""


def checked_ratio(ratio: float, what: str = "ratio") -> float:
    """Return the ratio.

    Raises:
        PolicyError: it is not in [0, 1).
    """
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 <= ratio < 1:
        raise PolicyError(
            f"{what} {ratio!r} is not in [0, 1): give the share of units to remove, 0.5 for half"
        )
    return float(ratio)


def checked_count(count: int, what: str, example: str) -> int:
    """Return the count.

    Raises:
        PolicyError: it is not a whole number of at least 1.
    """
    if isinstance(count, bool) or not isinstance(count, int):
        raise PolicyError(f"{what} {count!r} is not a whole number: {example}")
    if count < 1:
        raise PolicyError(f"{what} {count} is below 1: {example}")
    return count


def checked_kinds(analysis: Analysis, kinds: Mapping[str, float]) -> None:
    """Raise PolicyError for a kind absent from the model, or a ratio out of range."""
    for kind, ratio in kinds.items():
        checked_ratio(ratio, f"kinds[{kind!r}]")
        checked_kind(analysis, kind)


def checked_kind(analysis: Analysis, kind: str) -> None:
    """Raise PolicyError for a kind absent from the model."""
    present = sorted({group.kind for group in analysis.groups})
    if kind not in present:
        raise PolicyError(f"no group is of kind {kind!r}: this model has {', '.join(present)}")


def share(ratio: float, size: int) -> int:
    """The share ``ratio`` of ``size`` units, rounded down, tolerating the ratio's last bit."""
    return min(math.floor(ratio * size + 1e-9), size - 1)
