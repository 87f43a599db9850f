"""Charts of the page: costs by module, and widths along the network.

Coordinates are percentages, so the drawings take any width without distorted text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from math import ceil, floor, log2
from operator import add

from planc.cli.report.sides import Row, Sizes

_PARTS = 24  # most modules in the table of parameters
_SEGMENTS = 9  # most modules in the stacked bars
_STAGES = 4  # fewest labels under the widths, if there is room


Macs = Mapping[str, Sequence[int]]
"""MACs of each module before, and after each plan."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a stacked bar, in percent of the chart."""

    name: str
    start: float
    width: float
    label: str


Bar = tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """Parameters and MACs of a module: before, and after each plan. MACs are empty if unknown."""

    name: str
    params: tuple[int, ...]
    macs: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Column:
    """A group in the picture of widths: positions from the top, in percent."""

    row: Row
    left: float
    width: float
    top: float
    marks: tuple[float | None, ...]

    @property
    def bottom(self) -> float:
        """Position of the smallest width."""
        return max([self.top, *(mark for mark in self.marks if mark is not None)])


@dataclass(frozen=True, slots=True)
class Widths:
    """The columns, horizontal lines as (position, width), and names of stages as (left, name)."""

    columns: tuple[Column, ...]
    lines: tuple[tuple[float, int], ...]
    stages: tuple[tuple[float, str], ...]


def overview(tensors: Sequence[Sizes], macs: Macs | None = None) -> tuple[Part, ...]:
    """Costs by module for the stacked bars: the deeper parts where one module has most."""
    few = parts(tensors, macs, _SEGMENTS)
    total = sum(part.params[0] for part in few)
    return few if all(part.params[0] < 0.7 * total for part in few) else parts(tensors, macs)


def parts(
    tensors: Sequence[Sizes], macs: Macs | None = None, most: int = _PARTS
) -> tuple[Part, ...]:
    """Costs by module, at the greatest depth with ``most`` modules.

    Where one level more has too many, as the layers of a deep network, siblings share a bar.
    """
    modules: dict[str, list[int]] = {}
    for tensor in tensors:
        if tensor.kind == "parameter":
            unknown = [0] * len(tensor.counts) if macs else []
            _add(modules, tensor.name.rpartition(".")[0], [*tensor.counts, *unknown])
    for name, counts in (macs or {}).items():
        _add(modules, name, [*[0] * len(counts), *counts])
    found: dict[str, list[int]] = {}
    for depth in range(1, 2 + max((name.count(".") for name in modules), default=0)):
        deeper: dict[str, list[int]] = {}
        for name, counts in modules.items():
            _add(deeper, ".".join(name.split(".")[:depth]), counts)
        if len(deeper) > most and len(found) > most // 3:
            break
        found = deeper if len(deeper) <= most else _merged(deeper, most)
        if found is not deeper:
            break
    middle = len(next(iter(found.values()), ())) // (2 if macs else 1)
    return tuple(
        Part(name or "(the model itself)", tuple(counts[:middle]), tuple(counts[middle:]))
        for name, counts in found.items()
    )


def _merged(modules: dict[str, list[int]], most: int) -> dict[str, list[int]]:
    """At most about ``most`` entries: successive siblings in runs of equal length."""
    length = ceil(len(modules) / most)
    merged: dict[str, list[int]] = {}
    for parent, siblings in groupby(modules, lambda name: name.rpartition(".")[0]):
        names = list(siblings)
        for at in range(0, len(names), length):
            first, *others = names[at : at + length]
            last = f" – {others[-1].removeprefix(f'{parent}.')}" if others else ""
            for name in (first, *others):
                _add(merged, first + last, modules[name])
    return merged


def _add(totals: dict[str, list[int]], name: str, counts: Sequence[int]) -> None:
    known = totals.get(name)
    totals[name] = [*counts] if known is None else [*map(add, known, counts)]


def stacked(names: Sequence[str], costs: Sequence[Sequence[int]]) -> tuple[Bar, ...]:
    """One bar before, and one after each plan, relative to the longest.

    Args:
        costs: the costs of each named module: before, and after each plan.
    """
    bars = [list(side) for side in zip(*costs, strict=True)]
    longest = max((sum(bar) for bar in bars), default=0) or 1
    return tuple(tuple(_segments(names, bar, longest)) for bar in bars)


def _segments(names: Sequence[str], sizes: Sequence[int], longest: int) -> Iterator[Segment]:
    ends = accumulate(sizes)
    for name, size, end in zip(names, sizes, ends, strict=True):
        width = 100 * size / longest
        label = name if 0.7 * len(name) + 1 < width else ""
        yield Segment(name, 100 * (end - size) / longest, width, label)


def widths(rows: Sequence[Row]) -> Widths:
    """Widths on a logarithmic scale: equal shares removed are equal lengths."""
    sizes = [side.size for row in rows for side in row.sides if side]
    kept = [side.kept for row in rows for side in row.sides if side]
    low = floor(log2(max(1, min(kept, default=1))))
    high = max(low + 1, ceil(log2(max(sizes, default=1))))

    def place(width: int) -> float:
        return 4 + 92 * (high - log2(max(width, 1))) / (high - low)

    step = 100 / max(1, len(rows))
    columns = tuple(
        Column(
            row,
            step * i,
            step,
            place(max(side.size for side in row.sides if side)),
            tuple(place(side.kept) if side else None for side in row.sides),
        )
        for i, row in enumerate(rows)
    )
    every = ceil((high - low) / 6)
    lines = tuple((place(1 << power), 1 << power) for power in range(low, high + 1, every))
    return Widths(columns, lines, _stages([row.group.name for row in rows]))


def _stages(names: Sequence[str]) -> tuple[tuple[float, str], ...]:
    """Names of successive stages, at the greatest depth with room for nearly all of them."""
    paths = [name.split(":")[0].split(".")[:-1] for name in names]
    found = []
    for depth in range(1, 1 + max((len(path) for path in paths), default=0)):
        stages, at = [], 0
        for stage, members in groupby(".".join(path[:depth]) for path in paths):
            end = at + len(list(members))
            stages.append((100 * at / len(names), 100 * end / len(names), stage))
            at = end
        found.append(_without_overlap(stages))
    wide = [labels for labels, covered in found if covered >= 90 and len(labels) >= _STAGES]
    return wide[-1] if wide else max((labels for labels, _ in found), key=len, default=())


def _without_overlap(
    stages: Sequence[tuple[float, float, str]],
) -> tuple[tuple[tuple[float, str], ...], float]:
    """The stages with room for their names, the longest first, and the percentage they cover.

    A common beginning is left out.
    """
    texts = [stage.split(".") for _, _, stage in stages if stage]
    shared = 0
    while texts and all(len(t) > shared + 1 and t[shared] == texts[0][shared] for t in texts):
        shared += 1
    shown: list[tuple[float, float, str]] = []
    covered = 0.0
    for left, end, stage in sorted(stages, key=lambda stage: stage[0] - stage[1]):
        name = ".".join(stage.split(".")[shared:])
        right = left + 0.75 * len(name) + 1
        if name and right <= 101 and all(right <= a or left >= b for a, b, _ in shown):
            shown.append((left, right, name))
            covered += end - left
    return tuple((left, name) for left, _, name in sorted(shown)), covered
