"""Mask policies: select the elements to remove from scores, as small composable functions.

Ties go to the earlier tensor, and within a tensor to the earlier element in C order, so that equal
scores give equal plans on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from planc.errors import PolicyError
from planc.plan.masks import Elements
from planc.policy.ratio import checked_count, checked_ratio, share

Floats = NDArray[np.floating]
Scores = Mapping[str, Floats]
"""One finite score for each element of each tensor that may lose some."""


class MaskPolicy(Protocol):
    """A pure function from scores to removals; ``str`` of it is its name in plans."""

    def __call__(self, scores: Scores) -> dict[str, Elements]:
        """Return a boolean array for each tensor, of its shape, True at elements to remove."""


@dataclass(frozen=True, slots=True)
class PerTensor:
    """Remove the share ``ratio`` of each tensor's elements, rounded down, lowest scores first.

    Han et al., "Learning both Weights and Connections for Efficient Neural Networks", 2015.

    Args:
        ratio: share of the elements to remove, from 0 to less than 1.
    """

    ratio: float

    def __str__(self) -> str:
        return f"unstructured({self.ratio:g})"

    def __call__(self, scores: Scores) -> dict[str, Elements]:
        ratio = checked_ratio(self.ratio)
        return {
            name: _lowest(values.reshape(-1), share(ratio, values.size)).reshape(values.shape)
            for name, values in scores.items()
        }


@dataclass(frozen=True, slots=True)
class GlobalElements:
    """Remove the share ``ratio`` of all elements, the lowest scores over all tensors first.

    Args:
        ratio: share of the elements to remove, from 0 to less than 1.
        largest: upper bound on the share removed from a single tensor, to prevent empty layers.
    """

    ratio: float
    largest: float = 1.0

    def __str__(self) -> str:
        largest = f", largest={self.largest:g}" if self.largest < 1 else ""
        return f"unstructured global({self.ratio:g}{largest})"

    def __call__(self, scores: Scores) -> dict[str, Elements]:
        ratio = checked_ratio(self.ratio)
        if self.largest != 1:
            checked_ratio(self.largest, "largest")
        flat = [values.reshape(-1) for values in scores.values()]
        eligible = flat
        if self.largest < 1:
            eligible = [
                np.where(_lowest(values, share(self.largest, values.size)), values, np.inf)
                for values in flat
            ]
        every = np.concatenate(eligible) if eligible else np.zeros(0)
        count = min(share(ratio, every.size), int(np.isfinite(every).sum()))
        parts = np.split(_lowest(every, count), np.cumsum([values.size for values in flat])[:-1])
        return {
            name: part.reshape(values.shape)
            for (name, values), part in zip(scores.items(), parts, strict=False)
        }


@dataclass(frozen=True, slots=True)
class NofM:
    """Keep the ``n`` highest scores of every ``m`` consecutive elements along dimension ``dim``.

    2:4 along the rows of a matrix (``dim=1``) is supported by sparse tensor cores. Mishra et al.,
    "Accelerating Sparse Deep Neural Networks", 2021.

    Args:
        n: elements kept in each block, from 1 to ``m``.
        m: elements in each block; the size of the dimension must be a multiple.
        dim: dimension of the blocks; negative values count from the last.
    """

    n: int = 2
    m: int = 4
    dim: int = 1

    def __str__(self) -> str:
        return f"{self.n}:{self.m} along {self.dim}"

    def __call__(self, scores: Scores) -> dict[str, Elements]:
        n = checked_count(self.n, "n", "2 for 2:4")
        m = checked_count(self.m, "m", "4 for 2:4")
        if n > m:
            raise PolicyError(f"{n}:{m} keeps more elements than there are: give n below m")
        return {name: self._one(name, values, n, m) for name, values in scores.items()}

    def _one(self, name: str, values: Floats, n: int, m: int) -> Elements:
        if not -values.ndim <= self.dim < values.ndim:
            raise PolicyError(
                f"{name} has shape {list(values.shape)} and no dimension {self.dim} for {n}:{m}; "
                f"leave it out with keep=({name!r},)"
            )
        size = values.shape[self.dim]
        if size % m:
            raise PolicyError(
                f"{name} has {size} elements along dimension {self.dim}, not a multiple of {m} for "
                f"{n}:{m}; leave it out with keep=({name!r},)"
            )
        moved = np.moveaxis(values, self.dim, -1)
        blocks = moved.reshape(*moved.shape[:-1], size // m, m)
        order = np.argsort(blocks, axis=-1, kind="stable")
        removed = np.zeros(blocks.shape, dtype=bool)
        np.put_along_axis(removed, order[..., : m - n], True, axis=-1)
        return np.ascontiguousarray(np.moveaxis(removed.reshape(moved.shape), -1, self.dim))


def _lowest(values: Floats, count: int) -> Elements:
    """Return a mask of the ``count`` lowest values of a vector; ties go to the lower index."""
    removed = np.zeros(values.shape, dtype=bool)
    if count > 0:
        threshold = np.partition(values, count - 1)[count - 1]
        removed = values < threshold
        equal = np.flatnonzero(values == threshold)
        removed[equal[: count - int(removed.sum())]] = True
    return removed
