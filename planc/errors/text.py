"""Text of files and models, made harmless for display.

A control character can rewrite a terminal; a bidirectional or invisible one can make one name look
like another. Names with such characters are refused; free text is shown with escapes.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

# by Unicode: Cc, Cf, Cs, Zl, Zp, default-ignorable characters, and blank letters
_HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160"
    "\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u2800\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff\U000110bd\U000110cd\U00013430-\U0001343f"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)


def escaped(text: str, keep: str = "") -> str:
    """Replace each invisible character of ``text`` by a Python escape.

    Args:
        keep: invisible characters to keep.

    >>> print(escaped("red: \\x1b[31m"))
    red: \\x1b[31m
    """
    if text.isascii() and text.isprintable():
        return text
    return _HIDDEN.sub(lambda m: m[0] if m[0] in keep else _escape(m[0]), text)


def hidden(text: str) -> str:
    """The first invisible character of a text, escaped; empty if there is none."""
    if text.isascii() and text.isprintable():
        return ""
    found = _HIDDEN.search(text)
    return "" if found is None else _escape(found[0])


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()


def near(name: str, known: Iterable[str]) -> str:
    """Return the end of a message: names similar to ``name``."""
    found = difflib.get_close_matches(name, known, n=4, cutoff=0.5)
    return f"; did you mean {', '.join(found)}?" if found else ""
