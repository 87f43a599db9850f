"""Fourier transforms: each result depends on all positions along the transformed dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from planc.rules.common import axes, pin_dims
from planc.rules.labels import Labelled, even
from planc.rules.labels.facts import Facts
from planc.rules.registry import rule

_DIRECTIONS = ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft")


def _along(facts: Facts, x: Labelled, dims: Sequence[int]) -> Labelled:
    x = even(facts, pin_dims(facts, x, dims, "a Fourier transform over it"), dims)
    return Labelled(facts.shape, x.layers)


@rule(*(f"aten.fft_{name}" for name in _DIRECTIONS))
def transform(
    facts: Facts, x: Labelled, n: Any = None, dim: int = -1, *_: Any, **__: Any
) -> Labelled:
    return _along(facts, x, axes(x, dim))


@rule(*(f"aten.fft_{name}2" for name in _DIRECTIONS))
def transform_of_planes(
    facts: Facts, x: Labelled, s: Any = None, dim: Sequence[int] = (-2, -1), *_: Any, **__: Any
) -> Labelled:
    return _along(facts, x, axes(x, dim))


@rule(*(f"aten.fft_{name}n" for name in _DIRECTIONS))
def transform_of_all(
    facts: Facts, x: Labelled, s: Any = None, dim: Any = None, *_: Any, **__: Any
) -> Labelled:
    if dim is None and s is not None:
        return _along(facts, x, range(x.rank - len(s), x.rank))
    return _along(facts, x, axes(x, dim))


@rule("aten._fft_c2c", "aten._fft_r2c", "aten._fft_c2r")
def plain_transform(facts: Facts, x: Labelled, dim: Sequence[int], *_: Any) -> Labelled:
    return _along(facts, x, axes(x, tuple(dim)))


@rule("aten.fft_fftshift", "aten.fft_ifftshift")
def shift(facts: Facts, x: Labelled, dim: Any = None) -> Labelled:
    return _along(facts, x, axes(x, dim))
