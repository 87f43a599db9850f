"""Models that carry masks of torch.nn.utils.prune are models like any other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import planc
from planc.errors import PlancError, VerificationError
from planc.modules.hooks import masked_tensors
from tests.masks.masking import prune_all
from tests.support.proving import Net, prove
from tests.support.small import MODELS, build, contents, randomised, storages

IMAGES = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Every(prune.BasePruningMethod):
    """A method of one's own: every third element goes."""

    PRUNING_TYPE = "unstructured"

    def compute_mask(self, t: torch.Tensor, default_mask: torch.Tensor) -> torch.Tensor:
        mask = default_mask.clone()
        mask.view(-1)[::3] = 0
        return mask


class Threshold(prune.BasePruningMethod):
    """A method whose masks are truth values, as many are written."""

    PRUNING_TYPE = "unstructured"

    def compute_mask(self, t: torch.Tensor, default_mask: torch.Tensor) -> torch.Tensor:
        return t.abs() > 0.1


def chained(m: nn.Sequential) -> None:
    prune.l1_unstructured(m[3], "weight", 0.3)
    prune.ln_structured(m[3], "weight", 0.3, n=2, dim=1)
    prune.random_unstructured(m[3], "weight", 4)
    assert isinstance(next(iter(m[3]._forward_pre_hooks.values())), prune.PruningContainer)


def several(m: nn.Sequential) -> None:
    for name in ("weight", "bias"):
        prune.l1_unstructured(m[0], name, 0.4)
        prune.random_unstructured(m[1], name, 0.4)


METHODS: dict[str, Callable[[Any], Any]] = {
    "identity": lambda m: prune.identity(m[0], "weight"),
    "random unstructured": lambda m: prune.random_unstructured(m[0], "weight", 0.4),
    "l1 unstructured": lambda m: prune.l1_unstructured(m[3], "weight", 9),
    "random structured": lambda m: prune.random_structured(m[0], "weight", 0.4, dim=0),
    "ln structured, inputs": lambda m: prune.ln_structured(m[3], "weight", 0.5, n=1, dim=1),
    "ln structured, linear": lambda m: prune.ln_structured(m[5], "weight", 0.5, n=2, dim=1),
    "global": lambda m: prune.global_unstructured(
        [(m[0], "weight"), (m[3], "weight"), (m[5], "bias")], prune.L1Unstructured, amount=0.5
    ),
    "custom mask": lambda m: prune.custom_from_mask(m[3], "bias", torch.arange(6) % 2),
    "custom method": lambda m: Every.apply(m[0], "weight"),
    "truth values": lambda m: Threshold.apply(m[0], "weight"),
    "chained": chained,
    "several": several,
    "all": prune_all,
}


def net() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 6, 3),
        nn.Flatten(),
        nn.Linear(6 * 16, 5),
    )
    randomised(model)
    return model


def pruned(method: str) -> nn.Sequential:
    model = net()
    METHODS[method](model)
    return model


@pytest.mark.parametrize("method", METHODS)
def test_groups_are_those_of_the_model_without_masks(method: str) -> None:
    plain = planc.analyze(planc.trace(net(), IMAGES))
    found = planc.analyze(planc.trace(pruned(method), IMAGES))
    assert sorted((g.size, g.kind, g.mixing) for g in found.groups) == sorted(
        (g.size, g.kind, g.mixing) for g in plain.groups
    )


@pytest.mark.parametrize("method", METHODS)
def test_a_plan_is_proven_and_undone(method: str) -> None:
    model = pruned(method)
    before = contents(model)
    plan = planc.compile(model, IMAGES, ratio=0.5)
    smaller, removed = planc.apply(plan, model, keep_removed=True)
    planc.verify(plan, model, smaller, IMAGES)
    assert (smaller[0].out_channels, smaller[3].in_channels, smaller[3].out_channels) == (4, 4, 3)
    assert not storages(smaller) & storages(model)
    assert contents(planc.restore(plan, smaller, removed)) == before == contents(model)
    state = planc.apply(plan, model.state_dict())
    assert all(torch.equal(state[name], value) for name, value in smaller.state_dict().items())
    masked = planc.mask(plan, model)
    assert torch.allclose(masked(IMAGES), smaller(IMAGES), atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_the_smaller_model_can_be_trained_and_keeps_its_masks(method: str) -> None:
    model = pruned(method)
    smaller = planc.apply(planc.compile(model, IMAGES, ratio=0.5), model).train()
    hooked = masked_tensors(smaller)
    assert len(hooked) == len(masked_tensors(model)) > 0
    optimiser = torch.optim.SGD(smaller.parameters(), lr=0.1)
    for _ in range(2):
        optimiser.zero_grad()
        smaller(IMAGES).square().sum().backward()
        assert all(parameter.grad is not None for parameter in smaller.parameters())
        optimiser.step()
    smaller(IMAGES)
    for masked in hooked:
        hidden = masked.module.get_buffer(f"{masked.name}_mask") == 0
        assert masked.up_to_date
        assert masked.current is not None
        assert not masked.current[hidden].any()


def test_a_smaller_model_can_be_pruned_again() -> None:
    """prune reads the computed weight, which must have the new shape before any run."""
    model = pruned("l1 unstructured")
    smaller = planc.apply(planc.compile(model, IMAGES, ratio=0.5), model)
    prune.l1_unstructured(smaller[3], "weight", 0.5)
    again = planc.compile(smaller, IMAGES, ratio=0.5)
    planc.verify(again, smaller, planc.apply(again, smaller), IMAGES)
    prune.remove(smaller[3], "weight")
    assert isinstance(smaller[3].weight, nn.Parameter)


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(set(MODELS) - {"vit", "swin"}))
def test_models_with_a_mask_on_every_parameter_are_pruned_as_without(name: str) -> None:
    model, inputs = build(name)
    sizes = [(g.size, g.rows) for g in planc.analyze(planc.trace(model, inputs)).groups]
    analysis = prove(prune_all(model), inputs, target="module", seeds=(0,))
    assert sorted((g.size, g.rows) for g in analysis.groups) == sorted(sizes)


def test_a_weight_that_is_read_without_its_hook_belongs_to_its_mask() -> None:
    """nn.MultiheadAttention reads out_proj.weight and never calls out_proj."""
    model, inputs = build("vit")
    for module in model.modules():
        if isinstance(module, nn.Linear):
            prune.l1_unstructured(module, "weight", 0.3)
    plan = planc.compile(model, inputs, ratio=0.5)
    smaller = planc.apply(plan, model)
    planc.verify(plan, model, smaller, *inputs)
    cut = {m.tensor for g in plan.groups if g.removed for m in g.members}
    assert any(name.endswith("out_proj.weight_orig") for name in cut)
    assert any(name.endswith("out_proj.weight_mask") for name in cut)


def test_an_outdated_weight_that_is_read_without_its_hook_stays_what_it_is() -> None:
    torch.manual_seed(0)
    inner = nn.Linear(4, 6)
    model = Net(lambda m, x: m.b(m.a(x) @ m.inner.weight.T), inner=inner, a=nn.Linear(3, 4),
                b=nn.Linear(6, 2)).eval()  # fmt: skip
    x = torch.randn(2, 3)
    prune.l1_unstructured(inner, "weight", 0.5)
    fresh = planc.analyze(planc.trace(model, x))
    assert {m.tensor for g in fresh.groups for m in g.members} >= {"inner.weight_orig"}
    with torch.no_grad():
        inner.weight_orig.mul_(2)
    expected = model(x)
    plan = planc.compile(model, x, ratio=0.5)
    assert not any(group.removed for group in plan.groups)
    smaller = planc.apply(plan, model)
    planc.verify(plan, model, smaller, x)
    assert torch.equal(smaller(x), expected)


def test_plain_tensors_of_modules_are_constants_of_the_graph() -> None:
    model = Net(lambda m, x: m.b(m.a(x)) * m.scale[0], a=nn.Linear(3, 4), b=nn.Linear(4, 2)).eval()
    model.scale = [torch.tensor([2.0, 3.0])]
    other = Net(lambda m, x: m.b(m.a(x)) * m.kept, a=nn.Linear(3, 4), b=nn.Linear(4, 2)).eval()
    vars(other)["kept"] = torch.tensor([2.0, 3.0])
    for target in (model, other):
        plan = planc.compile(target, torch.randn(2, 3), ratio=0.5, target="graph")
        planc.verify(plan, target, planc.apply(plan, target), torch.randn(2, 3))


def test_scores_are_those_of_the_masked_weights() -> None:
    model = net()
    keep = torch.ones(8, 3, 3, 3)
    keep[[1, 5]] = 0
    with torch.no_grad():
        model[0].weight[[1, 5]] = 100.0
        for tensor in (model[0].bias, model[1].weight, model[1].bias, model[3].weight):
            tensor.fill_(0.1)
    prune.custom_from_mask(model[0], "weight", keep)
    plan = planc.compile(model, IMAGES, ratio=0.25, only=["0.*"])
    assert [group.removed for group in plan.groups if group.size == 8] == [(1, 5)]


def test_masks_that_pick_by_position_pin() -> None:
    """A buffer of truth values that is used as anything but a factor is not followed."""
    model = Net(lambda m, x: m.b(m.a(x)[:, m.pick]), a=nn.Linear(3, 8), b=nn.Linear(4, 2)).eval()
    model.register_buffer("pick", torch.arange(8) % 2 == 0)
    analysis = planc.analyze(planc.trace(model, torch.randn(2, 3)))
    assert not any(m.tensor == "pick" for g in analysis.groups for m in g.members)


def test_what_a_hook_has_lost_is_named() -> None:
    model = pruned("l1 unstructured")
    del model[3].weight_mask
    with pytest.raises(PlancError, match=r"no tensor 3\.weight_mask"):
        planc.trace(model, IMAGES)
    model = pruned("l1 unstructured")
    model[3].weight_mask = torch.ones(2)
    with pytest.raises(PlancError, match=r"3\.weight_mask has shape \(2,\)"):
        planc.compile(model, IMAGES)


def test_an_outdated_weight_of_a_result_is_found() -> None:
    model = pruned("l1 unstructured")
    plan = planc.compile(model, IMAGES, ratio=0.5)
    smaller = planc.apply(plan, model)
    vars(smaller[3])["weight"] = smaller[3].weight.detach() + 1
    with pytest.raises(VerificationError, match=r"3\.weight is not 3\.weight_orig with its mask"):
        planc.verify(plan, model, smaller, IMAGES)
