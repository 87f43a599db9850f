"""Mutants that no test can kill, for they do what the code does: each with the reason."""

from __future__ import annotations

EQUIVALENT: dict[str, str] = {
    "planc/codec/files.py:: 'O_BINARY' -> 'O_BINARY?'": "only Windows has it, where 0 stands else",
    "planc/codec/kinds.py:load_any: 12 -> 13": "kind_of looks at the first 12 bytes only",
    "planc/codec/checks.py:_check_changes: _same_types(change.before, change.after) -> "
    "_same_types(change.after, change.before)": "whether types are the same is symmetric",
    "planc/tensorfiles/header.py:parse_text: entry.start > end -> entry.start >= end": (
        "the two are known to differ there"
    ),
    "planc/tensorfiles/header.py:parse_text: 1 -> 2": (
        "text_length looks at the length and one byte more"
    ),
}
