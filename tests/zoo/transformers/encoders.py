"""Encoders of text."""

from __future__ import annotations

from tests.zoo.transformers.entry import Entry

ENCODERS: dict[str, Entry] = {}
