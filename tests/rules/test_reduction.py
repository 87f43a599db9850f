"""Reductions: a sum does not notice coordinates that are zero; a mean and a maximum do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import planc
from planc.rules.families import reduction
from tests.rules.coverage import Case, analysed, unseen
from tests.support.proving import Net, prove, prunable, reasons

ops = torch.ops.aten
IMAGES = torch.randn(2, 3, 4, 4)
Op = Callable[[Tensor, int], Any]

SUMS: dict[str, Op] = {
    "sum": lambda y, d: y.sum(d),
    "nansum": lambda y, d: y.nansum(d, keepdim=True),
    "vector_norm": lambda y, d: torch.linalg.vector_norm(y, dim=d),
    "one norm": lambda y, d: y.norm(1, d),
    "norm": lambda y, d: ops.norm(y, 2, [d], True),
    "linalg_norm": lambda y, d: torch.linalg.norm(y, dim=d) + torch.linalg.norm(y, 3, d),
    "norm of matrices": lambda y, d: (
        torch.linalg.norm(y, dim=(d, 3)) + torch.linalg.matrix_norm(y, dim=(d, 3))
    ),
    "frobenius_norm": lambda y, d: ops.frobenius_norm(y, [d, 3]),
    "all": lambda y, d: y.sum() + y.norm(),
}
MIXING: dict[str, Op] = {
    "mean": lambda y, d: y.mean(d) + y.nanmean(d),
    "mean of all": lambda y, d: y.mean(),
    "zero norm": lambda y, d: y.norm(0, d),
    "amax": lambda y, d: y.amax(d) - y.amin((d, 3))[..., None],
    "maximum": lambda y, d: y.max() - y.min() + y.median(),
    "logsumexp": lambda y, d: y.logsumexp(d) + torch.special.logsumexp(y, d),
    "any": lambda y, d: (y > 0).any(d).to(y.dtype),
    "every": lambda y, d: (y > 0).all(d).to(y.dtype),
    "prod": lambda y, d: y.prod(d),
    "var": lambda y, d: y.var(d) + y.std(d, keepdim=False),
    "variance of all": lambda y, d: y.var() + y.std(False),
    "var_mean": lambda y, d: torch.var_mean(y, d)[0] + torch.std_mean(y, d)[1],
}
PINNING: dict[str, Op] = {
    "spectral norm": lambda y, d: torch.linalg.norm(y, 2, (d, 3)),
    "nuclear norm": lambda y, d: torch.linalg.matrix_norm(y, "nuc", (d, 3), keepdim=True),
    "max": lambda y, d: y.max(d, keepdim=True)[1] - y.min(d, keepdim=True)[1],
    "median": lambda y, d: y.median(d)[1] + y.nanmedian(d)[1],
    "mode": lambda y, d: y.mode(d)[1],
    "kthvalue": lambda y, d: y.kthvalue(2, d)[0],
    "cummax": lambda y, d: y.cummax(d)[0] - y.cummin(d)[0],
    "argmax": lambda y, d: y.argmax(d) + y.argmin(d),
    "argmax of all": lambda y, d: y.argmax(),
    "diff": lambda y, d: y.diff(dim=d),
    "diff with more": lambda y, d: y.diff(2, d, prepend=y, append=y.cos()),
    "cumsum": lambda y, d: y.cumsum(d) + y.sigmoid().cumprod(d) + y.logcumsumexp(d),
}


UNREAD: dict[str, Op] = {
    "max": lambda y, d: y.max(d, keepdim=True)[0],
    "min": lambda y, d: y.min(d).values,
    "max of channels last": lambda y, d: y.movedim(d, -1).max(-1)[0],
    "median": lambda y, d: y.median(d)[0] + y.nanmedian(d)[0],
    "aminmax": lambda y, d: sum(y.aminmax(dim=d)),
    "aminmax of all": lambda y, d: sum(y.aminmax()),
}


def reduced(op: Op, dim: int) -> Net:
    """An operator on channels (1) or on positions (2) after a convolution."""
    return Net(lambda m, x: op(m.a(x), dim), a=nn.Conv2d(3, 4, 1))


@pytest.mark.parametrize("name", SUMS)
def test_sums_over_channels_do_not_mix(name: str) -> None:
    found = prove(reduced(SUMS[name], 1), IMAGES, seeds=(0,))
    assert [group.mixing for group in found.groups] == [""]


@pytest.mark.long
@pytest.mark.parametrize("name", MIXING)
def test_other_reductions_over_channels_mix(name: str) -> None:
    found = prove(reduced(MIXING[name], 1), IMAGES, seeds=(0,))
    assert found.groups[0].mixing


@pytest.mark.parametrize("name", PINNING)
def test_what_counts_positions_pins_them(name: str) -> None:
    found = prove(reduced(PINNING[name], 1), IMAGES)
    words = ("positions", "running sum", "matrices", "counted")
    assert any(word in reasons(found, "a.weight", 0) for word in words)


@pytest.mark.parametrize("name", UNREAD)
def test_an_extreme_with_positions_that_nobody_reads_mixes(name: str) -> None:
    found = prove(reduced(UNREAD[name], 1), IMAGES, seeds=(0,))
    assert prunable(found, "module") == prunable(found, "graph") == {"a.weight:0"}
    assert found.groups[0].mixing


@pytest.mark.long
@pytest.mark.parametrize("name", [*SUMS, *MIXING, *PINNING])
def test_reductions_over_positions_leave_channels_apart(name: str) -> None:
    op = {**SUMS, **MIXING, **PINNING}[name]
    if name in ("all", "mean of all", "maximum", "variance of all", "argmax of all"):
        pytest.skip("over everything")

    def run(m: Any, x: Tensor) -> Tensor:
        y = op(m.a(x), 2).to(x.dtype)
        return m.b(y.reshape(2, y.shape[1], -1, 1))

    found = prove(Net(run, a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(4, 2, 1)), IMAGES, seeds=(0,))
    assert [group.mixing for group in found.groups] == [""]


def test_a_sum_of_exponentials_of_nothing_is_not_nothing() -> None:
    for op in (lambda y: y.logsumexp(2), lambda y: y.logcumsumexp(2)):
        net = Net(lambda m, x, op=op: op(m.a(x)).sum(1), a=nn.Conv2d(3, 4, 1))
        assert "not zero" in prove(net, IMAGES).groups[0].mixing


def test_a_variance_needs_two_values() -> None:
    net = Net(lambda m, x: m.a(x).mean((2, 3)).var(1), a=nn.Conv2d(3, 4, 1))
    found = prove(net, IMAGES)
    assert prunable(found, "module") == {"a.weight:0"}
    assert len(planc.compile(net, IMAGES.double(), ratio=0.99).groups[0].removed) == 2


def test_the_greater_of_two_does_not_mix() -> None:
    net = Net(
        lambda m, x: (torch.max(m.a(x), m.c) + torch.min(m.a(x), m.c)).sum(1),
        a=nn.Conv2d(3, 4, 1),
        c=torch.ones(4, 1, 1),
    )
    assert [group.mixing for group in prove(net, IMAGES).groups] == [""]


def test_every_operator_is_exercised() -> None:
    tables = {**SUMS, **MIXING, **PINNING, **UNREAD}
    cases: list[Case] = [(reduced(op, 1), (IMAGES,)) for op in tables.values()]
    cases.append((Net(lambda m, x: torch.max(x, torch.min(x, x))), (IMAGES,)))
    assert not unseen(reduction, cases)
    assert not any(analysed(case).unknown for case in cases)
