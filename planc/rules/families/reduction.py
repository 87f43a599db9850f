"""Reductions: the layers targeting the reduced dimensions end here.

A sum ignores coordinates of value zero; a mean, a maximum and the like depend on them and are
recorded as mixing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from planc.rules.common import axes, axis, pin_dims
from planc.rules.labels import Labelled, concatenate, even, reduce, unify
from planc.rules.labels.facts import Facts
from planc.rules.registry import rule


def summed(facts: Facts, x: Labelled, dims: Sequence[int], keepdim: bool) -> Labelled:
    """A reduction ignoring zeros."""
    left_over = [la for la in x.layers if la.target in dims and not la.zero]
    facts.mix(left_over, "summed over coordinates that are not zero when masked")
    return reduce(facts, x, dims, keepdim)


def mixed(facts: Facts, x: Labelled, dims: Sequence[int], keepdim: bool, reason: str) -> Labelled:
    """A reduction that depends on the number of coordinates, or on zeros among them."""
    facts.mix([la for la in x.layers if la.target in dims], reason)
    return reduce(facts, x, dims, keepdim)


@rule("aten.sum", "aten.nansum")
def total(facts: Facts, x: Labelled, dim: Any = None, keepdim: bool = False, **_: Any) -> Labelled:
    return summed(facts, x, axes(x, dim), keepdim)


@rule("aten.frobenius_norm")
def frobenius_norm(facts: Facts, x: Labelled, dim: Any = None, keepdim: bool = False) -> Labelled:
    return summed(facts, x, axes(x, dim), keepdim)


@rule("aten.linalg_vector_norm", "aten.norm")
def vector_norm(
    facts: Facts, x: Labelled, p: Any = 2, dim: Any = None, keepdim: bool = False, **_: Any
) -> Labelled:
    """(sum |x|^p)^(1/p), p > 0."""
    if isinstance(p, int | float) and p <= 0:
        return mixed(facts, x, axes(x, dim), keepdim, "a norm that counts zeros")
    return summed(facts, x, axes(x, dim), keepdim)


@rule("aten.linalg_norm")
def norm(
    facts: Facts, x: Labelled, ord: Any = None, dim: Any = None, keepdim: bool = False, **_: Any
) -> Labelled:
    """The norm of vectors, or of matrices for two dimensions and an order."""
    dims = axes(x, dim)
    if ord in (None, "fro"):
        return vector_norm(facts, x, 2, dims, keepdim)
    if len(dims) == 1:
        return vector_norm(facts, x, ord, dims, keepdim)
    return reduce(facts, pin_dims(facts, x, dims, "a norm of matrices"), dims, keepdim)


@rule("aten.linalg_matrix_norm")
def matrix_norm(
    facts: Facts,
    x: Labelled,
    ord: Any = "fro",
    dim: Any = (-2, -1),
    keepdim: bool = False,
    **_: Any,
) -> Labelled:
    return norm(facts, x, ord, dim, keepdim)


@rule("aten.mean", "aten.nanmean")
def mean(facts: Facts, x: Labelled, dim: Any = None, keepdim: bool = False, **_: Any) -> Labelled:
    return mixed(facts, x, axes(x, dim), keepdim, "a mean over it")


@rule("aten.amax", "aten.amin", "aten.all", "aten.any")
def extreme(facts: Facts, x: Labelled, dim: Any = None, keepdim: bool = False) -> Labelled:
    return mixed(facts, x, axes(x, dim), keepdim, "a maximum over it")


@rule("aten.logsumexp", "aten.special_logsumexp")
def logsumexp(facts: Facts, x: Labelled, dim: Any, keepdim: bool = False) -> Labelled:
    """log(n) for n zeros."""
    return mixed(facts, x, axes(x, dim), keepdim, "a sum of exponentials over it").nonzero()


@rule("aten.prod")
def prod(facts: Facts, x: Labelled, dim: Any = None, keepdim: bool = False, **_: Any) -> Labelled:
    return mixed(facts, x, axes(x, dim), keepdim, "a product over it")


@rule("aten.max.default", "aten.min.default", "aten.median.default")
def extreme_of_all(facts: Facts, x: Labelled) -> Labelled:
    return mixed(facts, x, axes(x, None), False, "a maximum over it")


@rule("aten.max.other", "aten.min.other")
def greater(facts: Facts, x: Labelled, other: Labelled) -> Labelled:
    return unify(facts, x, other, "add")


@rule("aten.aminmax")
def extremes(
    facts: Facts, x: Labelled, *, dim: int | None = None, keepdim: bool = False
) -> tuple[Labelled, Labelled]:
    y = extreme(facts, x, dim, keepdim)
    return y, y


@rule("aten.kthvalue")
def kth_value(
    facts: Facts, x: Labelled, k: int, dim: int = -1, keepdim: bool = False
) -> tuple[Labelled, Labelled]:
    y = reduce(
        facts, pin_dims(facts, x, axes(x, dim), "its values are counted"), axes(x, dim), keepdim
    )
    return y, y.nonzero()


@rule("aten.max.dim", "aten.min.dim", "aten.median.dim", "aten.nanmedian.dim", "aten.mode")
def extreme_with_index(
    facts: Facts, x: Labelled, dim: int = -1, keepdim: bool = False
) -> tuple[Labelled, Labelled]:
    """The extreme and its position, counted in coordinates: if read, it pins the dimension."""
    dims = (axis(x, dim),)
    if not (facts.read[1] or facts.unsure):
        y = extreme(facts, x, dims, keepdim)
        return y, y.nonzero()
    y = reduce(facts, pin_dims(facts, x, dims, "its positions are returned"), dims, keepdim)
    return y, y.nonzero()


@rule("aten.argmax", "aten.argmin")
def arg_extreme(
    facts: Facts, x: Labelled, dim: int | None = None, keepdim: bool = False
) -> Labelled:
    dims = axes(x, dim)
    return reduce(
        facts, pin_dims(facts, x, dims, "its positions are returned"), dims, keepdim
    ).nonzero()


@rule("aten.var", "aten.std")
def spread(facts: Facts, x: Labelled, dim: Any = None, *_: Any, **named: Any) -> Labelled:
    dims = axes(x, None if isinstance(dim, bool) else dim)
    keepdim = bool(named.get("keepdim", len(_) > 1 and _[1]))
    if len(wide := [d for d in dims if x.shape[d] > 1]) == 1:
        facts.plural(x, wide[0])  # the variance of one value is undefined
    return mixed(facts, x, dims, keepdim, "a variance over it")


@rule("aten.var_mean", "aten.std_mean")
def spread_and_mean(
    facts: Facts, x: Labelled, dim: Any = None, *_: Any, **named: Any
) -> tuple[Labelled, Labelled]:
    y = spread(facts, x, dim, *_, **named)
    return y, y


@rule("aten.cumsum", "aten.cumprod")
def running(facts: Facts, x: Labelled, dim: int, **_: Any) -> Labelled:
    """Running sums: order matters, so the dimension itself is pinned."""
    dims = (axis(x, dim),)
    return even(facts, pin_dims(facts, x, dims, "a running sum over it"), dims)


@rule("aten.diff")
def difference(
    facts: Facts, x: Labelled, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None
) -> Labelled:
    """Differences of neighbours along a dimension, pinning it."""
    dim = axis(x, dim)
    parts = [part for part in (prepend, x, append) if part is not None]
    y = running(facts, concatenate(facts, parts, dim) if len(parts) > 1 else x, dim)
    return Labelled(facts.shape, y.layers)


@rule("aten.logcumsumexp")
def logcumsumexp(facts: Facts, x: Labelled, dim: int) -> Labelled:
    """log(n) for n zeros."""
    return running(facts, x, dim).nonzero()


@rule("aten.cummax", "aten.cummin")
def running_extreme(facts: Facts, x: Labelled, dim: int) -> tuple[Labelled, Labelled]:
    y = running(facts, x, dim)
    return y, y.nonzero()
