"""Criteria of filters equal their definitions, unit by unit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import planc
from planc.criteria import BatchNormScale, GeometricMedian, Lamp, Magnitude, Reduced
from planc.criteria.filters import _pairwise
from planc.ir.groups import Group
from tests.criteria import brute
from tests.support.small import MODELS, build


@pytest.mark.parametrize("name", MODELS)
def test_batch_norm_scale_sums_the_scales_of_a_unit(name: str) -> None:
    model, inputs = build(name)
    analysis = planc.analyze(planc.trace(model, inputs))
    norms = {path for path, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    tensors = {
        tensor: values
        for tensor, values in brute.parameters(model).items()
        if tensor.rpartition(".")[0] in norms and tensor.endswith("weight")
    }
    expected = brute.by_member(
        analysis,
        tensors,
        lambda name, dim, mask, group: float(np.abs(tensors[name][mask]).sum()),
        sum,
    )
    found = BatchNormScale()(analysis, dict(model.named_parameters()))
    for own, wanted in zip(found, expected, strict=True):
        assert (own is None) == (wanted is None)
        if own is not None:
            np.testing.assert_allclose(own, wanted, rtol=1e-6)


OUTPUT = {nn.Linear: 0, nn.Conv2d: 0, nn.ConvTranspose2d: 1, nn.Embedding: 1}


@pytest.mark.parametrize("name", sorted(set(MODELS) - {"swin", "vit"}))
def test_geometric_median_sums_the_distances_to_the_other_filters(name: str) -> None:
    model, inputs = build(name, torch.float64)
    analysis = planc.analyze(planc.trace(model, inputs))
    tensors = brute.parameters(model)
    out = {
        f"{path}.weight": OUTPUT[type(m)] for path, m in model.named_modules() if type(m) in OUTPUT
    }
    if name == "tied":
        assert "decode.weight" not in tensors  # it is the embedding, whose output is dimension 1

    def distances(tensor: str, dim: int, mask: np.ndarray, group: Group) -> float | None:
        if out.get(tensor) != dim:
            return None
        own = tensors[tensor][mask]
        total = 0.0
        for other in range(group.size):
            for theirs, dimension, there in brute.member_masks(group, other, tensors):
                if (theirs, dimension) == (tensor, dim):
                    total += float(np.sqrt(((own - tensors[tensor][there]) ** 2).sum()))
        return total

    for reduction, reduce in (("mean", np.mean), ("max", max)):
        expected = brute.by_member(analysis, tensors, distances, reduce)
        found = Reduced(GeometricMedian(), reduction)(analysis, dict(model.named_parameters()))
        for own, wanted in zip(found, expected, strict=True):
            assert (own is None) == (wanted is None)
            if own is not None:
                np.testing.assert_allclose(own, wanted, rtol=1e-9)


def test_equal_filters_are_at_no_distance() -> None:
    filters = torch.full((3, 5), 1.7, dtype=torch.float64) * torch.tensor([[1.0], [1.0], [2.0]])
    distances = _pairwise(filters)
    assert distances[0, 1] == distances[1, 0] == 0
    assert distances.diagonal().eq(0).all()


@pytest.mark.parametrize("name", MODELS)
def test_lamp_is_a_units_share_of_the_scores_at_least_as_large(name: str) -> None:
    model, inputs = build(name)
    analysis = planc.analyze(planc.trace(model, inputs))
    norms = planc.score(analysis, model, Magnitude(2)).units
    for own, norm in zip(planc.score(analysis, model, Lamp()).units, norms, strict=True):
        for u in range(len(norm)):
            larger = sum(norm[v] ** 2 for v in range(len(norm)) if (norm[v], v) >= (norm[u], u))
            assert own[u] == pytest.approx(norm[u] ** 2 / larger, rel=1e-9)
        assert own[np.argmax(norm)] == pytest.approx(1) or (norm == norm.max()).sum() > 1


def test_lamp_accepts_any_other_criterion() -> None:
    model, inputs = build("residual")
    analysis = planc.analyze(planc.trace(model, inputs))
    squares = [own**2 for own in planc.score(analysis, model, Magnitude(1)).units]
    found = planc.score(analysis, model, Lamp(Magnitude(1)))
    assert found.criterion == "lamp of l1"
    for own, square in zip(found.units, squares, strict=True):
        for u in range(len(square)):
            larger = sum(other for other in square if other >= square[u])
            assert own[u] == pytest.approx(square[u] / larger, rel=1e-9)


class Scaled(nn.Module):
    """A convolution whose channels are scaled by a parameter, directly or through views."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)
        self.scale = nn.Parameter(torch.tensor([1.0, 2.0, 30.0, 4.0]).reshape(shape))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(x) * self.scale.reshape(4, 1, 1))


@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 1, 1), (1, 4, 1, 1)])
def test_a_scale_is_no_filter(shape: tuple[int, ...]) -> None:
    model = Scaled(shape).eval()
    analysis = planc.analyze(planc.trace(model, torch.randn(1, 3, 4, 4)))
    weights = dict(model.named_parameters())
    filters = model.first.weight.detach().flatten(1)
    for found in GeometricMedian()(analysis, weights):
        if found is not None:
            np.testing.assert_allclose(found, torch.cdist(filters, filters).sum(1), rtol=1e-5)
