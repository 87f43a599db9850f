"""Criteria of single elements by name: the summands of the criteria of units."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import planc
from planc import masks
from planc.criteria import Magnitude
from planc.errors import PolicyError

BATCHES = [torch.randn(5, 8, generator=torch.Generator().manual_seed(i)) for i in range(3)]


class Projection(nn.Module):
    """A weight of shape [in, out]."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight


def lowest(weight: torch.Tensor, into: int, kept: int) -> np.ndarray:
    """The elements of the lowest |w| ||x||, as many as are not kept."""
    norm = torch.cat(BATCHES).square().sum(0).sqrt()
    scores = weight.detach().abs() * norm.view([-1 if d == into else 1 for d in range(2)])
    gone = torch.zeros(scores.numel(), dtype=torch.bool)
    gone[scores.flatten().argsort()[: scores.numel() - kept]] = True
    return gone.view(scores.shape).numpy()


@pytest.mark.parametrize(
    ("model", "name", "into"),
    [
        (nn.Linear(8, 8), "weight", 1),
        (nn.Sequential(nn.Linear(8, 6), nn.ReLU()), "0.weight", 1),
        (nn.Sequential(Projection(12)), "0.weight", 0),
    ],
)
def test_wanda_is_the_product_of_weight_and_input_norm(
    model: nn.Module, name: str, into: int
) -> None:
    statistics = planc.calibrate(model, BATCHES, "wanda")
    plan = masks.select(model, masks.PerTensor(0.5), "wanda", statistics=statistics)
    (mask,) = plan.masks
    weight = model.get_parameter(name)
    bits = np.unpackbits(np.frombuffer(mask.removed, np.uint8), bitorder="little")
    found = bits[: weight.numel()].astype(bool).reshape(weight.shape)
    np.testing.assert_array_equal(found, lowest(weight, into, weight.numel() // 2))
    assert plan.provenance[0].criterion == "wanda"


def test_a_square_weight_of_unknown_layout_is_refused() -> None:
    model = Projection(8)
    statistics = planc.calibrate(model, BATCHES, "wanda")
    with pytest.raises(PolicyError, match="weight is square, and Projection does not say"):
        masks.select(model, masks.PerTensor(0.5), "wanda", statistics=statistics)


def test_gradients_of_a_loss_score_elements() -> None:
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))
    statistics = planc.calibrate(
        model, BATCHES, ["taylor", "obd"], lambda m, batch: m(batch).square().mean()
    )
    plans: list[Any] = [
        masks.select(model, masks.GlobalElements(0.3), name, statistics=statistics).masks
        for name in ("taylor", "obd")
    ]
    assert plans[0] == plans[1]  # h w^2 / 2 orders as w^2 g^2
    assert plans[0] != masks.select(model, masks.GlobalElements(0.3)).masks


def test_an_additive_criterion_of_units_scores_elements() -> None:
    model = nn.Linear(8, 8)
    by_norm = masks.select(model, masks.NofM(2, 4), Magnitude(2))
    assert by_norm.masks == masks.select(model, masks.NofM(2, 4), "magnitude").masks


def test_missing_statistics_and_other_names_are_answered() -> None:
    model = nn.Linear(8, 8)
    with pytest.raises(PolicyError, match=r"wanda needs statistics of inputs, there are none"):
        masks.select(model, masks.NofM(2, 4), criterion="wanda")
    with pytest.raises(PolicyError, match=r"'fpgm' measures units.*random, taylor, obd, wanda"):
        masks.select(model, masks.NofM(2, 4), criterion="fpgm")
    with pytest.raises(PolicyError, match=r"'wnda' is unknown.*did you mean wanda"):
        masks.select(model, masks.NofM(2, 4), criterion="wnda")


def test_parameters_that_nothing_reads_stay_whole_unless_named() -> None:
    model = nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 4))
    tokens = [torch.arange(5)]
    statistics = planc.calibrate(model, tokens, "wanda")
    plan = masks.select(model, masks.NofM(2, 4), "wanda", statistics=statistics)
    assert [mask.tensor for mask in plan.masks] == ["1.weight"]
    with pytest.raises(PolicyError, match=r"wanda says nothing of 0\.weight"):
        masks.select(model, masks.NofM(2, 4), "wanda", statistics=statistics, only=["0"])
