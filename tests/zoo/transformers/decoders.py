"""Decoders: models that generate text, token after token."""

from __future__ import annotations

from typing import Any

from tests.zoo.transformers.entry import VOCABULARY, Entry

_SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_COMMON = {"vocab_size": VOCABULARY, "num_hidden_layers": 2, **_SPECIAL}
_LLAMA = {
    **_COMMON,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


def _entry(family: str, /, **options: Any) -> Entry:
    return Entry(f"{family}ForCausalLM", f"{family}Config", options)


DECODERS: dict[str, Entry] = {
    "llama": _entry("Llama", **_LLAMA),
}
