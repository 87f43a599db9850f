"""Fourier transforms: each result looks at all positions along the transformed dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from planc.rules.labels import Labelled, even
from planc.rules.labels.facts import Facts
from planc.rules.registry import axes, pin_dims, rule

_DIRECTIONS = ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft")


def _along(cx: Facts, x: Labelled, dims: Sequence[int]) -> Labelled:
    x = even(cx, pin_dims(cx, x, dims, "a Fourier transform over it"), dims)
    return Labelled(cx.shape, x.layers)


@rule(*(f"aten.fft_{name}" for name in _DIRECTIONS))
def transform(cx: Facts, x: Labelled, n: Any = None, dim: int = -1, *_: Any, **__: Any) -> Labelled:
    return _along(cx, x, axes(x, dim))


@rule(*(f"aten.fft_{name}2" for name in _DIRECTIONS))
def transform_of_planes(
    cx: Facts, x: Labelled, s: Any = None, dim: Sequence[int] = (-2, -1), *_: Any, **__: Any
) -> Labelled:
    return _along(cx, x, axes(x, dim))


@rule(*(f"aten.fft_{name}n" for name in _DIRECTIONS))
def transform_of_all(
    cx: Facts, x: Labelled, s: Any = None, dim: Any = None, *_: Any, **__: Any
) -> Labelled:
    if dim is None and s is not None:
        return _along(cx, x, range(x.rank - len(s), x.rank))
    return _along(cx, x, axes(x, dim))


@rule("aten._fft_c2c", "aten._fft_r2c", "aten._fft_c2r")
def plain_transform(cx: Facts, x: Labelled, dim: Sequence[int], *_: Any) -> Labelled:
    return _along(cx, x, axes(x, tuple(dim)))


@rule("aten.fft_fftshift", "aten.fft_ifftshift")
def shift(cx: Facts, x: Labelled, dim: Any = None) -> Labelled:
    return _along(cx, x, axes(x, dim))
