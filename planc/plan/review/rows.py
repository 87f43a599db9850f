"""Rows of a plan's table: like groups of repeated layers as one row, ordered in stages.

The names ``layer3.1.conv1.weight:0`` to ``layer3.5.conv1.weight:0`` become the row
``layer3.1–5.conv1``. Names alone decide: no architecture is known here.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from planc.plan.plan import PlanGroup
from planc.plan.review.figures import share

_NUMBER = re.compile(r"(?<![:#\d])\d+(?=[./:#]|$)")
_SUFFIX = re.compile(r"(\.weight)?:\d+")
_INDEX = re.compile(r"^(\w*_)?\d[\d–,…]*$")
_PIECES = 4  # of a list of numbers
_FEW = 12  # rows, each of which may be told apart

Likeness = Callable[[PlanGroup], Hashable]
Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Row:
    """Groups of one kind and size under one label; ``stage`` is a prefix of the label or empty."""

    label: str
    groups: tuple[PlanGroup, ...]
    stage: str = ""

    @property
    def inner(self) -> str:
        """The label within its stage."""
        return self.label[len(self.stage) + 1 :] if self.stage else self.label

    @property
    def size(self) -> int:
        """Units of all groups."""
        return sum(group.size for group in self.groups)

    @property
    def kept(self) -> int:
        """Kept units of all groups."""
        return sum(group.kept for group in self.groups)

    @property
    def mixing(self) -> bool:
        """True if removing a unit of a group differs from zeroing it."""
        return any(group.mixing for group in self.groups)

    @property
    def before(self) -> str:
        """The units of one group, as rows and cells; those of all groups if their sizes differ."""
        first = self.groups[0]
        if self._uneven:
            return f"{self.size:,}"
        return f"{first.rows} × {first.cells}" if first.rows > 1 else str(first.size)

    @property
    def after(self) -> str:
        """The kept units of one row, from the smallest to the largest group."""
        low, high = self.widths
        if self._uneven:
            return f"{self.kept:,}"
        return str(low) if low == high else f"{low}–{high}"

    @property
    def removed(self) -> str:
        """The share of removed units."""
        return share(self.size, self.kept) if self.kept < self.size else "whole"

    @property
    def _uneven(self) -> bool:
        return len({(group.size, group.rows) for group in self.groups}) > 1

    @property
    def widths(self) -> tuple[int, int]:
        """The smallest and the largest number of units kept in a row of a group."""
        kept = [group.kept // group.rows for group in self.groups]
        return min(kept), max(kept)


def labels(groups: Sequence[PlanGroup]) -> dict[str, str]:
    """A short label for each name: without ``.weight`` and dimension where that stays unique."""
    short = {group.name: _SUFFIX.sub("", group.name, count=1) for group in groups}
    taken = Counter(short.values())
    return {name: label if taken[label] == 1 else name for name, label in short.items()}


def alike(group: PlanGroup) -> Hashable:
    """Equality of everything in a row of the table."""
    return group.kind, group.size, group.rows, group.kept, bool(group.mixing)


def similar(group: PlanGroup) -> Hashable:
    """Equality of everything but the number of kept units."""
    return group.kind, group.size, group.rows, bool(group.mixing)


def single(groups: Sequence[PlanGroup]) -> list[Row]:
    """One row for each group, under its full name."""
    return [Row(group.name, (group,)) for group in groups]


def collapsed(groups: Sequence[PlanGroup], like: Likeness = alike) -> list[Row]:
    """One row for each set of ``like`` groups with names apart in one number only."""
    named = labels(groups)
    sets = series([(named[group.name], like(group), group) for group in groups])
    return _staged([Row(label, tuple(found)) for label, _, found in sets])


def stages(groups: Sequence[PlanGroup]) -> list[Row]:
    """One row for each kind of units in a stage."""
    found: dict[tuple[str, str], list[PlanGroup]] = defaultdict(list)
    for row in collapsed(groups, similar):
        for group in row.groups:
            found[row.stage or row.label, group.kind].append(group)
    return [Row(label, tuple(members)) for (label, _), members in found.items()]


def fitting(groups: Sequence[PlanGroup], lines: int, like: Likeness = alike) -> list[Row]:
    """The rows that tell most in at most ``lines``, headings of stages counted.

    Groups of like widths share rows; where that leaves many more rows than layers have parts, so
    do those of different widths, and then all of a stage.
    """
    rows, shorter = collapsed(groups, like), collapsed(groups, similar)
    if len(rows) > max(_FEW, 2 * len(shorter)) or len(rows) + headings(rows) > lines:
        rows = shorter
    return rows if len(rows) + headings(rows) <= lines else stages(groups)


def headings(rows: Iterable[Row]) -> int:
    """The number of lines that name a stage."""
    return len({row.stage for row in rows} - {""})


def series(
    items: Iterable[tuple[str, Key, Item]],
) -> list[tuple[str, Key, list[Item]]]:
    """Join items with labels apart in one number only and an equal key, in order of the first.

    A label with several numbers joins the largest set; among equals, the outermost number.
    """
    given = list(items)
    where = [[(m.start(), m.end()) for m in _NUMBER.finditer(label)] for label, _, _ in given]
    sizes = Counter(
        (label[:start], label[end:], key)
        for (label, key, _), places in zip(given, where, strict=True)
        for start, end in places
    )
    sets: dict[tuple[str, str, Key], list[tuple[int, Item]]] = defaultdict(list)
    for (label, key, item), places in zip(given, where, strict=True):
        ends = [(label[:start], label[end:], key) for start, end in places]
        best = max(ends, key=lambda e: (sizes[e], _whole(e[0]), -len(e[0])), default=None)
        if best is None or sizes[best] == 1:
            sets[label, "", key].append((-1, item))
        else:
            sets[best].append((int(label[len(best[0]) : len(label) - len(best[1])]), item))
    return [
        (f"{before}{spans([n for n, _ in found if n >= 0])}{after}", key, [i for _, i in found])
        for (before, after, key), found in sets.items()
    ]


def _whole(before: str) -> bool:
    """True for a number that is a whole component of a name."""
    return not before or before[-1] in "._"


def spans(numbers: Sequence[int]) -> str:
    """Numbers as ranges, the middle left out where there are many.

    >>> spans([0, 1, 2, 4]), spans([1, 3, 5, 7, 9, 11])
    ('0–2,4', '1,3,…,11')
    """
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    texts = [str(a) if a == b else f"{a}–{b}" for a, b in ranges]
    if len(texts) > _PIECES:
        texts = [*texts[:2], "…", texts[-1]]
    return ",".join(texts)


def _staged(rows: list[Row]) -> list[Row]:
    """The rows with their stages, the rows of one stage together."""
    return [
        Row(rows[i].label, rows[i].groups, stage) for stage, i in staged([r.label for r in rows])
    ]


def staged(names: Sequence[str]) -> list[tuple[str, int]]:
    """The stage and the number of each name, those of one stage together.

    >>> staged(["stem", "layer1.0.conv1", "layer1.1.conv1"])
    [('', 0), ('layer1', 1), ('layer1', 2)]
    """
    components = [name.split(".") for name in names]
    common = _common(components)
    members: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for i, parts in enumerate(components):
        members[_stage(parts, common)].append(i)
    found = []
    for numbers in members.values():
        shared = _common([components[i] for i in numbers]) if len(numbers) > 1 else 0
        stage = ".".join(components[numbers[0]][:shared])
        found += [(stage, i) for i in numbers]
    return found


def _stage(parts: list[str], common: int) -> tuple[str, ...]:
    """The components before the first index; without an index, one beyond those of all rows."""
    index = next((i for i, part in enumerate(parts[:-1]) if _INDEX.match(part)), None)
    return tuple(parts[: common + 1 if index is None else max(index, 1)][: len(parts) - 1] or parts)


def _common(components: Sequence[Sequence[str]]) -> int:
    """The number of leading components that all share, at most all but the last."""
    shared = 0
    for parts in zip(*(parts[:-1] for parts in components), strict=False):
        if len(set(parts)) > 1:
            break
        shared += 1
    return shared
