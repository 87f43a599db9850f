"""Criteria of activations equal their definitions, from values that hooks wrote down."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import planc
from planc.criteria import ActivationVariance, MeanActivation, NonzeroActivation, Reduced, Wanda
from planc.ir.groups import Group
from tests.criteria import brute
from tests.criteria.calibrated import Batch, case
from tests.support.small import MODELS

READS = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


def read(model: nn.Module, batches: list[Batch]) -> dict[str, np.ndarray]:
    """All that each layer's weight reads: ``[values, channels]``, in one piece."""
    seen: dict[str, list[np.ndarray]] = {}
    handles = []
    for path, module in model.named_modules():
        if isinstance(module, READS):
            axis = 1 if not isinstance(module, nn.Linear) else -1

            def see(
                module: nn.Module, args: tuple[torch.Tensor], path: str = path, axis: int = axis
            ) -> None:
                x = args[0].detach().numpy()
                channels = [np.take(x, c, axis).reshape(-1) for c in range(x.shape[axis])]
                seen.setdefault(f"{path}.weight", []).append(np.stack(channels, 1))

            handles.append(module.register_forward_pre_hook(see))
    with torch.no_grad():
        for batch in batches:
            model(*batch)
    for handle in handles:
        handle.remove()
    return {name: np.concatenate(parts) for name, parts in seen.items()}


def into(model: nn.Module) -> dict[str, int]:
    """The dimension of each weight that counts what it reads."""
    return {
        f"{path}.weight": 0 if isinstance(m, nn.ConvTranspose2d) else 1
        for path, m in model.named_modules()
        if isinstance(m, READS)
    }


def groups_of(model: nn.Module, name: str) -> int:
    return getattr(model.get_submodule(name.rpartition(".")[0]), "groups", 1)


STATISTICS = {
    "mean": (MeanActivation(), lambda x: np.abs(x).mean()),
    "nonzero": (NonzeroActivation(), lambda x: (x != 0).mean()),
    "variance": (ActivationVariance(), lambda x: ((x - x.mean()) ** 2).mean()),
}
HOOKED = sorted(set(MODELS) - {"swin", "vit", "tied"})  # whose weights belong to modules that run


@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize("name", HOOKED)
def test_statistics_are_taken_of_the_consumers_input_channels(name: str, statistic: str) -> None:
    criterion, of = STATISTICS[statistic]
    model, batches = case(name)
    analysis = planc.analyze(planc.trace(model, batches[0]))
    tensors, seen, dims = brute.parameters(model), read(model, batches), into(model)

    def value(tensor: str, dim: int, mask: np.ndarray, group: Group) -> float | None:
        if dims.get(tensor) != dim:
            return None
        channels = []
        groups = groups_of(model, tensor) if dim == 1 else 1
        for where in np.argwhere(mask):
            block = where[0] // (mask.shape[0] // groups) if groups > 1 else 0
            channels.append(block * mask.shape[dim] + where[dim])
        return float(np.mean([of(seen[tensor][:, c]) for c in sorted(set(channels))]))

    statistics = planc.calibrate(model, batches, criterion)
    for reduction, reduce in (("mean", np.mean), ("max", max)):
        expected = brute.by_member(analysis, tensors, value, reduce)
        found = Reduced(criterion, reduction)(analysis, dict(model.named_parameters()), statistics)
        assert any(own is not None for own in found)
        for own, wanted in zip(found, expected, strict=True):
            assert (own is None) == (wanted is None)
            if own is not None:
                np.testing.assert_allclose(own, wanted, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("name", HOOKED)
def test_wanda_weighs_each_weight_by_the_norm_of_its_input(name: str) -> None:
    model, batches = case(name)
    analysis = planc.analyze(planc.trace(model, batches[0]))
    tensors, seen, dims = brute.parameters(model), read(model, batches), into(model)
    elements = {}
    for tensor, x in seen.items():
        weight, norms = np.abs(tensors[tensor]), np.sqrt((x**2).sum(0))
        weighed = np.zeros_like(weight)
        groups = groups_of(model, tensor) if dims[tensor] == 1 else 1
        for where in np.ndindex(*weight.shape):
            block = where[0] // (weight.shape[0] // groups) if groups > 1 else 0
            weighed[where] = (
                weight[where] * norms[block * weight.shape[dims[tensor]] + where[dims[tensor]]]
            )
        elements[tensor] = weighed
    statistics = planc.calibrate(model, batches, "wanda")
    expected = brute.whole(analysis, tensors, elements, float)
    found = planc.score(analysis, model, Wanda(), statistics).units
    for own, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(own, wanted, rtol=1e-9)


@pytest.mark.parametrize("name", ["vit", "swin", "tied"])
def test_weights_that_no_module_runs_are_seen_as_well(name: str) -> None:
    model, batches = case(name)
    analysis = planc.analyze(planc.trace(model, batches[0]))
    statistics = planc.calibrate(model, batches, "wanda")
    matrices = {
        tensor.name
        for tensor in analysis.graph.tensors
        if tensor.kind == "parameter"
        and tensor.name.endswith(("weight",))
        and len(tensor.shape) > 1
    }
    seen = {key.partition("/")[2] for key in statistics.tensors}
    assert matrices <= seen
    scores = planc.score(analysis, model, Wanda(), statistics)
    assert all((own > 0).all() for own in scores.units)
