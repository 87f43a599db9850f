"""First-order changes of a batch's loss on removal of a unit, as sums over the batches.

For each batch, the gradients of all parameters yield the terms of the sums kept for every group by
:class:`planc.criteria.statistics.Statistics`; later their means are read. A change is a sum over a
unit, raised to a power before the batches are added up, so the units must be known while the model
runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from planc.analysis import Analysis
from planc.criteria.additive import Additive
from planc.criteria.members import Members, Values
from planc.criteria.scores import Weights, named_in
from planc.criteria.sources import Sources
from planc.criteria.statistics import CHANGES, MEMBER_CHANGES, Statistics
from planc.ir.graph import Tensor


@dataclass(frozen=True, eq=False)
class Change(Additive):
    """c = sum of weight times gradient over everything removed with a unit, for one gradient."""

    gradients: Weights

    def __str__(self) -> str:
        return "change of the loss"

    def element(self, sources: Sources, tensor: Tensor) -> torch.Tensor | None:
        """w g; None for a parameter without a gradient."""
        gradient = named_in(self.gradients, tensor)
        return None if gradient is None else (sources.weight(tensor).conj() * gradient).real


def changes_of_batch(
    analysis: Analysis, weights: Weights, gradients: Weights
) -> Iterator[tuple[str, str, torch.Tensor]]:
    """The terms of one batch: quantity, group, and |c| and c^2 of each unit, in total and in each
    of its members.
    """
    change = Change(gradients)
    members = change.members(analysis, weights)
    ends = np.searchsorted(members.unit, analysis.places.offsets)
    for g, (group, whole) in enumerate(
        zip(analysis.groups, change(analysis, weights), strict=True)
    ):
        if whole is not None:
            yield CHANGES, group.name, _moments(whole)
            yield MEMBER_CHANGES, group.name, _moments(members.values[ends[g] : ends[g + 1]])


def mean_changes(analysis: Analysis, statistics: Statistics, p: int) -> tuple[Values | None, ...]:
    """For each unit of each group, the mean of |c|^p over the batches; p is 1 or 2."""
    return tuple(
        _mean(statistics, CHANGES, group.name, group.size, p) if n else None
        for group, n in zip(analysis.groups, _entries(analysis), strict=True)
    )


def mean_member_changes(analysis: Analysis, statistics: Statistics, p: int) -> Members:
    """The same for each unit in each of its members."""
    parts = [
        _mean(statistics, MEMBER_CHANGES, group.name, int(n), p)
        for group, n in zip(analysis.groups, _entries(analysis), strict=True)
        if n
    ]
    values = np.concatenate(parts) if parts else np.zeros(0)
    return Members(analysis, analysis.places.pairs.unit, values)


def _entries(analysis: Analysis) -> NDArray[np.int64]:
    """For each group, the number of members of all its units together."""
    found: NDArray[np.int64] = np.diff(
        np.searchsorted(analysis.places.pairs.unit, analysis.places.offsets)
    )
    return found


def _moments(changes: Values) -> torch.Tensor:
    """``[2, ...]``: |c| and c^2."""
    return torch.from_numpy(np.stack([np.abs(changes), changes * changes]))


def _mean(statistics: Statistics, quantity: str, group: str, size: int, p: int) -> Values:
    found: Values = statistics.mean(quantity, (group,), (2, size))[p - 1].double().numpy()
    return found
