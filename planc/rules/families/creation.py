"""Creation: tensors filled with one value take any size; all others have fixed positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from planc.rules.families.layout import fresh
from planc.rules.labels import Labelled
from planc.rules.labels.facts import Facts
from planc.rules.registry import rule


@rule("aten.empty", "aten.ones", "aten.full")
def filled(cx: Facts, size: Sequence[int], *_: Any, **__: Any) -> Labelled:
    return _sized(cx, zero=False)


@rule("aten.zeros")
def zeros(cx: Facts, size: Sequence[int], *_: Any, **__: Any) -> Labelled:
    return replace(_sized(cx, zero=True), blank=True)


def _sized(cx: Facts, zero: bool) -> Labelled:
    y = fresh(cx, Labelled(cx.shape), range(len(cx.shape)), zero)
    for dim in range(y.rank):
        cx.demand("size", dim, y, dim)
    return y


@rule("aten.new_empty", "aten.new_ones", "aten.new_full")
def filled_as(cx: Facts, x: Labelled, size: Sequence[int], *_: Any, **__: Any) -> Labelled:
    return _sized(cx, zero=False)


@rule("aten.new_zeros")
def new_zeros(cx: Facts, x: Labelled, size: Sequence[int], *_: Any, **__: Any) -> Labelled:
    return zeros(cx, size)


@rule("aten.zeros_like")
def zeros_like(cx: Facts, x: Labelled, *_: Any, **__: Any) -> Labelled:
    return x


@rule(
    "aten.ones_like",
    "aten.full_like",
    "aten.empty_like",
    "aten.rand_like",
    "aten.randn_like",
    "aten.randint_like",
)
def like(cx: Facts, x: Labelled, *_: Any, **__: Any) -> Labelled:
    return x.nonzero()


@rule(
    "aten.arange",
    "aten.linspace",
    "aten.logspace",
    "aten.eye",
    "aten.rand",
    "aten.randn",
    "aten.randint",
    "aten.randperm",
    "aten.scalar_tensor",
    "aten.meshgrid",
    "aten.tril_indices",
    "aten.triu_indices",
    "aten.hann_window",
    "aten.bartlett_window",
)
def positions(cx: Facts, *_: Any, **__: Any) -> Any:
    results = tuple(Labelled(shape) for shape in cx.shapes)
    return results if len(results) != 1 else results[0]
