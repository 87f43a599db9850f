"""Encoder-decoders, and models of images, sound and several of these at once."""

from __future__ import annotations

from tests.zoo.transformers.entry import Entry

OTHERS: dict[str, Entry] = {}
