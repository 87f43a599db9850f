"""Atoms: the integers that name removable coordinates."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Atoms = NDArray[np.int64]

NEVER = 0
"""The atom that is never removed."""


def canonical(ids: Atoms) -> Atoms:
    """Renumber ``ids`` 1, 2, ... in order of first occurrence; 0 stays 0."""
    present = ids[ids != 0]
    steps = np.diff(present)
    if (steps >= 0).all():  # the common case, in order: no sorting
        numbered = np.zeros(ids.shape, dtype=np.int64)
        if len(present):
            numbered[ids != 0] = np.concatenate(([1], 1 + np.cumsum(steps > 0)))
        return numbered
    values, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
    order = np.argsort(np.where(values == 0, -1, first), kind="stable")
    rank = np.empty(len(values), dtype=np.int64)
    has_zero = bool((values == 0).any())
    rank[order] = np.arange(len(values)) + (0 if has_zero else 1)
    return rank[inverse].reshape(ids.shape)
