"""The cost of a plan is what torch's own counter measures, on the original and the smaller one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import planc
from planc.plan.plan import Cost
from tests.support import small
from tests.support.measure import macs
from tests.support.small import MODELS, Inputs, build, randomised, several_call


def measured(model: nn.Module, *inputs: Any) -> Cost:
    parameters = list(model.parameters())  # tied ones once
    return Cost(
        macs(model, *inputs),
        sum(p.numel() for p in parameters),
        sum(p.numel() * p.element_size() for p in parameters),
    )


def check(model: nn.Module, inputs: Inputs, **options: Any) -> None:
    plan = planc.compile(model, inputs, **options)
    smaller = planc.apply(plan, model)
    assert plan.cost_before == measured(model, *inputs)
    assert plan.cost_after == measured(smaller, *inputs)
    assert plan.cost_after.params < plan.cost_before.params


@pytest.mark.long
@pytest.mark.parametrize("target", ["module", "graph"])
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", MODELS)
def test_costs_are_exact_for_uneven_removals(name: str, seed: int, target: Any) -> None:
    model, inputs = build(name, seed=seed)
    for ratio in (0.34, 0.6):
        check(model, inputs, ratio=ratio, criterion="random", seed=seed, target=target)


@pytest.mark.parametrize("kinds", [{"heads": 0.5}, {"heads": 0.5, "head_dim": 0.25}])
@pytest.mark.parametrize("name", ["attention", "vit", "swin"])
def test_costs_are_exact_when_heads_go(name: str, kinds: dict[str, float]) -> None:
    model, inputs = build(name)
    for target in ("module", "graph"):
        check(model, inputs, ratio=0.5, kinds=kinds, criterion="random", target=target)


def test_costs_are_exact_when_convolution_groups_go() -> None:
    model, inputs = build("grouped")
    check(model, inputs, ratio=0.5, kinds={"groups": 0.34}, criterion="random")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_bytes_follow_the_type(dtype: torch.dtype) -> None:
    model, inputs = build("residual", dtype)
    check(model, inputs, ratio=0.5)


class Pointwise(nn.Module):
    def __init__(self, fn: Callable[..., torch.Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.fn = fn

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.fn(self.layers, *inputs)


SINGLE: dict[str, tuple[Callable[[], nn.Module], Inputs]] = {
    "conv1d": (
        lambda: nn.Sequential(nn.Conv1d(3, 6, 3), nn.ReLU(), nn.Conv1d(6, 4, 3, stride=2)),
        small.vectors(2, 3, 9),
    ),
    "conv3d, grouped": (
        lambda: nn.Sequential(
            nn.Conv3d(2, 8, 1), nn.Conv3d(8, 8, 2, groups=2), nn.ReLU(), nn.Conv3d(8, 2, 1)
        ),
        small.vectors(1, 2, 4, 4, 4),
    ),
    "transposed, grouped": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 1), nn.ConvTranspose2d(8, 8, 2, stride=2, groups=2), nn.Conv2d(8, 3, 1)
        ),
        small.images(),
    ),
    "dilated, multiplied depthwise": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 1), nn.Conv2d(4, 8, 3, dilation=2, groups=4), nn.Conv2d(8, 2, 1)
        ),
        small.images(),
    ),
    "einsum": (
        lambda: Pointwise(
            lambda layers, x: layers[2](torch.einsum("btc,bsc->bts", layers[0](x), layers[1](x))),
            nn.Linear(5, 6),
            nn.Linear(5, 6),
            nn.Linear(4, 2),
        ),
        small.vectors(2, 4, 5),
    ),
    "matmul of vectors and batches": (
        lambda: Pointwise(
            lambda layers, x: layers[1](layers[0](x)) @ layers[2].weight.mean(0),
            nn.Linear(5, 8),
            nn.Linear(8, 6),
            nn.Linear(6, 3),
        ),
        small.vectors(2, 4, 5),
    ),
    "attention in one call": (
        lambda: Pointwise(
            lambda layers, x: layers[3](
                functional.scaled_dot_product_attention(layers[0](x), layers[1](x), layers[2](x))
            ),
            nn.Linear(5, 6),
            nn.Linear(5, 6),
            nn.Linear(5, 4),
            nn.Linear(4, 3),
        ),
        small.vectors(2, 1, 4, 5),
    ),
    "bilinear": (
        lambda: Pointwise(
            lambda layers, x: layers[2](layers[1](layers[0](x), layers[0](x))),
            nn.Linear(5, 6),
            nn.Bilinear(6, 6, 4),
            nn.Linear(4, 2),
        ),
        small.vectors(3, 5),
    ),
    "encoder layer": (
        lambda: nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True),
        small.vectors(1, 4, 8),
    ),
}


@pytest.mark.parametrize("name", SINGLE)
def test_each_kind_of_product_is_counted_as_torch_counts_it(name: str) -> None:
    make, inputs = SINGLE[name]
    torch.set_num_threads(1)
    check(randomised(make()), inputs, ratio=0.4, criterion="random")


def test_nested_inputs_and_keywords_are_priced() -> None:
    model = randomised(small.Several())
    args, kwargs = several_call()
    plan = planc.compile(model, args, kwargs, ratio=0.5)
    smaller = planc.apply(plan, model)
    assert plan.cost_before.macs == macs(lambda *a: model(*a, **kwargs), *args)
    assert plan.cost_after.macs == macs(lambda *a: smaller(*a, **kwargs), *args)


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet18", 64),
        ("mobilenet_v3_small", 64),
        ("shufflenet_v2_x0_5", 64),
        ("squeezenet1_1", 64),
        ("efficientnet_b0", 32),
    ],
)
def test_costs_of_torchvision_models_are_exact(name: str, size: int) -> None:
    from torchvision import models

    torch.set_num_threads(1)
    model = models.get_model(name).eval()
    check(model, small.images(1, size), ratio=0.37, criterion="random", seed=3)


def test_the_price_of_every_count_is_that_of_the_plan() -> None:
    model, inputs = build("residual")
    analysis = planc.analyze(planc.trace(model, inputs))
    full = tuple(group.cells for group in analysis.groups)
    assert analysis.cost.price(full) == measured(model, *inputs)
    for ratio in (0.2, 0.5, 0.9):
        plan = planc.compile(model, inputs, ratio=ratio)
        kept = [group.kept // group.rows for group in plan.groups]
        assert analysis.cost.price(kept) == plan.cost_after


@pytest.mark.parametrize("name", ["residual", "attention"])
def test_macs_of_the_modules_add_up_to_those_of_the_plan(name: str) -> None:
    model, inputs = build(name)
    analysis = planc.analyze(planc.trace(model, inputs))
    plan = planc.compile(model, inputs, ratio=0.5)
    found = analysis.macs_by_module([group.kept // group.rows for group in plan.groups])
    assert sum(found.values()) == plan.cost_after.macs
    assert set(found) <= {path for path, _ in model.named_modules()}
