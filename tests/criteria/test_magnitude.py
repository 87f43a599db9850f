"""The magnitude of a unit is the norm of all that leaves with it, each coordinate counted once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import planc
from planc.analysis import Analysis
from planc.criteria import Magnitude
from planc.errors import PolicyError
from tests.criteria import brute
from tests.support import small
from tests.support.small import MODELS, build


def brute_force(analysis: Analysis, model: nn.Module, p: float) -> list[np.ndarray]:
    tensors = brute.parameters(model)
    powers = {name: np.abs(values) ** p for name, values in tensors.items()}
    return brute.whole(analysis, tensors, powers, lambda total: total ** (1 / p))


@pytest.mark.long
@pytest.mark.parametrize("p", [0.5, 1, 2, 3])
@pytest.mark.parametrize("name", MODELS)
def test_scores_are_the_norm_of_the_unit_removed(name: str, p: float) -> None:
    for dtype, exactness in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        model, inputs = build(name, dtype)
        analysis = planc.analyze(planc.trace(model, inputs))
        scores = planc.score(analysis, model, Magnitude(p))
        assert scores.criterion == f"l{p}"
        for found, expected in zip(scores.units, brute_force(analysis, model, p), strict=True):
            np.testing.assert_allclose(found, expected, rtol=exactness)


def test_coordinates_removed_through_two_dimensions_count_once() -> None:
    class Square(nn.Module):
        """A stream whose weights have it in two dimensions, or in all three."""

        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(3, 5)
            self.mix = nn.Linear(5, 5, bias=False)
            self.pair = nn.Bilinear(5, 5, 5)
            self.last = nn.Linear(5, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x)
            x = x + functional.relu(self.mix(x))
            return self.last(x + self.pair(x, x))

    model = small.randomised(Square().double())
    analysis = planc.analyze(planc.trace(model, small.vectors(2, 3)[0].double()))
    assert [group.size for group in analysis.groups] == [5]
    for p in (1, 2):
        (found,) = planc.score(analysis, model, Magnitude(p)).units
        np.testing.assert_allclose(found, brute_force(analysis, model, p)[0], rtol=1e-12)


def test_the_weakest_units_are_removed() -> None:
    model, inputs = build("residual")
    plan = planc.compile(model, inputs, ratio=0.5)
    analysis = planc.analyze(planc.trace(model, inputs))
    for group, scores in zip(plan.groups, brute_force(analysis, model, 2), strict=True):
        weakest = np.argsort(scores)[: len(group.removed)]
        assert group.removed == tuple(sorted(weakest.tolist()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_single(dtype: torch.dtype) -> None:
    model, inputs = build("residual", dtype)
    analysis = planc.analyze(planc.trace(model, inputs))
    found = planc.score(analysis, model, Magnitude(2)).units
    wide = planc.score(
        analysis, {n: t.float() for n, t in model.state_dict().items()}, Magnitude(2)
    )
    for a, b in zip(found, wide.units, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_parameters_without_values_are_refused() -> None:
    with torch.device("meta"):
        model = small.Residual().eval()
    with pytest.raises(PolicyError, match=r"stem\.0\.weight is on the meta device"):
        planc.compile(model, small.images())
    assert planc.compile(model, small.images(), criterion="random").cost_after.params > 0


def test_rows_longer_than_a_dot_product_are_summed_in_parts() -> None:
    model = small.randomised(nn.Sequential(nn.Linear(3, 8195), nn.Linear(8195, 5), nn.Linear(5, 2)))
    analysis = planc.analyze(planc.trace(model, small.vectors(2, 3)))
    assert sorted(group.size for group in analysis.groups) == [5, 8195]
    scores = planc.score(analysis, model, Magnitude(2))
    for found, expected in zip(scores.units, brute_force(analysis, model, 2), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_vectors_of_several_precisions_are_measured_together() -> None:
    model, inputs = build("residual")
    analysis = planc.analyze(planc.trace(model, inputs))
    named = dict(model.named_parameters())
    vectors = [name for name, parameter in named.items() if parameter.dim() == 1]
    mixed = {
        **named,
        vectors[0]: named[vectors[0]].to(torch.bfloat16),
        vectors[1]: named[vectors[1]].double(),
    }
    rounded = {name: parameter.detach().double() for name, parameter in mixed.items()}
    found = planc.score(analysis, mixed, Magnitude(2))
    expected = planc.score(analysis, rounded, Magnitude(2))
    for one, other in zip(found.units, expected.units, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)
