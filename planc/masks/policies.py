"""Which elements go: scores of elements in, truth values out, as small functions that compose.

Of equal scores the first in the order of tensors, and in C order within one, goes first, so that
equal scores give equal plans on every machine.
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
    """A pure function from scores to removals; ``str`` of it names it in plans."""

    def __call__(self, scores: Scores) -> dict[str, Elements]:
        """For each tensor the elements that go: an array of its shape."""


@dataclass(frozen=True, slots=True)
class PerTensor:
    """Every tensor loses the share ``ratio`` of its elements, rounded down: the lowest scores.

    Han et al., "Learning both Weights and Connections for Efficient Neural Networks", 2015.
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
    """The share ``ratio`` of all elements goes, the lowest scores of all tensors first.

    No tensor loses more than the share ``largest`` of its own, which keeps a layer from vanishing.
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
    """Of every ``m`` consecutive elements along dimension ``dim`` the ``n`` of highest score stay.

    2:4 along the rows of a matrix (``dim=1``) is what sparse tensor cores take. Mishra et al.,
    "Accelerating Sparse Deep Neural Networks", 2021.
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
    """True at the ``count`` lowest of a vector, the first ones among equals."""
    removed = np.zeros(values.shape, dtype=bool)
    if count > 0:
        threshold = np.partition(values, count - 1)[count - 1]
        removed = values < threshold
        equal = np.flatnonzero(values == threshold)
        removed[equal[: count - int(removed.sum())]] = True
    return removed
