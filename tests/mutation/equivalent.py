"""Mutants that no test can kill, for they do what the code does: each with the reason."""

from __future__ import annotations

EQUIVALENT: dict[str, str] = {}
