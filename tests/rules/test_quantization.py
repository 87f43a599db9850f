"""Quantisation: scales and codes shrink with the channels that they belong to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao import quantization as ao
from torch.nn import functional

import planc
from tests.support.proving import prove, prunable, reasons, together

IMAGES = torch.randn(2, 3, 6, 6)
ops = torch.ops.aten
SCALES, POINTS = torch.rand(4) + 0.5, torch.tensor([0, 3, -2, 1], dtype=torch.int32)


class Fake(nn.Module):
    """A convolution between two others, its weight or its result fake-quantised."""

    def __init__(self, run: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.run = run
        self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)
        self.register_buffer("scales", SCALES.clone())
        self.register_buffer("points", POINTS.clone())
        self.register_buffer("scale", torch.tensor([0.1]))
        self.register_buffer("point", torch.tensor([3], dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.run(self, self.a(x)))


FAKES: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "per tensor": lambda m, y: torch.fake_quantize_per_tensor_affine(y, 0.1, 3, -128, 127),
    "per tensor, by buffers": lambda m, y: torch.fake_quantize_per_tensor_affine(
        y, m.scale, m.point, -128, 127
    ),
    "with its mask": lambda m, y: ops.fake_quantize_per_tensor_affine_cachemask(
        y, 0.1, 3, -128, 127
    )[0],
    "per channel": lambda m, y: torch.fake_quantize_per_channel_affine(
        y, m.scales, m.points, 1, -128, 127
    ),
    "per channel, along the last dimension": lambda m, y: torch.fake_quantize_per_channel_affine(
        y.movedim(1, -1), m.scales, m.points, 3, -128, 127
    ).movedim(-1, 1),
    "learned, per tensor": lambda m, y: ops._fake_quantize_learnable_per_tensor_affine(
        y, m.scale, m.point.to(y.dtype), -128, 127
    ),
    "learned, per channel": lambda m, y: ops._fake_quantize_learnable_per_channel_affine(
        y, m.scales, m.points.to(y.dtype), 1, -128, 127
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("name", FAKES)
def test_fake_quantisation_passes_channels_through(name: str) -> None:
    found = prove(Fake(FAKES[name]), IMAGES, double=False, seeds=(0,), tolerance=1e-5)
    assert prunable(found, "module") == prunable(found, "graph") == {"a.weight:0"}
    assert together(found, "a.weight:0", "b.weight:1")
    per_channel = "per channel" in name
    assert together(found, "a.weight:0", "scales:0", "points:0") == per_channel
    assert not found.groups[0].mixing


def quantised_net() -> nn.Module:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 4),
    )
    return nn.Sequential(ao.QuantStub(), net, ao.DeQuantStub())


def config(kind: str) -> Any:
    if kind == "default":
        return ao.get_default_qat_qconfig("fbgemm")
    weight = (
        ao.default_weight_fake_quant
        if kind == "tensor"
        else ao.default_per_channel_weight_fake_quant
    )
    return ao.QConfig(activation=ao.default_fake_quant, weight=weight)


@pytest.mark.long
@pytest.mark.parametrize("observed", [False, True])
@pytest.mark.parametrize("kind", ["tensor", "channel", "default"])
@pytest.mark.filterwarnings("ignore")
def test_models_in_quantisation_aware_training_prune(kind: str, observed: bool) -> None:
    torch.manual_seed(0)
    model = quantised_net().train()
    model.qconfig = config(kind)
    model = ao.prepare_qat(model)
    for _ in range(2):
        model(torch.randn(2, 3, 6, 6))
    model.eval()
    if not observed:
        model.apply(ao.disable_observer)
    plan = planc.compile(model, IMAGES, ratio=0.5)
    assert [(group.size, len(group.removed)) for group in plan.groups] == [(8, 4), (12, 6)]
    smaller = planc.apply(plan, model)
    planc.verify(plan, model, smaller, IMAGES)
    assert smaller(IMAGES).shape == (2, 4)


class Codes(nn.Module):
    """A linear layer with a weight of 8 bits and a scale for each row."""

    def __init__(self, wide: int, out: int, form: str) -> None:
        super().__init__()
        self.form = form
        weight = torch.randn(out, wide)
        scales = weight.abs().amax(1) / 127
        self.register_buffer("weight", (weight / scales[:, None]).round().to(torch.int8))
        self.register_buffer("scales", scales)
        self.register_buffer("points", torch.randint(-3, 3, (out,), dtype=torch.int8))
        self.bias = nn.Parameter(torch.randn(out))

    def forward(self, x: Tensor) -> Tensor:
        codes = self.weight.to(x.dtype)
        if self.form == "scaled afterwards":
            return functional.linear(x, codes) * self.scales + self.bias
        if self.form == "scaled before":
            return functional.linear(x, codes * self.scales[:, None], self.bias)
        if self.form == "promoted":
            return functional.linear(x, self.weight * self.scales[:, None], self.bias)
        shifted = codes - self.points[:, None]
        return functional.linear(x, shifted * self.scales[:, None], self.bias)


@pytest.mark.long
@pytest.mark.parametrize("form", ["scaled afterwards", "scaled before", "promoted", "shifted"])
def test_weights_of_8_bits_shrink_with_their_scales(form: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Codes(6, 8, form), nn.ReLU(), Codes(8, 4, form))
    found = prove(model, torch.randn(3, 6))
    assert together(found, "0.weight:0", "0.scales:0", "0.bias:0", "2.weight:1")
    assert prunable(found, "module") == {"0.bias:0"}
    smaller = planc.apply(planc.compile(model, torch.randn(3, 6).double()), model)
    assert smaller[0].weight.dtype == torch.int8


def test_packed_weights_of_8_bits_shrink_with_their_scales() -> None:
    class Packed(Codes):
        def forward(self, x: Tensor) -> Tensor:
            return ops._weight_int8pack_mm(x, self.weight, self.scales) + self.bias

    torch.manual_seed(0)
    model = nn.Sequential(Packed(32, 64, ""), nn.ReLU(), Packed(64, 32, "")).to(torch.bfloat16)
    x = torch.randn(3, 32, dtype=torch.bfloat16)
    plan = planc.compile(model, x)
    assert [(g.size, len(g.removed)) for g in plan.groups] == [(64, 32)]
    planc.verify(plan, model, planc.apply(plan, model), x)


# -- integer tensors as numbers --------------------------------------------------------------------


class Masked(nn.Module):
    def __init__(self, run: Callable[[Tensor, Tensor], Tensor], mask: Tensor) -> None:
        super().__init__()
        self.run = run
        self.a, self.b = nn.Linear(6, 4), nn.Linear(4, 2)
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.run(self.a(x), self.mask))


BOOL, BYTES = torch.tensor([True, False, True, True]), torch.tensor([1, 0, 3, 1], dtype=torch.uint8)
FACTORS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Tensor]] = {
    "a boolean factor": (lambda y, m: y * m, BOOL),
    "bytes": (lambda y, m: y * m, BYTES),
    "long numbers": (lambda y, m: y + m[None], BYTES.long()),
    "the other ones": (lambda y, m: y * (~m).to(y.dtype), BOOL),
    "where": (lambda y, m: torch.where(m, y, y.tanh()), BOOL),
    "masked_fill": (lambda y, m: y.masked_fill(m, 0.0), BOOL),
    "masked_fill with ones": (lambda y, m: y.masked_fill(m, 1.0), BOOL),
    "masked_fill in place": (lambda y, m: y.clone().masked_fill_(m[None], 0.0), BOOL),
    "compared": (lambda y, m: y * (m > 0).float() + y * (m == 3), BYTES),
    "several": (lambda y, m: torch.where(m & ~m.flip(0) | m, y, -y), BOOL),
}
POSITIONS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Tensor]] = {
    "an index": (lambda y, m: y[..., m], torch.tensor([1, 1, 2, 3])),
    "an index computed": (lambda y, m: y[..., m + 1], torch.tensor([1, 1, 2, 0])),
    "a mask that picks": (lambda y, m: y[..., m].sum(-1, keepdim=True) + y, BOOL),
    "a factor that is an index too": (lambda y, m: y[..., m.long()] * m, BYTES % 4),
}


@pytest.mark.long
@pytest.mark.parametrize("name", FACTORS)
def test_masks_and_codes_shrink_with_their_factors(name: str) -> None:
    found = prove(Masked(*FACTORS[name]), torch.randn(2, 3, 6))
    assert (
        prunable(found, "module")
        == prunable(found, "graph")
        == {group.name for group in found.groups}
    )
    assert together(found, "a.weight:0", "mask:0", "b.weight:1")


@pytest.mark.parametrize("name", POSITIONS)
def test_positions_do_not_shrink(name: str) -> None:
    found = prove(Masked(*POSITIONS[name]), torch.randn(2, 3, 6))
    assert reasons(found, "a.weight", 0)
    assert not any(m.tensor == "mask" for group in found.groups for m in group.members)
