"""Scaled dot product attention: two contractions around a softmax."""

from __future__ import annotations

import string

from planc.rules.families.layout import each_repeated
from planc.rules.families.normalization import softmax
from planc.rules.labels import Labelled, contract, unify
from planc.rules.labels.facts import Facts
from planc.rules.registry import rule


@rule("aten.scaled_dot_product_attention")
def attention(
    facts: Facts,
    query: Labelled,
    key: Labelled,
    value: Labelled,
    attn_mask: Labelled | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Labelled:
    """softmax(query key^T * scale + mask) value, over [..., positions, features]."""
    rank = query.rank
    if enable_gqa:
        times = query.shape[-3] // key.shape[-3]
        key, value = (each_repeated(facts, x, rank - 3, times) for x in (key, value))
    if scale is None:
        features = query.targeting(rank - 1)
        facts.mix(features, "the default scale is 1 / sqrt of its width", module_only=True)
    batch = string.ascii_lowercase[: rank - 2]
    scores = contract(facts, query, batch + "LE", key, batch + "SE", batch + "LS")
    facts.cost(1, *((scores, d) for d in range(rank)), (query, rank - 1))
    if attn_mask is not None:
        scores = unify(facts, scores, attn_mask, "add")
    weights = softmax(facts, scores, rank - 1)
    result = contract(facts, weights, batch + "LS", value, batch + "SV", batch + "LV")
    facts.cost(1, *((scores, d) for d in range(rank)), (value, rank - 1))
    facts.tag([la for la in result.layers if la.target < rank - 2], "heads")
    return result
