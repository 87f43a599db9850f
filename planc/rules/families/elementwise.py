"""Elementwise operators: the labels pass through, two operands are unified.

They differ in one thing: whether a coordinate that is zero stays zero, on which it depends whether
a contraction further on sees nothing of it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from planc.rules.labels import Labelled, unify
from planc.rules.labels.facts import Facts
from planc.rules.registry import operand, rule, vector

_KEEP_ZERO = [
    "abs",
    "absolute",
    "alias",
    "alpha_dropout",
    "arcsin",
    "arcsinh",
    "arctan",
    "arctanh",
    "asin",
    "asinh",
    "atan",
    "atanh",
    "ceil",
    "celu",
    "clone",
    "contiguous",
    "conj",
    "detach",
    "dropout",
    "elu",
    "erf",
    "erfinv",
    "expm1",
    "feature_dropout",
    "feature_alpha_dropout",
    "fix",
    "floor",
    "frac",
    "gelu",
    "hardshrink",
    "hardswish",
    "leaky_relu",
    "lift",
    "lift_fresh",
    "lift_fresh_copy",
    "log1p",
    "mish",
    "nan_to_num",
    "neg",
    "negative",
    "positive",
    "real",
    "relu",
    "relu6",
    "resolve_conj",
    "resolve_neg",
    "round",
    "selu",
    "sgn",
    "sign",
    "silu",
    "sin",
    "sinh",
    "softshrink",
    "sqrt",
    "square",
    "tan",
    "tanh",
    "to",
    "trunc",
    "type_as",
    "_to_copy",
    "_conj",
    "zero_",
    "zero",
    "requires_grad_",
    "bernoulli",
    "cpu",
    "cuda",
]

_LOSE_ZERO = [
    "acos",
    "arccos",
    "bitwise_not",
    "cos",
    "cosh",
    "deg2rad",
    "erfc",
    "exp",
    "exp2",
    "fill",
    "hardsigmoid",
    "isfinite",
    "isinf",
    "isnan",
    "log_sigmoid",
    "logical_not",
    "rad2deg",
    "sigmoid",
    "softplus",
    "normal",
    "uniform",
    "bitwise_and.Scalar",
    "bitwise_or.Scalar",
    "bitwise_xor.Scalar",
    "exponential",
    "random",
]

_SINGULAR_AT_ZERO = [
    "acosh",
    "arccosh",
    "digamma",
    "lgamma",
    "log",
    "log2",
    "log10",
    "logit",
    "reciprocal",
    "rsqrt",
]

_TWO_OPERANDS = [
    "atan2",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "logical_and",
    "logical_or",
    "logical_xor",
    "bitwise_and",
    "bitwise_or",
    "bitwise_xor",
    "__and__",
    "__or__",
    "__xor__",
    "maximum",
    "minimum",
    "fmax",
    "fmin",
    "hypot",
    "logaddexp",
    "logaddexp2",
    "xlogy",
    "nextafter",
    "heaviside",
]


@rule(*(f"aten.{name}" for name in _KEEP_ZERO))
def keeps_zero(cx: Facts, x: Labelled, *_: Any, **__: Any) -> Labelled:
    """f(0) = 0."""
    return x


@rule(*(f"aten.{name}" for name in _LOSE_ZERO))
def loses_zero(cx: Facts, x: Labelled, *_: Any, **__: Any) -> Labelled:
    """f(0) is something else."""
    return x.nonzero()


@rule(*(f"aten.{name}" for name in _SINGULAR_AT_ZERO))
def singular_at_zero(cx: Facts, x: Labelled, *_: Any, **__: Any) -> Labelled:
    """f(0) is not finite, so zeroing coordinates is no model of removing them."""
    cx.mix([la for la in x.layers if la.zero], "a function that is not finite at zero")
    return x.nonzero()


@rule("aten.native_dropout")
def native_dropout(cx: Facts, x: Labelled, *_: Any) -> tuple[Labelled, Labelled]:
    """The result and the mask."""
    return x, x.nonzero()


@rule("aten.clamp_max")
def clamp_max(cx: Facts, x: Labelled, max: Any) -> Labelled:
    return clamp(cx, x, None, max)


@rule("aten.masked_fill")
def masked_fill(cx: Facts, x: Labelled, mask: Labelled, value: Any) -> Labelled:
    y = _chosen(cx, x, mask)
    return y if isinstance(value, int | float) and value == 0 else y.nonzero()


@rule("aten.hardtanh", "aten.clamp", "aten.clip", "aten.clamp_min")
def clamp(cx: Facts, x: Labelled, *bounds: Any, **named: Any) -> Labelled:
    """min(max(x, low), high); zero stays zero between plain bounds of both signs."""
    for bound in (*bounds, *named.values()):
        if isinstance(bound, Labelled):
            x = unify(cx, x, bound, "add").nonzero()
    low, high = (*bounds, None, None)[:2]
    low, high = named.get("min", low), named.get("max", high)
    plain = all(b is None or isinstance(b, int | float) for b in (low, high))
    if plain and (low is None or low <= 0) and (high is None or high >= 0):
        return x
    return x.nonzero()


@rule("aten.threshold")
def threshold(cx: Facts, x: Labelled, threshold: float, value: float) -> Labelled:
    return x if threshold < 0 or value == 0 else x.nonzero()


@rule("aten.pow.Tensor_Scalar")
def power(cx: Facts, x: Labelled, exponent: float) -> Labelled:
    if exponent > 0:
        return x
    return singular_at_zero(cx, x)


@rule("aten.pow", "aten.float_power")
def general_power(cx: Facts, x: Any, exponent: Any) -> Labelled:
    return unify(cx, operand(x), operand(exponent), "add").nonzero()


@rule("aten.add", "aten.sub", "aten.rsub", "aten.subtract", "aten._add_relu")
def add(cx: Facts, x: Any, other: Any, alpha: Any = 1) -> Labelled:
    """x + alpha * other."""
    if not isinstance(other, Labelled):
        return operand(x) if other == 0 else operand(x).nonzero()
    return unify(cx, operand(x), other, "add")


@rule("aten.mul", "aten.multiply")
def mul(cx: Facts, x: Any, other: Any) -> Labelled:
    return unify(cx, operand(x), operand(other), "mul")


@rule(
    "aten.div",
    "aten.divide",
    "aten.true_divide",
    "aten.floor_divide",
    "aten.remainder",
    "aten.fmod",
)
def div(cx: Facts, x: Any, other: Any, **_: Any) -> Labelled:
    """x / other: zero where x is and other is not."""
    if not isinstance(other, Labelled):
        return operand(x)
    return unify(cx, operand(x), other, "div")


@rule(*(f"aten.{name}" for name in _TWO_OPERANDS))
def two_operands(cx: Facts, x: Any, other: Any, *_: Any, **__: Any) -> Labelled:
    return unify(cx, operand(x), operand(other), "add").nonzero()


@rule("aten.where.self", "aten.where.ScalarSelf", "aten.where.ScalarOther", "aten.where.Scalar")
def where(cx: Facts, condition: Labelled, x: Any, other: Any) -> Labelled:
    """One of two tensors at each place: zero where both are."""
    if isinstance(x, Labelled) and isinstance(other, Labelled):
        either = unify(cx, x, other, "add")
    else:
        tensor, number = (x, other) if isinstance(x, Labelled) else (other, x)
        either = operand(tensor) if number == 0 else operand(tensor).nonzero()
    return _chosen(cx, either, condition)


def _chosen(cx: Facts, x: Labelled, condition: Labelled) -> Labelled:
    """A condition decides which value is taken, not what it is: no zero is spoilt, none made."""
    return unify(cx, x, condition.nonzero(), "mul")


@rule("aten.lerp")
def lerp(cx: Facts, x: Labelled, end: Labelled, weight: Any) -> Labelled:
    """x + weight * (end - x)."""
    return _chosen(cx, unify(cx, x, end, "add"), operand(weight))


@rule("aten.addcmul")
def addcmul(cx: Facts, x: Labelled, tensor1: Labelled, tensor2: Labelled, **_: Any) -> Labelled:
    return unify(cx, x, unify(cx, tensor1, tensor2, "mul"), "add")


@rule("aten.addcdiv")
def addcdiv(cx: Facts, x: Labelled, tensor1: Labelled, tensor2: Labelled, **_: Any) -> Labelled:
    return unify(cx, x, unify(cx, tensor1, tensor2, "div"), "add")


@rule("aten.prelu", "aten._prelu_kernel")
def prelu(cx: Facts, x: Labelled, weight: Labelled) -> Labelled:
    """Channels are dimension 1; one weight may serve them all."""
    if weight.rank == 1 and weight.shape[0] > 1:
        weight = vector(weight, min(1, x.rank - 1), x.rank)
        return unify(cx, x, weight.nonzero(), "mul")
    return x


@rule("aten.rrelu", "aten.rrelu_with_noise")
def rrelu(cx: Facts, x: Labelled, *_: Any, **__: Any) -> Labelled:
    return x


@rule("aten.copy")
def copy(cx: Facts, x: Labelled, src: Labelled, non_blocking: bool = False) -> Labelled:
    """``x`` keeps its shape and takes the content of ``src``."""
    into = Labelled(x.shape, tuple(replace(layer, zero=True) for layer in x.layers))
    return unify(cx, into, src, "add")


@rule("aten.complex", "aten.polar")
def complex_parts(cx: Facts, x: Labelled, other: Labelled) -> Labelled:
    return unify(cx, x, other, "add")
