"""Lines of a screen: styled text folded to a width, and bars of kept and removed units.

Colors have one meaning everywhere: green is kept or saved, red is removed, yellow is a caution.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from rich.console import Group as Stack
from rich.text import Text

from planc.errors.text import escaped

KEPT, REMOVED, CAUTION, FAINT, STRONG = "green", "red", "yellow", "dim", "bold"

_BREAK = re.compile(r"(?<!→)(?<!MACs) (?!%|→|\(−|[kMGTP]B?(?:[ ;),]|$))")

Piece = tuple[str, str]
"""A text and its style."""


def line(*pieces: Piece | str) -> Text:
    """A line of styled texts, invisible characters escaped."""
    shown = Text(no_wrap=True, overflow="ignore")
    for piece in pieces:
        text, style = (piece, "") if isinstance(piece, str) else piece
        shown.append(escaped(text), style or None)
    return shown


def screen(parts: Iterable[Sequence[Text]]) -> Stack:
    """The nonempty parts below one another, an empty line between."""
    lines: list[Text] = []
    for part in parts:
        if part:
            lines += [*([line()] if lines else []), *part]
    return Stack(*lines)


def fold(text: str, width: int) -> list[str]:
    """Break a text at spaces into lines of at most ``width``, and a longer word at its dots.

    A figure keeps together, with its unit and its change: ``25.6 M → 6.9 M (−73 %)``.
    """
    lines: list[str] = []
    for word in _BREAK.split(text):
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines += _broken(word, width)
    return lines


def _broken(word: str, width: int) -> list[str]:
    """A word in pieces of at most ``width``, broken after a dot where there is one."""
    pieces = []
    while len(word) > width > 0:
        at = word.rfind(".", 0, width) + 1 or width
        pieces.append(word[:at])
        word = word[at:]
    return [*pieces, word]


def fact(name: str, text: str, width: int, style: str = "", column: int = 13) -> list[Text]:
    """A name in bold and its folded text in the next column."""
    folded = fold(text, max(width - column, 20))
    heads = [name.ljust(column), *[" " * column] * (len(folded) - 1)]
    return [line((head, STRONG), (part, style)) for head, part in zip(heads, folded, strict=True)]


def hanging(text: str, width: int, indent: int = 2, style: str = "") -> list[Text]:
    """A folded text, its later lines indented."""
    first, *rest = fold(text, max(width - indent, 20))
    return [line((first, style)), *(line((" " * indent + part, style)) for part in rest)]


def bar(kept: int, size: int, width: int) -> list[Piece]:
    """A bar of kept and removed units; neither is rounded away."""
    full = round(width * kept / size) if size else width
    if 0 < kept < size:
        full = min(max(full, 1), width - 1)
    return [("█" * full, KEPT), ("░" * (width - full), REMOVED)]


def ranges(units: Iterable[int], most: int | None = 8) -> str:
    """Units as ranges: ``0–3, 7``; beyond ``most`` ranges, an ellipsis."""
    found: list[tuple[int, int]] = []
    for unit in units:
        if found and found[-1][1] == unit - 1:
            found[-1] = (found[-1][0], unit)
        else:
            found.append((unit, unit))
    shown = [f"{a}–{b}" if b > a else str(a) for a, b in found[:most]]
    return ", ".join(shown) + (", …" if most is not None and len(found) > most else "")


def counted(count: int, noun: str) -> str:
    """A number and its noun in the plural where it is not one.

    >>> counted(1, "group"), counted(1200, "group")
    ('1 group', '1,200 groups')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
