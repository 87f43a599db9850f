"""Tables of a screen: names in stages, a few columns, and a bar at the end of each row.

A name keeps to one line: beside its cells, or on a line by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.text import Text

from planc.cli.report.screen import FAINT, STRONG, Piece, fold, hanging, line

LONG, SHORT = 24, 5
"""Most and least characters of a bar."""
_NARROW = 16  # least room for names

Bar = Callable[[int], Sequence[Piece]]
"""The pieces of a bar of at most so many characters."""


def no_bar(width: int) -> Sequence[Piece]:
    """Nothing."""
    return ()


@dataclass(frozen=True, slots=True)
class Column:
    """A column: right-aligned, or ``left``; ``arrow`` joins it to the one before."""

    title: str
    left: bool = False
    arrow: bool = False
    style: str = ""

    def cell(self, text: str, width: int) -> str:
        between = " → " if self.arrow else "  "
        return between + (text.ljust(width) if self.left else text.rjust(width))

    def head(self, width: int) -> str:
        return self.cell(self.title, width).replace("→", " ")


@dataclass(frozen=True, slots=True)
class Entry:
    """A row: its name within a stage, its cells, its bar, and lines below."""

    label: str
    cells: tuple[str, ...]
    bar: Bar = no_bar
    stage: str = ""
    faint: bool = False
    below: tuple[Text, ...] = ()

    @property
    def name(self) -> str:
        """The label, indented within a stage."""
        return f"  {self.label}" if self.stage else self.label


def table(
    title: str, columns: Sequence[Column], entries: Sequence[Entry], width: int
) -> list[Text]:
    """Return the lines of a table; the title of its last column may reach over the bars."""
    if not entries:
        return []
    over = any(entry.bar is not no_bar for entry in entries)
    titles = [column.title for column in columns[:-1]] + ["" if over else columns[-1].title]
    cells = [titles, *(entry.cells for entry in entries)]
    widths = [max(map(len, texts)) for texts in zip(*cells, strict=True)]
    fixed = sum(len(column.cell("", n)) for column, n in zip(columns, widths, strict=True)) + 2
    longest = max(len(name) for name in (title, *(entry.name for entry in entries)))
    bars = max(SHORT, min(LONG, width - fixed - longest))
    room = min(longest, max(width - fixed - bars, _NARROW))
    heads = (column.head(n) for column, n in zip(columns, widths, strict=True))
    lines = [line((title.ljust(room) + "".join(heads), STRONG))]
    stage = ""
    for entry in entries:
        if entry.stage and entry.stage != stage:
            lines += hanging(entry.stage, width, style=STRONG)
        stage = entry.stage
        lines += _row(entry, columns, widths, room, bars, width)
    return lines


def _row(
    entry: Entry,
    columns: Sequence[Column],
    widths: Sequence[int],
    room: int,
    bars: int,
    width: int,
) -> list[Text]:
    whole = FAINT if entry.faint else ""
    name = entry.name
    lines = []
    if len(name) > room:
        lines = [line((part, whole)) for part in fold(name, width)]
        name = ""
    cells = [
        (column.cell(text, n), whole or column.style)
        for column, text, n in zip(columns, entry.cells, widths, strict=True)
    ]
    return [*lines, line((name.ljust(room), whole), *cells, "  ", *entry.bar(bars)), *entry.below]
