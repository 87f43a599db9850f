"""The units with the lowest scores, of all groups at once.

In: scores and what each group keeps in each row. Out: the units that go, as one array of truth
values. Rows of equal length are sorted together.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from planc.criteria.scores import Scores
from planc.errors import PolicyError
from planc.ir.groups import Group
from planc.policy.ratio import Counts


def lowest(groups: Sequence[Group], scores: Scores, kept: Counts) -> NDArray[np.bool_]:
    """For each unit, numbered through over all groups, whether it goes: the lowest scores do,
    equally many in each row, the first ones among equals.

    Raises:
        PolicyError: a score is NaN.
    """
    of_length: dict[int, list[int]] = {}
    for g, group in enumerate(groups):
        of_length.setdefault(group.cells, []).append(g)
    found: list[NDArray[np.bool_]] = [np.zeros(0, dtype=bool)] * len(groups)
    for cells, alike in of_length.items():
        rows = np.concatenate([scores.units[g] for g in alike]).reshape(-1, cells)
        counts = np.repeat([cells - kept[g] for g in alike], [groups[g].rows for g in alike])
        goes = _lowest(rows, counts).reshape(-1)
        ends = np.cumsum([groups[g].size for g in alike])
        for g, own in zip(alike, np.split(goes, ends[:-1]), strict=True):
            found[g] = own
    for g in (g for g, units in enumerate(scores.units) if np.isnan(units).any()):
        raise PolicyError(f"group {groups[g]}: a score is NaN, which has no place in an order")
    return np.concatenate(found) if found else np.zeros(0, dtype=bool)


def _lowest(rows: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """The ``counts[i]`` lowest of row ``i``, the first ones among equals."""
    ordered = np.sort(rows, axis=1)
    highest = ordered[np.arange(len(rows)), np.maximum(counts, 1) - 1][:, None]
    less, equal = rows < highest, rows == highest
    missing = (counts - less.sum(axis=1))[:, None]
    goes: NDArray[np.bool_] = less | (equal & (np.cumsum(equal, axis=1) <= missing))
    return goes & (counts > 0)[:, None]
