"""Reductions: the layers that target the reduced dimensions end here.

A sum does not notice coordinates that are zero; a mean, a maximum and the like do, and say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from planc.rules.labels import Labelled, concatenate, even, reduce, unify
from planc.rules.labels.facts import Facts
from planc.rules.registry import axes, axis, pin_dims, rule


def summed(cx: Facts, x: Labelled, dims: Sequence[int], keepdim: bool) -> Labelled:
    """A reduction for which zeros do not count."""
    left_over = [la for la in x.layers if la.target in dims and not la.zero]
    cx.mix(left_over, "summed over coordinates that are not zero when masked")
    return reduce(cx, x, dims, keepdim)


def mixed(cx: Facts, x: Labelled, dims: Sequence[int], keepdim: bool, reason: str) -> Labelled:
    """A reduction that sees how many coordinates there are, or zeros among them."""
    cx.mix([la for la in x.layers if la.target in dims], reason)
    return reduce(cx, x, dims, keepdim)


@rule("aten.sum", "aten.nansum")
def total(cx: Facts, x: Labelled, dim: Any = None, keepdim: bool = False, **_: Any) -> Labelled:
    return summed(cx, x, axes(x, dim), keepdim)


@rule("aten.frobenius_norm")
def frobenius_norm(cx: Facts, x: Labelled, dim: Any = None, keepdim: bool = False) -> Labelled:
    return summed(cx, x, axes(x, dim), keepdim)


@rule("aten.linalg_vector_norm", "aten.norm")
def vector_norm(
    cx: Facts, x: Labelled, p: Any = 2, dim: Any = None, keepdim: bool = False, **_: Any
) -> Labelled:
    """(sum |x|^p)^(1/p), p > 0."""
    if isinstance(p, int | float) and p <= 0:
        return mixed(cx, x, axes(x, dim), keepdim, "a norm that counts zeros")
    return summed(cx, x, axes(x, dim), keepdim)


@rule("aten.linalg_norm")
def norm(
    cx: Facts, x: Labelled, ord: Any = None, dim: Any = None, keepdim: bool = False, **_: Any
) -> Labelled:
    """The norm of vectors, or of matrices where there are two dimensions and an order is given."""
    dims = axes(x, dim)
    if ord in (None, "fro"):
        return vector_norm(cx, x, 2, dims, keepdim)
    if len(dims) == 1:
        return vector_norm(cx, x, ord, dims, keepdim)
    return reduce(cx, pin_dims(cx, x, dims, "a norm of matrices"), dims, keepdim)


@rule("aten.linalg_matrix_norm")
def matrix_norm(
    cx: Facts, x: Labelled, ord: Any = "fro", dim: Any = (-2, -1), keepdim: bool = False, **_: Any
) -> Labelled:
    return norm(cx, x, ord, dim, keepdim)


@rule("aten.mean", "aten.nanmean")
def mean(cx: Facts, x: Labelled, dim: Any = None, keepdim: bool = False, **_: Any) -> Labelled:
    return mixed(cx, x, axes(x, dim), keepdim, "a mean over it")


@rule("aten.amax", "aten.amin", "aten.all", "aten.any")
def extreme(cx: Facts, x: Labelled, dim: Any = None, keepdim: bool = False) -> Labelled:
    return mixed(cx, x, axes(x, dim), keepdim, "a maximum over it")


@rule("aten.logsumexp")
def logsumexp(cx: Facts, x: Labelled, dim: Any, keepdim: bool = False) -> Labelled:
    """Of n zeros it is log(n)."""
    return mixed(cx, x, axes(x, dim), keepdim, "a sum of exponentials over it").nonzero()


@rule("aten.prod")
def prod(cx: Facts, x: Labelled, dim: Any = None, keepdim: bool = False, **_: Any) -> Labelled:
    return mixed(cx, x, axes(x, dim), keepdim, "a product over it")


@rule("aten.max.default", "aten.min.default", "aten.median.default")
def extreme_of_all(cx: Facts, x: Labelled) -> Labelled:
    return mixed(cx, x, axes(x, None), False, "a maximum over it")


@rule("aten.max.other", "aten.min.other")
def greater(cx: Facts, x: Labelled, other: Labelled) -> Labelled:
    return unify(cx, x, other, "add")


@rule("aten.kthvalue")
def kth_value(
    cx: Facts, x: Labelled, k: int, dim: int = -1, keepdim: bool = False
) -> tuple[Labelled, Labelled]:
    return extreme_with_index(cx, x, dim, keepdim)


@rule("aten.max.dim", "aten.min.dim", "aten.median.dim", "aten.nanmedian.dim", "aten.mode")
def extreme_with_index(
    cx: Facts, x: Labelled, dim: int = -1, keepdim: bool = False
) -> tuple[Labelled, Labelled]:
    """The extreme and where it is: positions are counted, so the dimension is pinned."""
    dims = (axis(x, dim),)
    y = reduce(cx, pin_dims(cx, x, dims, "its positions are returned"), dims, keepdim)
    return y, y.nonzero()


@rule("aten.argmax", "aten.argmin")
def arg_extreme(cx: Facts, x: Labelled, dim: int | None = None, keepdim: bool = False) -> Labelled:
    dims = axes(x, dim)
    return reduce(cx, pin_dims(cx, x, dims, "its positions are returned"), dims, keepdim).nonzero()


@rule("aten.var", "aten.std")
def spread(cx: Facts, x: Labelled, dim: Any = None, *_: Any, **named: Any) -> Labelled:
    dims = axes(x, None if isinstance(dim, bool) else dim)
    keepdim = bool(named.get("keepdim", len(_) > 1 and _[1]))
    if len(wide := [d for d in dims if x.shape[d] > 1]) == 1:
        cx.plural(x, wide[0])  # one value has no spread
    return mixed(cx, x, dims, keepdim, "a variance over it")


@rule("aten.var_mean", "aten.std_mean")
def spread_and_mean(
    cx: Facts, x: Labelled, dim: Any = None, *_: Any, **named: Any
) -> tuple[Labelled, Labelled]:
    y = spread(cx, x, dim, *_, **named)
    return y, y


@rule("aten.cumsum", "aten.cumprod")
def running(cx: Facts, x: Labelled, dim: int, **_: Any) -> Labelled:
    """Running sums: order matters, so the dimension itself is pinned."""
    dims = (axis(x, dim),)
    return even(cx, pin_dims(cx, x, dims, "a running sum over it"), dims)


@rule("aten.diff")
def difference(
    cx: Facts, x: Labelled, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None
) -> Labelled:
    """Of neighbours along a dimension, which it pins."""
    dim = axis(x, dim)
    parts = [part for part in (prepend, x, append) if part is not None]
    y = running(cx, concatenate(cx, parts, dim) if len(parts) > 1 else x, dim)
    return Labelled(cx.shape, y.layers)


@rule("aten.logcumsumexp")
def logcumsumexp(cx: Facts, x: Labelled, dim: int) -> Labelled:
    """Of n zeros it is log(n)."""
    return running(cx, x, dim).nonzero()


@rule("aten.cummax", "aten.cummin")
def running_extreme(cx: Facts, x: Labelled, dim: int) -> tuple[Labelled, Labelled]:
    y = running(cx, x, dim)
    return y, y.nonzero()
