"""Normalisations. Those over channels of their own leave channels apart; those across a pruned
dimension mix it: shapes stay provable, equality with the masked model does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from planc.rules.families.reduction import summed
from planc.rules.labels import Labelled, even, reduce, reshape, unify
from planc.rules.labels.facts import Facts
from planc.rules.registry import axis, rule, vector


def _affine(cx: Facts, x: Labelled, weight: Labelled | None, bias: Labelled | None) -> Labelled:
    if weight is not None:
        x = unify(cx, x, weight, "mul")
    return x if bias is None else unify(cx, x, bias, "add")


def _per_channel(cx: Facts, x: Labelled, *vectors: Labelled | None) -> Labelled:
    """(x - mean) / sqrt(var + eps) * weight + bias, each a vector over dimension 1."""
    weight, bias, mean, var = (v and vector(v, 1, x.rank) for v in vectors)
    if mean is not None:
        x = unify(cx, x, mean, "add")
    if var is not None:
        x = unify(cx, x, var.nonzero(), "mul")
    return _affine(cx, x, weight, bias)


@rule("aten.batch_norm")
def batch_norm(
    cx: Facts,
    x: Labelled,
    weight: Labelled | None,
    bias: Labelled | None,
    running_mean: Labelled | None,
    running_var: Labelled | None,
    training: bool = False,
    *_: Any,
) -> Labelled:
    if training:
        x = _by_own_statistics(cx, x)
    return _per_channel(cx, x, weight, bias, running_mean, running_var)


def _by_own_statistics(cx: Facts, x: Labelled) -> Labelled:
    dims = [d for d in range(x.rank) if d != 1]
    return _normalised(cx, x, dims, "batch norm takes its statistics over it")


@rule(
    "aten.native_batch_norm",
    "aten.cudnn_batch_norm",
    "aten._native_batch_norm_legit",
    "aten._native_batch_norm_legit_no_training",
    "aten._batch_norm_with_update",
)
def native_batch_norm(cx: Facts, x: Labelled, *args: Any) -> tuple[Labelled, ...]:
    vectors = [v if isinstance(v, Labelled) else None for v in args[:4]]
    if any(flag is True for flag in args[4:]):
        x = _by_own_statistics(cx, x)
    y = _per_channel(cx, x, *vectors)
    channels = reduce(cx, y.nonzero(), [d for d in range(x.rank) if d != 1], keepdim=False)
    kept = (channels if shape == channels.shape else Labelled(shape) for shape in cx.shapes[1:])
    return (y, *kept)


@rule("aten.instance_norm")
def instance_norm(
    cx: Facts,
    x: Labelled,
    weight: Labelled | None,
    bias: Labelled | None,
    running_mean: Labelled | None,
    running_var: Labelled | None,
    *_: Any,
) -> Labelled:
    x = _normalised(cx, x, range(2, x.rank), "instance norm over it")
    return _per_channel(cx, x, weight, bias, running_mean, running_var)


def _normalised(cx: Facts, x: Labelled, dims: Sequence[int], reason: str) -> Labelled:
    """``x`` normalised over ``dims``: what is zero all over stays zero."""
    _keep_two(cx, x, dims)
    return _mixed(cx, x, dims, reason)


def _mixed(cx: Facts, x: Labelled, dims: Sequence[int], reason: str) -> Labelled:
    x = even(cx, x, dims)
    cx.mix([la for la in x.layers if la.target in dims], reason)
    layers = tuple(
        Labelled(x.shape, (la,)).nonzero().layers[0] if la.target in dims else la for la in x.layers
    )
    return Labelled(x.shape, layers)


def _keep_two(cx: Facts, x: Labelled, dims: Sequence[int]) -> None:
    """Where nothing else is averaged over, one value alone would be normalised to a constant. A
    batch, the first dimension, may be one.
    """
    shrinking = [d for d in dims if x.targeting(d)]
    if shrinking and all(d in shrinking or d == 0 or x.shape[d] == 1 for d in dims):
        cx.plural(x, max(shrinking, key=lambda d: x.shape[d]))


@rule("aten.layer_norm", "aten.native_layer_norm")
def layer_norm(
    cx: Facts,
    x: Labelled,
    normalized_shape: Sequence[int],
    weight: Labelled | None = None,
    bias: Labelled | None = None,
    *_: Any,
    **__: Any,
) -> Any:
    return _trailing(cx, x, normalized_shape, weight, bias, "layer norm over it")


@rule("aten.rms_norm", "aten._fused_rms_norm")
def rms_norm(
    cx: Facts,
    x: Labelled,
    normalized_shape: Sequence[int],
    weight: Labelled | None = None,
    *_: Any,
    **__: Any,
) -> Any:
    return _trailing(cx, x, normalized_shape, weight, None, "rms norm over it")


def _trailing(
    cx: Facts,
    x: Labelled,
    normalized_shape: Sequence[int],
    weight: Labelled | None,
    bias: Labelled | None,
    reason: str,
) -> Any:
    dims = range(x.rank - len(normalized_shape), x.rank)
    y = _affine(cx, _normalised(cx, x, dims, reason), weight, bias)
    for i, dim in enumerate(dims):
        cx.demand("normalized_shape", i, y, dim)
    if len(cx.shapes) == 1:
        return y
    statistics = reduce(cx, y.nonzero(), dims, keepdim=True)
    return (y, *(statistics for _ in cx.shapes[1:]))


@rule("aten._weight_norm")
def weight_norm(cx: Facts, v: Labelled, g: Labelled, dim: int = 0) -> Labelled:
    """g v / |v|, the norm taken over all dimensions but ``dim``, or (-1) over all of them.

    Zeros do not count in a norm. But where all that it is taken over is zero when masked, the
    masked weight is not a number.
    """
    kept = () if dim == -1 else (axis(v, dim),)
    norm = summed(cx, v, [d for d in range(v.rank) if d not in kept], keepdim=True)
    return unify(cx, v, unify(cx, g, norm, "div"), "mul")


@rule("aten._weight_norm_interface")
def weight_norm_interface(
    cx: Facts, v: Labelled, g: Labelled, dim: int = 0
) -> tuple[Labelled, Labelled]:
    return weight_norm(cx, v, g, dim), g


@rule("aten.group_norm")
def group_norm(
    cx: Facts,
    x: Labelled,
    num_groups: int,
    weight: Labelled | None = None,
    bias: Labelled | None = None,
    *_: Any,
) -> Labelled:
    """Channels are split into groups; a whole group can go without the others noticing."""
    n, c, *rest = x.shape
    apart = reshape(cx, x, (n, num_groups, c // num_groups, *rest))
    cx.demand("num_groups", None, apart, 1)
    apart = _normalised(cx, apart, range(2, apart.rank), "group norm over it")
    cx.tag(apart.targeting(1), "groups")
    y = reshape(cx, apart, x.shape)
    return _per_channel(cx, y, weight, bias, None, None)


@rule(
    "aten.softmax",
    "aten.log_softmax",
    "aten._softmax",
    "aten._log_softmax",
    "aten._safe_softmax",
    "aten.special_softmax",
    "aten.special_log_softmax",
)
def softmax(cx: Facts, x: Labelled, dim: int, *_: Any, **__: Any) -> Labelled:
    dim = axis(x, dim)
    return _mixed(cx, x, (dim,), "softmax over it").nonzero()
