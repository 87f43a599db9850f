"""Elementwise operators: which keep a zero a zero, and how two operands are matched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from planc.rules import find
from planc.rules.families import elementwise
from tests.rules.coverage import Case, analysed, unseen
from tests.scripts import elementwise_table
from tests.support.proving import Net, prove, together

ops = torch.ops.aten
IMAGES = torch.randn(2, 3, 4, 4)
Unary = Callable[[Tensor], Any]


def plain(name: str) -> Unary:
    return lambda y: getattr(ops, name)(y)


KEEPS_ZERO: dict[str, Unary] = {
    name: plain(name)
    for name in [
        "abs",
        "alias",
        "arctan",
        "asinh",
        "atan",
        "ceil",
        "celu",
        "angle",
        "deg2rad",
        "rad2deg",
        "special_bessel_j1",
        "special_i1",
        "clone",
        "contiguous",
        "detach",
        "elu",
        "erf",
        "expm1",
        "fix",
        "floor",
        "frac",
        "gelu",
        "hardshrink",
        "hardswish",
        "hardtanh",
        "leaky_relu",
        "lift",
        "lift_fresh",
        "lift_fresh_copy",
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
        "square",
        "tan",
        "tanh",
        "trunc",
        "conj",
        "zero",
        "arcsinh",
    ]
}
KEEPS_ZERO |= {
    "imaginary part": lambda y: torch.complex(y, y.sin()).imag,
    "arcsin of tanh": lambda y: ops.arcsin(y.tanh()),
    "asin of tanh": lambda y: y.tanh().asin(),
    "atanh of tanh": lambda y: y.tanh().atanh(),
    "erfinv of tanh": lambda y: y.tanh().erfinv(),
    "log1p of abs": lambda y: y.abs().log1p(),
    "sqrt of abs": lambda y: y.abs().sqrt(),
    "alpha_dropout": lambda y: ops.alpha_dropout(y, 0.5, False),
    "dropout": lambda y: ops.dropout(y, 0.5, False),
    "feature_dropout": lambda y: ops.feature_dropout(y, 0.5, False),
    "feature_alpha_dropout": lambda y: ops.feature_alpha_dropout(y, 0.5, False),
    "native_dropout": lambda y: ops.native_dropout(y, 0.5, False)[0],
    "isinf": lambda y: y.isinf().to(y.dtype),
    "isnan": lambda y: y.isnan().to(y.dtype),
    "copysign": lambda y: torch.copysign(y, y.cos()),
    "ldexp": lambda y: torch.ldexp(y, y.cos()),
    "greater": lambda y: torch.gt(y, 2 * y).to(y.dtype) + torch.ne(y, y.sin()),
    "bitwise_and": lambda y: ((y.exp() > 0.3) & (y > 2 * y)).to(y.dtype) + ((y > 2 * y).int() & 3),
    "frexp": lambda y: torch.frexp(y).mantissa + torch.frexp(y).exponent,
    "xlog1py": lambda y: torch.special.xlog1py(y, y.exp()),
    "_to_copy": lambda y: ops._to_copy(y),
    "to": lambda y: y.to(torch.float32).to(y.dtype),
    "type_as": lambda y: y.type_as(y.float()).type_as(y),
    "zero in place": lambda y: y.clone().zero_(),
    "rrelu": lambda y: ops.rrelu(y),
    "threshold below zero": lambda y: functional.threshold(y, -0.1, -3.0),
    "threshold to zero": lambda y: functional.threshold(y, 0.5, 0.0),
    "clamp": lambda y: y.clamp(-1, 0.5),
    "clamp from below": lambda y: y.clamp(min=0),
    "clip": lambda y: ops.clip(y, -1, 1),
    "clamp_min": lambda y: ops.clamp_min(y, -0.5),
    "clamp_max": lambda y: ops.clamp_max(y, 0.5),
    "power": lambda y: y**3,
    "plus nothing": lambda y: y + 0,
    "times a number": lambda y: 3 * y,
    "divided by a number": lambda y: y / 3,
    "floor division": lambda y: y // 0.3,
    "remainder": lambda y: y % 0.7,
    "fmod": lambda y: y.fmod(0.7),
    "plus itself": lambda y: y + 2 * y,
    "minus": lambda y: torch.sub(y, y.sin(), alpha=3),
    "subtract": lambda y: ops.subtract(y, y.tanh()),
    "multiply": lambda y: ops.multiply(y, y.exp()),
    "mul in place": lambda y: y.clone().mul_(y.cos()),
    "true_divide": lambda y: ops.true_divide(y, 3),
    "copy": lambda y: torch.empty_like(y).copy_(y),
    "where": lambda y: torch.where(y > 0.1, y, y.sin()),
    "lerp": lambda y: torch.lerp(y, y.sin(), 0.3),
    "where or nothing": lambda y: torch.where((y > 0)[:, :1], 0, torch.where(y > -1, y, 0.0)),
    "filled with nothing": lambda y: y.masked_fill(y[0, 0] > 0, 0),
    "arctanh": lambda y: ops.arctanh(y.tanh()) + ops.absolute(y),
    "lerp by a tensor": lambda y: torch.lerp(y, y.sin(), y.sigmoid()),
    "addcmul": lambda y: torch.addcmul(y, y, y.exp()),
    "prelu": lambda y: functional.prelu(y, torch.tensor([0.2], dtype=y.dtype)),
    "_add_relu": lambda y: y.relu() + y.abs(),
    "_conj": lambda y: ops.resolve_conj(ops._conj(torch.complex(y, y.sin()))).real,
    "maximum of both": lambda y: torch.max(y, y.sin()),
}
LOSES_ZERO: dict[str, Unary] = {
    name: plain(name)
    for name in [
        "cos",
        "cosh",
        "i0",
        "sinc",
        "erfc",
        "exp",
        "exp2",
        "hardsigmoid",
        "log_sigmoid",
        "sigmoid",
        "softplus",
    ]
}
LOSES_ZERO |= {
    "acos of tanh": lambda y: y.tanh().acos(),
    "isfinite": lambda y: y.isfinite().to(y.dtype),
    "not isinf": lambda y: y.isinf().logical_not().to(y.dtype),
    "not isnan": lambda y: y.isnan().logical_not().to(y.dtype),
    "bitwise_not": lambda y: (y > 0).bitwise_not().to(y.dtype),
    "bitwise numbers": lambda y: (((y > 0).int() | 2) ^ (y > 1).int() & 1).to(y.dtype),
    "bitwise constants": lambda y: ops.bitwise_xor(ops.bitwise_and((y > 0).int(), 3), 4).to(
        y.dtype
    ),
    "__or__": lambda y: ((y > 0).int() | 2).to(y.dtype) + ops.bitwise_or((y > 0).int(), 2),
    "bitwise_or": lambda y: ops.bitwise_or(y > 0, y < 0).to(y.dtype),
    "__and__": lambda y: ((y > 0).__and__(y <= 0).__or__(y < 0).__xor__(y >= 0)).to(y.dtype),
    "fill": lambda y: y.clone().fill_(2.0),
    "masked_fill": lambda y: y.masked_fill(y > 0.3, 2.0),
    "threshold": lambda y: functional.threshold(y, 0.5, 2.0),
    "clamp above": lambda y: y.clamp(0.5, 2),
    "clamp_min above": lambda y: ops.clamp_min(y, 0.5),
    "clamp_max below": lambda y: ops.clamp_max(y, -0.5),
    "clamp by tensors": lambda y: torch.clamp(y, y.sin() - 1, y.cos() + 1),
    "plus a number": lambda y: y + 1,
    "minus in place": lambda y: y.clone().sub_(2),
    "a number minus": lambda y: ops.rsub(y, 1),
    "reciprocal of the exponential": lambda y: 1 / y.exp(),
    "power of a number": lambda y: 2.0**y,
    "power of a tensor": lambda y: y.abs() ** y.sigmoid(),
    "float_power": lambda y: ops.float_power(y, 2),
    "comparison": lambda y: (y >= 0).to(y.dtype),
    "comparisons": lambda y: ((y == 0) | (y <= y.sin()) ^ (y != 0) & (y < 2)).to(y.dtype),
    "logic": lambda y: ((y > 0).logical_and(y > 1).logical_or(y < 0).logical_xor(y > 2)).to(
        y.dtype
    ),
    "divide": lambda y: ops.divide(y, y.exp()),  # nobody knows that it is not zero
    "arccos": lambda y: ops.arccos(y.tanh()),
    "atan2": lambda y: torch.atan2(y, y.exp()) + torch.hypot(y, y.exp()),
    "maximum": lambda y: torch.maximum(y, torch.minimum(y.exp(), y.sigmoid())),
    "signbit": lambda y: y.signbit().to(y.dtype),
    "chebyshev": lambda y: torch.special.chebyshev_polynomial_t(y, 3),
    "fmax": lambda y: torch.fmax(y, torch.fmin(y.exp(), y.sigmoid())),
    "logaddexp": lambda y: torch.logaddexp(y, y.sin()) + torch.logaddexp2(y, y.sin()),
    "xlogy": lambda y: torch.xlogy(y, y.exp()),
    "nextafter": lambda y: torch.nextafter(y, y.exp()) + torch.heaviside(y, y.exp()),
    "where, numbers": lambda y: torch.where(y > 0, 1.0, torch.where(y < -1, 2.0, 3.0).to(y.dtype)),
    "where with a number": lambda y: torch.where(y > 0, y, 1.0),
    "polar": lambda y: torch.polar(y.exp(), y).real,
    "added one": lambda y: torch.addcmul(y.exp(), y, y),
    "zero written over": lambda y: y.clone().copy_(y.exp()),
}
SINGULAR: dict[str, Unary] = {
    "log": lambda y: y.abs().log(),
    "log2": lambda y: y.abs().log2(),
    "log10": lambda y: y.abs().log10(),
    "rsqrt": lambda y: y.abs().rsqrt(),
    "reciprocal": torch.reciprocal,
    "division": lambda y: 2 / y,
    "division by itself": lambda y: y.exp() / y,
    "addcdiv": lambda y: torch.addcdiv(y, y.exp(), y),
    "lgamma": torch.lgamma,
    "polygamma": lambda y: torch.polygamma(1, y),
    "xlogy by a zero": lambda y: torch.xlogy(y.exp(), y.abs()),
    "digamma": torch.digamma,
    "negative power": lambda y: y**-2,
    "logit": lambda y: y.tanh().abs().logit(),
    "acosh": lambda y: (y * 0).acosh().nan_to_num(),
    "arccosh": lambda y: ops.arccosh(y * 0).nan_to_num(),
}
RANDOM = {
    "bernoulli": lambda y: ops.bernoulli(y.sigmoid()),
    "normal": lambda y: torch.empty_like(y).normal_(),
    "uniform": lambda y: torch.empty_like(y).uniform_(),
    "exponential": lambda y: torch.empty_like(y).exponential_(),
    "random": lambda y: torch.empty_like(y).random_(),
    "rrelu noise": lambda y: functional.rrelu(y, training=True),
}


def summed(op: Unary) -> Net:
    """The sum over channels sees what is not zero, the convolution does not."""
    return Net(lambda m, x: op(m.a(x)).sum(1), a=nn.Conv2d(3, 4, 1))


def consumed(table: dict[str, Unary]) -> Net:
    def run(m: Any, x: Tensor) -> list[Tensor]:
        return [m.b(op(m.a(x)).to(x.dtype)) for op in table.values()]

    return Net(run, a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(4, 2, 1))


def test_every_operator_is_exercised() -> None:
    cases: list[Case] = [
        (Net(lambda m, x, op=op: op(m.a(x)), a=nn.Conv2d(3, 4, 1)), (IMAGES,))
        for table in (KEEPS_ZERO, LOSES_ZERO, SINGULAR, RANDOM)
        for op in table.values()
    ]
    tagged = {f"aten.{row[0]}" for row in stored()}  # held to torch below
    left = unseen(elementwise, cases) - tagged
    assert (
        left
        == {
            "aten.cpu",
            "aten.cuda",  # devices
            "aten._prelu_kernel",
            "aten._add_relu",
            "aten.rrelu_with_noise",
            "aten.requires_grad_",
            "aten.zero_",
            "aten.pow",
        }
        & left
    ), left


def stored() -> list[list[str]]:
    """The rows of the table without their heading."""
    return [row.split("\t") for row in elementwise_table.TABLE.read_text().splitlines()[1:]]


def test_the_table_is_computed_by_the_installed_torch() -> None:
    computed = elementwise_table.table()
    kept = {name: tuple(kinds) for name, *kinds in stored() if hasattr(ops, name)}
    assert kept == computed, "run python -m tests.scripts.elementwise_table"


def test_every_pointwise_operator_has_a_rule() -> None:
    without = set()
    for name in dir(ops):
        packet = getattr(ops, name)
        for overload in getattr(packet, "overloads", list)():
            operator = getattr(packet, overload)
            schema = operator._schema
            forward = "backward" not in name and overload != "grad_input"
            if torch.Tag.pointwise in operator.tags and forward and not schema.is_mutable:
                without |= {str(operator)} if find(str(operator)) is None else set()
    assert not without


def test_operators_of_the_table_have_no_rule_by_hand() -> None:
    by_hand = {name for name, *_ in stored() if find(f"aten.{name}").__name__ != "pointwise"}
    assert not by_hand


@pytest.mark.long
def test_zero_stays_zero() -> None:
    """All at once: sums over channels, equal to those of the masked original."""

    def run(m: Any, x: Tensor) -> list[Tensor]:
        return [op(m.a(x)).sum(1) for op in KEEPS_ZERO.values()]

    found = prove(Net(run, a=nn.Conv2d(3, 4, 1)), IMAGES)
    assert [group.mixing for group in found.groups] == [""]


@pytest.mark.parametrize("name", LOSES_ZERO)
def test_a_sum_sees_what_is_not_zero(name: str) -> None:
    found = analysed((summed(LOSES_ZERO[name]), (IMAGES,)))
    assert "not zero when masked" in found.groups[0].mixing


@pytest.mark.long
def test_a_convolution_does_not_see_what_is_not_zero() -> None:
    found = prove(consumed(LOSES_ZERO), IMAGES)
    assert [group.mixing for group in found.groups] == [""]


@pytest.mark.parametrize("name", SINGULAR)
def test_what_is_not_finite_at_zero_mixes(name: str) -> None:
    found = analysed((summed(SINGULAR[name]), (IMAGES,)))
    assert found.groups[0].mixing


def test_what_is_not_finite_at_zero_can_still_go() -> None:
    prove(
        consumed(
            {name: op for name, op in SINGULAR.items() if "acosh" not in name and name != "arccosh"}
        ),
        IMAGES,
    )


def test_broadcast_operands_shrink_with_their_channels() -> None:
    net = Net(
        lambda m, x: [m.b(torch.where(m.c > 0, m.a(x), m.d)), m.b(m.a(x) / (m.c.exp() + m.e))],
        a=nn.Conv2d(3, 4, 1),
        b=nn.Conv2d(4, 2, 1),
        c=torch.ones(4, 1, 1),
        d=torch.ones(4, 1, 1),
        e=torch.ones(2, 1, 1, 4),
    )
    found = prove(net, IMAGES)
    assert together(found, "a.weight:0", "c:0", "d:0", "b.weight:1")


def test_an_operand_without_labels_pins() -> None:
    net = Net(
        lambda m, x: m.b(m.a(x) + torch.ones(4, 1, 1).cumsum(0)),
        a=nn.Conv2d(3, 4, 1),
        b=nn.Conv2d(4, 2, 1),
    )
    assert not prove(net, IMAGES).groups
