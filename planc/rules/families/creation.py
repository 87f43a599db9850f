"""Creation: tensors filled with one value take any size; all others have fixed positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from planc.ir.expressions import Size
from planc.rules.families.layout import fresh
from planc.rules.labels import Labelled
from planc.rules.labels.facts import Facts
from planc.rules.registry import rule

_POSITIONS = """
    arange bartlett_window eye hann_window linspace logspace meshgrid rand randint randn randperm
    scalar_tensor tril_indices triu_indices
"""


@rule("aten.empty", "aten.ones", "aten.full")
def filled(facts: Facts, size: Sequence[int], *_: Any, **__: Any) -> Labelled:
    return _sized(facts, size, zero=False)


@rule("aten.zeros")
def zeros(facts: Facts, size: Sequence[int], *_: Any, **__: Any) -> Labelled:
    return replace(_sized(facts, size, zero=True), blank=True)


def _sized(facts: Facts, size: Sequence[int], zero: bool) -> Labelled:
    y = fresh(facts, Labelled(facts.shape), range(len(facts.shape)), zero)
    for dim in range(y.rank):
        if isinstance(size[dim], Size) and not facts.read[0]:  # no operator computes with it
            facts.ignore("size", dim)
        else:
            facts.demand("size", dim, y, dim)
    return y


@rule("aten.new_empty", "aten.new_ones", "aten.new_full")
def filled_as(facts: Facts, x: Labelled, size: Sequence[int], *_: Any, **__: Any) -> Labelled:
    return _sized(facts, size, zero=False)


@rule("aten.new_zeros")
def new_zeros(facts: Facts, x: Labelled, size: Sequence[int], *_: Any, **__: Any) -> Labelled:
    return zeros(facts, size)


@rule("aten.zeros_like")
def zeros_like(facts: Facts, x: Labelled, *_: Any, **__: Any) -> Labelled:
    return x


@rule(*(f"aten.{name}_like" for name in ("ones", "full", "empty", "rand", "randn", "randint")))
def like(facts: Facts, x: Labelled, *_: Any, **__: Any) -> Labelled:
    return x.nonzero()


@rule(*(f"aten.{name}" for name in _POSITIONS.split()))
def positions(facts: Facts, *_: Any, **__: Any) -> Any:
    results = tuple(Labelled(shape) for shape in facts.shapes)
    return results if len(results) != 1 else results[0]
