"""Groups: coordinates of tensors removed together, in compressed form.

A **unit** is the smallest removable part; a **group** is a set of alike units. Each **member** of a
group is a tensor dimension with the map from units to its indices, kept as a few arithmetic
:class:`Run` s. Pure data and NumPy, without torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True, order=True)
class Run:
    """The indices of ``count`` consecutive units: unit ``unit + i`` has the indices ``start + i *
    step + r * stride + s`` for ``r < repeats`` and ``s < span``.

    A flattened channel of a 7 x 7 map has span 49 and step 49; a channel in the last dimension
    before flattening has step 1, repeats 49 and stride C.
    """

    unit: int
    count: int
    start: int
    step: int
    span: int = 1
    repeats: int = 1
    stride: int = 0

    @property
    def largest(self) -> int:
        last = max(0, (self.count - 1) * self.step)
        return self.start + last + (self.repeats - 1) * self.stride + self.span - 1

    @property
    def length(self) -> int:
        """The number of indices."""
        return self.count * self.repeats * self.span

    def expand(self) -> tuple[Indices, Indices]:
        """Units and their indices, as two arrays of length ``count * repeats * span``."""
        unit = np.arange(self.count)
        inside = np.arange(self.repeats)[:, None] * self.stride + np.arange(self.span)
        index = (self.start + unit * self.step)[:, None] + inside.reshape(-1)
        return np.repeat(unit + self.unit, inside.size), index.reshape(-1)

    def indices(self, chosen: NDArray[np.bool_]) -> Indices:
        """The indices of the units marked in ``chosen``, unit by unit."""
        units = np.flatnonzero(chosen[self.unit : self.unit + self.count])
        heads: Indices = self.start + units * self.step
        if self.repeats == self.span == 1:
            return heads
        inside = np.arange(self.repeats)[:, None] * self.stride + np.arange(self.span)
        return (heads[:, None] + inside.reshape(-1)).reshape(-1)


@dataclass(frozen=True, slots=True, order=True)
class Over:
    """The range ``start <= i < stop`` of dimension ``dim``, the extent of a ragged member."""

    dim: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Member:
    """Dimension ``dim`` of tensor ``tensor`` with the indices of each unit.

    With ``over``, the indices are those in one range of another dimension (in dimension 1 of a
    grouped convolution's weight, each block of dimension 0 has its own channels).
    """

    tensor: str
    dim: int
    runs: tuple[Run, ...]
    over: Over | None = None

    def __str__(self) -> str:
        if self.over is None:
            return f"{self.tensor}:{self.dim}"
        return f"{self.tensor}:{self.dim} over {self.over.dim}[{self.over.start}:{self.over.stop}]"

    def expand(self) -> tuple[Indices, Indices]:
        """Units and their indices, run by run."""
        pairs = [run.expand() for run in self.runs]
        units = np.concatenate([unit for unit, _ in pairs])
        return units, np.concatenate([index for _, index in pairs])


_BETWEEN = "; "
_LONGEST = 1_000  # bytes; a string in a file has at most 1,024


def joined(reasons: Iterable[str]) -> str:
    """Several reasons as one text, each once and in order, cut with "and n more" to fit into a
    file.
    """
    parts = list(dict.fromkeys(reason.replace(_BETWEEN, ", ") for reason in reasons))
    for count in range(len(parts), -1, -1):
        more = len(parts) - count
        text = _BETWEEN.join([*parts[:count], *([f"and {more} more"] if more else [])])
        if len(text.encode()) <= _LONGEST:
            break
    return text


def apart(text: str) -> list[str]:
    """The reasons of a joined text."""
    return text.split(_BETWEEN) if text else []


@dataclass(frozen=True, slots=True)
class Group:
    """Alike units of one kind: ``size`` units in ``rows`` rows of equal length.

    A group of several rows is *ragged*: rows may lose different units, but equally many. ``mixing``
    lists the reasons why removing units differs from zeroing them (a layer norm over them, ...),
    each once; it is empty if there is no difference.
    """

    name: str
    kind: str
    size: int
    rows: int
    members: tuple[Member, ...]
    mixing: str = ""

    @property
    def cells(self) -> int:
        """Units in one row."""
        return self.size // self.rows

    def __str__(self) -> str:
        rows = f" in {self.rows} rows" if self.rows > 1 else ""
        return f"{self.name} ({self.size} {self.kind}{rows})"


def compress(units: Indices, indices: Indices) -> tuple[Run, ...]:
    """Runs for the pairs ``(units[i], indices[i])``, as few as a greedy search finds."""
    order = np.lexsort((indices, units))
    units, indices = units[order], indices[order]
    bounds = np.flatnonzero(np.diff(units)) + 1
    starts = np.concatenate(([0], bounds))
    counts = np.diff(np.concatenate((starts, [len(units)])))
    runs: list[Run] = []
    at = 0
    while at < len(starts):
        at = _take_run(runs, units, indices, starts, counts, at)
    return tuple(runs)


def _take_run(
    runs: list[Run], units: Indices, indices: Indices, starts: Indices, counts: Indices, at: int
) -> int:
    """Append the runs of the longest stretch of alike units from ``at``; return its end."""
    pattern = indices[starts[at] : starts[at] + counts[at]]
    first, offsets = int(units[starts[at]]), pattern - pattern[0]
    limit = at + 1
    while (
        limit < len(starts)
        and counts[limit] == counts[at]
        and units[starts[limit]] == first + limit - at
    ):
        limit += 1
    block = indices[starts[at] : starts[at] + counts[at] * (limit - at)].reshape(limit - at, -1)
    heads = block[:, 0]
    alike = (block - heads[:, None] == offsets).all(axis=1)
    if limit - at > 1:
        step = int(heads[1] - heads[0])
        alike &= heads == heads[0] + step * np.arange(limit - at)
    else:
        step = 1
    stop = int(np.argmin(alike)) if not alike.all() else limit - at
    stop = max(stop, 1)
    for start, span, repeats, stride in _patterns(offsets):
        one = stop == 1
        runs.append(
            Run(first, stop, int(heads[0]) + start, 1 if one else step, span, repeats, stride)
        )
    return at + stop


def _patterns(offsets: Indices) -> Iterator[tuple[int, int, int, int]]:
    """Sorted offsets as (start, span, repeats, stride): spans of equal length, evenly spaced."""
    breaks = np.flatnonzero(np.diff(offsets) != 1) + 1
    begins = np.concatenate(([0], breaks))
    spans = np.diff(np.concatenate((begins, [len(offsets)])))
    heads = offsets[begins]
    at = 0
    while at < len(heads):
        stop = at + 1
        stride = int(heads[stop] - heads[at]) if stop < len(heads) else 0
        while (
            stop < len(heads)
            and spans[stop] == spans[at]
            and heads[stop] - heads[stop - 1] == stride
        ):
            stop += 1
        repeats = stop - at
        yield int(heads[at]), int(spans[at]), repeats, stride if repeats > 1 else 0
        at = stop
