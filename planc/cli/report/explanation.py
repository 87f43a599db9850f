"""The screen of ``planc explain``: for each name its reasons, and the change that frees a pin.

Members with like names share an entry, and files are named as they are imported, unless everything
is asked for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.text import Text

from planc.cli.report.screen import KEPT, STRONG, hanging, line
from planc.plan.review.rows import series

_INSTALLED = re.compile(r"\([^()\s]*?[/\\](?:site|dist)-packages[/\\]")


def explanation(found: Iterable[Mapping[str, Any]], width: int, full: bool = False) -> list[Text]:
    """Return the lines of ``planc explain``, of at most ``width`` characters each.

    Args:
        found: for each name a ``title``; maybe ``reasons``, lines of text, the second to
            the last of ``members`` naming these if there are any; and the ``remedy`` that frees it.
        full: one line for each member, and files under their full path.
    """
    lines: list[Text] = []
    for entry in found:
        lines += hanging(_near(entry["title"], full), width, style=STRONG)
        for reason in _reasons(entry, full):
            text = reason.lstrip()
            indent = 2 + len(reason) - len(text)
            parts = hanging(_near(text, full), width - indent, 2)
            lines += [line(" " * indent).append_text(part) for part in parts]
        if entry.get("remedy"):
            parts = hanging(f"to free it: {entry['remedy']}", width - 2, 2, KEPT)
            lines += [line("  ").append_text(part) for part in parts]
    return lines


def _reasons(entry: Mapping[str, Any], full: bool) -> Sequence[str]:
    """The reasons, members with names apart in one number joined."""
    reasons: Sequence[str] = entry.get("reasons", ())
    members = [f"  {name}" for name in entry.get("members", ())]
    if full or not reasons or not members:
        return reasons
    joined = [label for label, _, _ in series([(name, "", name) for name in members])]
    return [reasons[0], *joined, *reasons[1 + len(members) :]]


def _near(text: str, full: bool) -> str:
    """A text with files as they are imported, or relative to the working directory."""
    if full:
        return text
    return _INSTALLED.sub("(", text).replace(f"({Path.cwd()}{os.sep}", "(")
