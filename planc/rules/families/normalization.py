"""Normalisations.

Those with statistics per channel keep channels independent. Those across a pruned dimension mix it:
shapes stay provable, equality with the masked model does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from planc.rules.common import axis, vector
from planc.rules.families.reduction import summed
from planc.rules.labels import Labelled, even, reduce, reshape, unify
from planc.rules.labels.facts import Facts
from planc.rules.registry import rule


def _affine(facts: Facts, x: Labelled, weight: Labelled | None, bias: Labelled | None) -> Labelled:
    if weight is not None:
        x = unify(facts, x, weight, "mul")
    return x if bias is None else unify(facts, x, bias, "add")


def _per_channel(facts: Facts, x: Labelled, *vectors: Labelled | None) -> Labelled:
    """(x - mean) / sqrt(var + eps) * weight + bias, each a vector over dimension 1."""
    weight, bias, mean, var = (v and vector(v, 1, x.rank) for v in vectors)
    if mean is not None:
        x = unify(facts, x, mean, "add")
    if var is not None:
        x = unify(facts, x, var.nonzero(), "mul")
    return _affine(facts, x, weight, bias)


@rule("aten.batch_norm")
def batch_norm(
    facts: Facts,
    x: Labelled,
    weight: Labelled | None,
    bias: Labelled | None,
    running_mean: Labelled | None,
    running_var: Labelled | None,
    training: bool = False,
    *_: Any,
) -> Labelled:
    if training:
        x = _by_own_statistics(facts, x)
    return _per_channel(facts, x, weight, bias, running_mean, running_var)


def _by_own_statistics(facts: Facts, x: Labelled) -> Labelled:
    dims = [d for d in range(x.rank) if d != 1]
    return _normalised(facts, x, dims, "batch norm takes its statistics over it")


@rule(
    "aten.native_batch_norm",
    "aten.cudnn_batch_norm",
    "aten._native_batch_norm_legit",
    "aten._native_batch_norm_legit_no_training",
    "aten._batch_norm_with_update",
)
def native_batch_norm(facts: Facts, x: Labelled, *args: Any) -> tuple[Labelled, ...]:
    vectors = [v if isinstance(v, Labelled) else None for v in args[:4]]
    if any(flag is True for flag in args[4:]):
        x = _by_own_statistics(facts, x)
    y = _per_channel(facts, x, *vectors)
    channels = reduce(facts, y.nonzero(), [d for d in range(x.rank) if d != 1], keepdim=False)
    kept = (channels if shape == channels.shape else Labelled(shape) for shape in facts.shapes[1:])
    return (y, *kept)


@rule("aten.instance_norm")
def instance_norm(
    facts: Facts,
    x: Labelled,
    weight: Labelled | None,
    bias: Labelled | None,
    running_mean: Labelled | None,
    running_var: Labelled | None,
    *_: Any,
) -> Labelled:
    x = _normalised(facts, x, range(2, x.rank), "instance norm over it")
    return _per_channel(facts, x, weight, bias, running_mean, running_var)


def _normalised(facts: Facts, x: Labelled, dims: Sequence[int], reason: str) -> Labelled:
    """``x`` normalised over ``dims``; lines of zeros stay zero."""
    _keep_two(facts, x, dims)
    return _mixed(facts, x, dims, reason)


def _mixed(facts: Facts, x: Labelled, dims: Sequence[int], reason: str) -> Labelled:
    x = even(facts, x, dims)
    facts.mix([la for la in x.layers if la.target in dims], reason)
    layers = tuple(
        Labelled(x.shape, (la,)).nonzero().layers[0] if la.target in dims else la for la in x.layers
    )
    return Labelled(x.shape, layers)


def _keep_two(facts: Facts, x: Labelled, dims: Sequence[int]) -> None:
    """Require two coordinates along the widest pruned dimension of ``dims`` if all others may have
    size 1 (a batch may): a single value would be normalised to a constant.
    """
    shrinking = [d for d in dims if x.targeting(d)]
    if shrinking and all(d in shrinking or d == 0 or x.shape[d] == 1 for d in dims):
        facts.plural(x, max(shrinking, key=lambda d: x.shape[d]))


@rule("aten.layer_norm", "aten.native_layer_norm")
def layer_norm(
    facts: Facts,
    x: Labelled,
    normalized_shape: Sequence[int],
    weight: Labelled | None = None,
    bias: Labelled | None = None,
    *_: Any,
    **__: Any,
) -> Any:
    return _trailing(facts, x, normalized_shape, weight, bias, "layer norm over it")


@rule("aten.rms_norm", "aten._fused_rms_norm")
def rms_norm(
    facts: Facts,
    x: Labelled,
    normalized_shape: Sequence[int],
    weight: Labelled | None = None,
    *_: Any,
    **__: Any,
) -> Any:
    return _trailing(facts, x, normalized_shape, weight, None, "rms norm over it")


def _trailing(
    facts: Facts,
    x: Labelled,
    normalized_shape: Sequence[int],
    weight: Labelled | None,
    bias: Labelled | None,
    reason: str,
) -> Any:
    dims = range(x.rank - len(normalized_shape), x.rank)
    y = _affine(facts, _normalised(facts, x, dims, reason), weight, bias)
    for i, dim in enumerate(dims):
        facts.demand("normalized_shape", i, y, dim)
    if len(facts.shapes) == 1:
        return y
    statistics = reduce(facts, y.nonzero(), dims, keepdim=True)
    return (y, *(statistics for _ in facts.shapes[1:]))


@rule("aten._weight_norm")
def weight_norm(facts: Facts, v: Labelled, g: Labelled, dim: int = 0) -> Labelled:
    """g v / |v|, with the norm over all dimensions but ``dim``, or over all of them for -1.

    Zeros do not count in a norm. But a norm of zeros alone makes the masked weight NaN.
    """
    kept = () if dim == -1 else (axis(v, dim),)
    norm = summed(facts, v, [d for d in range(v.rank) if d not in kept], keepdim=True)
    return unify(facts, v, unify(facts, g, norm, "div"), "mul")


@rule("aten._weight_norm_interface")
def weight_norm_interface(
    facts: Facts, v: Labelled, g: Labelled, dim: int = 0
) -> tuple[Labelled, Labelled]:
    return weight_norm(facts, v, g, dim), g


@rule("aten.group_norm")
def group_norm(
    facts: Facts,
    x: Labelled,
    num_groups: int,
    weight: Labelled | None = None,
    bias: Labelled | None = None,
    *_: Any,
) -> Labelled:
    """Channels split into groups; a whole group can be removed without affecting the others."""
    n, c, *rest = x.shape
    apart = reshape(facts, x, (n, num_groups, c // num_groups, *rest))
    facts.demand("num_groups", None, apart, 1)
    apart = _normalised(facts, apart, range(2, apart.rank), "group norm over it")
    facts.tag(apart.targeting(1), "groups")
    y = reshape(facts, apart, x.shape)
    return _per_channel(facts, y, weight, bias, None, None)


@rule(
    "aten.softmax",
    "aten.log_softmax",
    "aten._softmax",
    "aten._log_softmax",
    "aten._safe_softmax",
    "aten.special_softmax",
    "aten.special_log_softmax",
)
def softmax(facts: Facts, x: Labelled, dim: int, *_: Any, **__: Any) -> Labelled:
    dim = axis(x, dim)
    return _mixed(facts, x, (dim,), "softmax over it").nonzero()
