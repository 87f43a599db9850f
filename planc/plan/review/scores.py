"""Scores of units for review: ranks, their correlation, and the quartiles of a set."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.floating[Any]]


def rank_correlation(a: Scores, b: Scores) -> float | None:
    """Spearman's coefficient of two scores of the same units; equal scores share a rank.

    Returns:
        A number from -1 to 1, or None where all scores of one side are equal.
    """
    first, second = _ranks(a), _ranks(b)
    first, second = first - first.mean(), second - second.mean()
    scale = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return float((first * second).sum()) / scale if scale else None


def _ranks(scores: Scores) -> NDArray[np.float64]:
    _, at, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[at.reshape(-1)]
    return ranks
