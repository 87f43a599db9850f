"""Fake quantisation: values rounded to the numbers of a scale; zero is one of them."""

from __future__ import annotations

from typing import Any

from planc.rules.common import vector
from planc.rules.labels import Labelled, unify
from planc.rules.labels.facts import Facts
from planc.rules.registry import rule


@rule(
    "aten.fake_quantize_per_tensor_affine",
    "aten._fake_quantize_learnable_per_tensor_affine",
)
def per_tensor(facts: Facts, x: Labelled, scale: Any, zero_point: Any, *_: Any) -> Labelled:
    return x


@rule(
    "aten.fake_quantize_per_channel_affine",
    "aten._fake_quantize_learnable_per_channel_affine",
)
def per_channel(
    facts: Facts, x: Labelled, scale: Labelled, zero_point: Labelled, axis: int, *_: Any
) -> Labelled:
    """Each coordinate of dimension ``axis`` has a scale and a zero point."""
    for numbers in (scale, zero_point):
        x = unify(facts, x, vector(numbers.nonzero(), axis % x.rank, x.rank), "mul")
    return x


@rule(
    "aten.fake_quantize_per_tensor_affine_cachemask",
    "aten._fake_quantize_per_tensor_affine_cachemask_tensor_qparams",
)
def per_tensor_with_mask(facts: Facts, x: Labelled, *_: Any) -> tuple[Labelled, Labelled]:
    return x, x.nonzero()


@rule("aten.fused_moving_avg_obs_fake_quant", "aten._fused_moving_avg_obs_fq_helper")
def observed(
    facts: Facts,
    x: Labelled,
    observer_on: Labelled,
    fake_quant_on: Labelled,
    running_min: Labelled,
    running_max: Labelled,
    scale: Labelled,
    zero_point: Labelled,
    averaging_const: float,
    quant_min: int,
    quant_max: int,
    ch_axis: int,
    per_row_fake_quant: bool = False,
    symmetric_quant: bool = False,
) -> Any:
    """Fake quantisation with extremes updated by the operator itself, per tensor or per row."""
    if per_row_fake_quant:
        for numbers in (running_min, running_max, scale, zero_point):
            if numbers.rank == 1 and numbers.shape[0] > 1:
                x = unify(facts, x, vector(numbers.nonzero(), ch_axis % x.rank, x.rank), "mul")
    else:
        facts.mix(x.layers, "its extremes are observed")
    return x if len(facts.shapes) == 1 else (x, x.nonzero())
