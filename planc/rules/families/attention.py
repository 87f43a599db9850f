"""Scaled dot product attention: two contractions around a softmax."""

from __future__ import annotations

import string

import numpy as np

from planc.rules.families.normalization import softmax
from planc.rules.labels import Labelled, contract, take, unify
from planc.rules.labels.facts import Facts
from planc.rules.registry import rule


@rule("aten.scaled_dot_product_attention")
def attention(
    cx: Facts,
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
        heads = np.repeat(np.arange(key.shape[-3]), times)
        if times > 1:
            key, value = take(cx, key, rank - 3, heads), take(cx, value, rank - 3, heads)
    if scale is None:
        features = query.targeting(rank - 1)
        cx.mix(features, "the default scale is 1 / sqrt of its width", module_only=True)
    batch = string.ascii_lowercase[: rank - 2]
    scores = contract(cx, query, batch + "LE", key, batch + "SE", batch + "LS")
    cx.cost(1, *((scores, d) for d in range(rank)), (query, rank - 1))
    if attn_mask is not None:
        scores = unify(cx, scores, attn_mask, "add")
    weights = softmax(cx, scores, rank - 1)
    result = contract(cx, weights, batch + "LS", value, batch + "SV", batch + "LV")
    cx.cost(1, *((scores, d) for d in range(rank)), (value, rank - 1))
    cx.tag([la for la in result.layers if la.target < rank - 2], "heads")
    return result
