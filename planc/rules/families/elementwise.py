"""Elementwise operators: the labels pass through, two operands are unified.

They differ in their value at zero: a later contraction ignores removed coordinates only if they are
still zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import Any

from planc.rules.common import operand, vector
from planc.rules.labels import Labelled, unify
from planc.rules.labels.facts import Facts
from planc.rules.registry import rule

_KEEP_ZERO = """
    alias alpha_dropout bernoulli conj contiguous cpu cuda detach dropout feature_alpha_dropout
    feature_dropout hardswish imag lift lift_fresh lift_fresh_copy real requires_grad_ resolve_conj
    resolve_neg to type_as zero zero_ _conj _to_copy
"""
_LOSE_ZERO = "exponential fill log_sigmoid normal random uniform"


@rule(*(f"aten.{name}" for name in _KEEP_ZERO.split()))
def keeps_zero(facts: Facts, x: Labelled, *_: Any, **__: Any) -> Labelled:
    """f(0) = 0."""
    return x


@rule(*(f"aten.{name}" for name in _LOSE_ZERO.split()))
def loses_zero(facts: Facts, x: Labelled, *_: Any, **__: Any) -> Labelled:
    """f(0) is finite and not zero."""
    return x.nonzero()


def singular_at_zero(facts: Facts, x: Labelled) -> Labelled:
    """f(0) is not finite, so zeroing coordinates does not model their removal."""
    facts.mix([la for la in x.layers if la.zero], "a function that is not finite at zero")
    return x.nonzero()


# -- torch's pointwise operators, by their behaviour at zero ---------------------------------------


@cache
def _pointwise(one: str, two: str) -> Callable[..., Labelled]:
    """The rule for an operator of kind ``one`` for one tensor and of kind ``two`` for two."""
    alone = {"keep": keeps_zero, "lose": loses_zero, "singular": singular_at_zero}

    def pointwise(facts: Facts, x: Any, other: Any = None, *_: Any, **__: Any) -> Labelled:
        tensors = [value for value in (x, other) if isinstance(value, Labelled)]
        if len(tensors) == 1:
            return alone[one](facts, tensors[0])
        if two == "first":
            return unify(facts, x, other.nonzero(), "mul")
        if two in alone:
            left, right = (alone[two](facts, tensor) for tensor in tensors)
            return unify(facts, left, right, "add").nonzero()
        return unify(facts, x, other, two)  # type: ignore[arg-type]

    return pointwise


def _register_table() -> None:
    """Register the operators of ``elementwise.tsv``, computed with torch by
    ``tests/scripts/elementwise_table.py``.
    """
    rows = files("planc.rules").joinpath("elementwise.tsv").read_text().splitlines()
    for row in rows[1:]:
        name, *kinds = row.split("\t")
        rule(f"aten.{name}")(_pointwise(*kinds))


_register_table()


# -- operators that depend on numbers, on more tensors, or with more results -----------------------


@rule("aten.frexp")
def frexp(facts: Facts, x: Labelled) -> tuple[Labelled, Labelled]:
    """Mantissa and exponent, both zero for zero."""
    return x, x


@rule("aten.native_dropout")
def native_dropout(facts: Facts, x: Labelled, *_: Any) -> tuple[Labelled, Labelled]:
    """The result and the mask."""
    return x, x.nonzero()


@rule("aten.clamp_max")
def clamp_max(facts: Facts, x: Labelled, max: Any) -> Labelled:
    return clamp(facts, x, None, max)


@rule("aten.masked_fill")
def masked_fill(facts: Facts, x: Labelled, mask: Labelled, value: Any) -> Labelled:
    y = _chosen(facts, x, mask)
    return y if isinstance(value, int | float) and value == 0 else y.nonzero()


@rule("aten.hardtanh", "aten.clamp", "aten.clip", "aten.clamp_min")
def clamp(facts: Facts, x: Labelled, *bounds: Any, **named: Any) -> Labelled:
    """min(max(x, low), high); zero stays zero if the bounds are numbers with low <= 0 <= high."""
    for bound in (*bounds, *named.values()):
        if isinstance(bound, Labelled):
            x = unify(facts, x, bound, "add").nonzero()
    low, high = (*bounds, None, None)[:2]
    low, high = named.get("min", low), named.get("max", high)
    plain = all(b is None or isinstance(b, int | float) for b in (low, high))
    if plain and (low is None or low <= 0) and (high is None or high >= 0):
        return x
    return x.nonzero()


@rule("aten.threshold")
def threshold(facts: Facts, x: Labelled, threshold: float, value: float) -> Labelled:
    return x if threshold < 0 or value == 0 else x.nonzero()


@rule("aten.pow.Tensor_Scalar")
def power(facts: Facts, x: Labelled, exponent: float) -> Labelled:
    if exponent > 0:
        return x
    return singular_at_zero(facts, x)


@rule("aten.pow", "aten.float_power")
def general_power(facts: Facts, x: Any, exponent: Any) -> Labelled:
    return unify(facts, operand(x), operand(exponent), "add").nonzero()


@rule("aten.add", "aten.sub", "aten.rsub", "aten.subtract", "aten._add_relu")
def add(facts: Facts, x: Any, other: Any, alpha: Any = 1) -> Labelled:
    """x + alpha * other."""
    if not isinstance(other, Labelled):
        return operand(x) if other == 0 else operand(x).nonzero()
    return unify(facts, operand(x), other, "add")


@rule("aten.mul", "aten.multiply")
def mul(facts: Facts, x: Any, other: Any) -> Labelled:
    return unify(facts, operand(x), operand(other), "mul")


@rule(
    "aten.div",
    "aten.divide",
    "aten.true_divide",
    "aten.floor_divide",
    "aten.remainder",
    "aten.fmod",
)
def div(facts: Facts, x: Any, other: Any, **_: Any) -> Labelled:
    """x / other: zero where x is zero and other is not."""
    if not isinstance(other, Labelled):
        return operand(x)
    if other.positive:
        return unify(facts, operand(x), other.nonzero(), "mul")
    return unify(facts, operand(x), other, "div")


@rule("aten.where.self", "aten.where.ScalarSelf", "aten.where.ScalarOther", "aten.where.Scalar")
def where(facts: Facts, condition: Labelled, x: Any, other: Any) -> Labelled:
    """One of two tensors at each place: zero where both are."""
    if isinstance(x, Labelled) and isinstance(other, Labelled):
        either = unify(facts, x, other, "add")
    else:
        tensor, number = (x, other) if isinstance(x, Labelled) else (other, x)
        either = operand(tensor) if number == 0 else operand(tensor).nonzero()
    return _chosen(facts, either, condition)


def _chosen(facts: Facts, x: Labelled, condition: Labelled) -> Labelled:
    """``x`` selected by a condition, which neither creates nor destroys zeros."""
    return unify(facts, x, condition.nonzero(), "mul")


@rule("aten.lerp")
def lerp(facts: Facts, x: Labelled, end: Labelled, weight: Any) -> Labelled:
    """x + weight * (end - x)."""
    return _chosen(facts, unify(facts, x, end, "add"), operand(weight))


@rule("aten.addcmul")
def addcmul(facts: Facts, x: Labelled, tensor1: Labelled, tensor2: Labelled, **_: Any) -> Labelled:
    return unify(facts, x, unify(facts, tensor1, tensor2, "mul"), "add")


@rule("aten.addcdiv")
def addcdiv(facts: Facts, x: Labelled, tensor1: Labelled, tensor2: Labelled, **_: Any) -> Labelled:
    return unify(facts, x, unify(facts, tensor1, tensor2, "div"), "add")


@rule("aten.prelu", "aten._prelu_kernel")
def prelu(facts: Facts, x: Labelled, weight: Labelled) -> Labelled:
    """Channels are dimension 1; a single weight applies to all of them."""
    if weight.rank == 1 and weight.shape[0] > 1:
        weight = vector(weight, min(1, x.rank - 1), x.rank)
        return unify(facts, x, weight.nonzero(), "mul")
    return x


@rule("aten.rrelu", "aten.rrelu_with_noise")
def rrelu(facts: Facts, x: Labelled, *_: Any, **__: Any) -> Labelled:
    return x


@rule("aten.copy")
def copy(facts: Facts, x: Labelled, src: Labelled, non_blocking: bool = False) -> Labelled:
    """``x`` keeps its shape and takes the content of ``src``."""
    into = Labelled(x.shape, tuple(replace(layer, zero=True) for layer in x.layers))
    return unify(facts, into, src, "add")


@rule("aten.complex", "aten.polar")
def complex_parts(facts: Facts, x: Labelled, other: Labelled) -> Labelled:
    return unify(facts, x, other, "add")
