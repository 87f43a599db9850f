"""Fourier transforms pin the dimensions that they are taken along, and leave the others free."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fft, nn

from planc.rules.families import fourier
from tests.rules.coverage import Case, unseen
from tests.support.proving import Net, free, prove, prunable, reasons

ops = torch.ops.aten
IMAGES = torch.randn(2, 4, 4, 6)
Op = Callable[[Tensor, int], Tensor]

CASES: dict[str, Op] = {
    "of a line": lambda y, d: fft.fft(y, dim=d).real + fft.ifft(y, dim=d).real,
    "of a longer line": lambda y, d: fft.fft(y, n=8, dim=d).abs().narrow(d, 0, 4),
    "of real lines": lambda y, d: fft.irfft(fft.rfft(y, dim=d), n=4, dim=d),
    "of even lines": lambda y, d: fft.hfft(fft.ihfft(y, dim=d), n=4, dim=d),
    "of planes": lambda y, d: fft.ifft2(fft.fft2(y, dim=(0, d)), dim=(0, d)).real,
    "of real planes": lambda y, d: fft.irfft2(fft.rfft2(y, dim=(0, d)), s=(2, 4), dim=(0, d)),
    "of even planes": lambda y, d: fft.hfft2(fft.ihfft2(y, dim=(0, d)), s=(2, 4), dim=(0, d)),
    "of all": lambda y, d: fft.ifftn(fft.fftn(y, dim=(0, d)), dim=(0, d)).real,
    "of all that is real": lambda y, d: fft.irfftn(fft.rfftn(y, dim=(0, d)), (2, 4), (0, d)),
    "of all that is even": lambda y, d: fft.hfftn(fft.ihfftn(y, dim=(0, d)), (2, 4), (0, d)),
    "in plain operators": lambda y, d: ops._fft_c2r(
        ops._fft_c2c(ops._fft_r2c(y, [d], 0, True), [0], 0, True), [d], 2, 4
    ),
    "shifted": lambda y, d: fft.ifftshift(fft.fftshift(y, dim=d).sin(), dim=(0, d)),
}


def transformed(op: Op, dim: int) -> Net:
    """A transform over dimension ``dim`` of which the last is that of features."""
    return Net(lambda m, x: m.b(op(m.a(x), dim)), a=nn.Linear(6, 4), b=nn.Linear(4, 2))


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_other_dimensions_stay_free(name: str) -> None:
    found = prove(transformed(CASES[name], 2), IMAGES, seeds=(0,))
    assert prunable(found, "module") == {"a.weight:0"}


@pytest.mark.parametrize("name", CASES)
def test_what_is_transformed_is_pinned(name: str) -> None:
    found = prove(transformed(CASES[name], 3), IMAGES, seeds=(0,))
    assert "Fourier transform" in reasons(found, "a.weight", 0)


def test_a_size_names_the_last_dimensions() -> None:
    net = Net(lambda m, x: ops.fft_fftn(m.w * x.sum(), [4]).real, w=torch.ones(3, 4))
    found = prove(Net(lambda m, x: m.n(x).sum(0), n=net), IMAGES)
    assert free(found, "n.w", 0)
    assert "Fourier transform" in reasons(found, "n.w", 1)


def test_every_operator_is_exercised() -> None:
    cases: list[Case] = [(transformed(op, 2).double(), (IMAGES.double(),)) for op in CASES.values()]
    assert not unseen(fourier, cases)
