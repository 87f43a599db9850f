"""Baking is prune.remove for the whole model, as a pure function; attaching is its inverse."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune

import planc
from planc.errors import PlancError, StalePlan
from planc.masks import NofM, PerTensor, apply, attach, read, select
from planc.modules.hooks import masked_tensors
from tests.masks.drawn import settings
from tests.masks.masking import prune_all
from tests.modules.test_hooks import IMAGES, METHODS, net, pruned
from tests.support.small import MODELS, build, contents, images, storages


def removed_by_torch(model: nn.Module) -> nn.Module:
    """``model`` after prune.remove of every hook, in place."""
    for masked in masked_tensors(model):
        prune.remove(masked.module, masked.name)
    return model


@pytest.mark.parametrize("method", METHODS)
def test_baking_gives_what_remove_gives_and_leaves_the_model(method: str) -> None:
    model = pruned(method)
    before, expected = contents(model), model(IMAGES)
    baked = planc.bake(model)
    assert contents(model) == before
    assert not storages(baked) & storages(model)
    assert torch.equal(baked(IMAGES), expected)
    assert not masked_tensors(baked)
    twin = removed_by_torch(pruned(method))
    assert contents(baked) == contents(twin)
    assert list(baked.state_dict()) == list(twin.state_dict())
    assert [n for n, _ in baked.named_parameters()] == [n for n, _ in twin.named_parameters()]
    copy.deepcopy(baked)  # which torch refuses while a weight is computed
    baked(IMAGES).sum().backward()
    assert all(parameter.grad is not None for parameter in baked.parameters())


def test_baking_what_has_no_masks_copies_it() -> None:
    model = net()
    assert contents(planc.bake(model)) == contents(model)
    baked = planc.bake(pruned("all"))
    assert contents(planc.bake(baked)) == contents(baked)
    with pytest.raises(PlancError, match=r"expected an nn\.Module, got dict"):
        planc.bake({})  # type: ignore[type-var]


@pytest.mark.parametrize("method", ["chained", "all"])
def test_plans_and_baking_exchange(method: str) -> None:
    """Baking what a plan leaves is the same as removing its units from the baked model."""
    model = pruned(method)
    plan = planc.compile(model, IMAGES, ratio=0.5)
    baked = planc.bake(planc.apply(plan, model))
    again = planc.compile(planc.bake(model), IMAGES, ratio=0.5)
    units = [sorted(group.removed for group in made.groups) for made in (plan, again)]
    assert units[0] == units[1]
    assert contents(baked) == contents(planc.apply(again, planc.bake(model)))


def test_other_hooks_marks_and_frozen_weights_stay() -> None:
    model = pruned("l1 unstructured")
    calls: list[str] = []
    model[3].register_forward_pre_hook(lambda module, args: calls.append("seen"))
    model[3].weight_orig.requires_grad_(False)
    model[3].weight_orig._no_weight_decay = True
    baked = planc.bake(model)
    baked(IMAGES)
    assert calls == ["seen"]
    assert not baked[3].weight.requires_grad
    assert baked[3].weight._no_weight_decay


def test_tied_weights_stay_tied_if_their_masks_agree() -> None:
    def tied(*masked: str) -> nn.Module:
        model = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)})
        model["b"].weight = model["a"].weight
        for name in masked:
            prune.l1_unstructured(model[name], "weight", 0.5)
        return model

    both = planc.bake(tied("a", "b"))
    assert both["a"].weight is both["b"].weight
    one = tied("a")
    x = torch.randn(2, 4)
    expected = one["b"](x)
    baked = planc.bake(one)
    assert torch.equal(baked["b"](x), expected)
    assert int((baked["a"].weight == 0).sum()) == 8
    assert not torch.equal(removed_by_torch(one)["b"](x), expected)  # torch masks b, too


@given(st.sampled_from(sorted(MODELS)), st.floats(0, 0.9))
@settings(max_examples=20)
def test_attached_masks_are_read_and_baked_to_the_same(name: str, ratio: float) -> None:
    model, inputs = build(name)
    masks = select(model, PerTensor(ratio), only=("*",))
    before = contents(model)
    hooked = attach(masks, model)
    assert contents(model) == before
    assert not storages(hooked) & storages(model)
    assert (read(hooked) - masks).removed == (masks - read(hooked)).removed == 0
    zeroed, baked = apply(masks, model), planc.bake(hooked)
    assert {name: t.tolist() for name, t in baked.state_dict().items()} == {
        name: t.tolist() for name, t in zeroed.state_dict().items()
    }
    assert torch.equal(hooked(*inputs), zeroed(*inputs))


def test_attached_masks_join_those_that_are_there_and_hold_while_training() -> None:
    model = pruned("random unstructured")
    first = (model[0].weight_mask == 0).clone()
    masks = select(model, NofM(2, 4), only=("3", "0"), keep=("*.bias*", "0"))
    assert set(masks.by_name) == {"3.weight"}
    more = select(model, PerTensor(0.6), only=("0.weight_orig",)) | masks
    hooked = attach(more, model).train()
    optimiser = torch.optim.SGD(hooked.parameters(), lr=0.1)
    for _ in range(2):
        optimiser.zero_grad()
        hooked(IMAGES).square().sum().backward()
        optimiser.step()
    hooked(IMAGES)
    assert not hooked[0].weight[first].any()
    assert not hooked[0].weight[torch.from_numpy(more.elements("0.weight_orig"))].any()
    assert not hooked[3].weight[torch.from_numpy(more.elements("3.weight"))].any()
    plan = planc.compile(hooked.eval(), IMAGES, ratio=0.5)
    planc.verify(plan, hooked, planc.apply(plan, hooked), IMAGES)


def test_what_cannot_be_attached_or_read_is_named() -> None:
    model = net()
    masks = select(model, PerTensor(0.5))
    with pytest.raises(StalePlan, match="the mask plan was made for other tensors"):
        attach(masks, build("residual")[0])
    hooked = attach(masks, model)
    with torch.no_grad():
        hooked[3].weight_mask[0, 0] = torch.nan
    with pytest.raises(PlancError, match=r"3\.weight_mask has values that are NaN"):
        read(hooked)


def test_masks_of_a_large_share_leave_a_model_that_plans_apply_to() -> None:
    model, _ = build("residual")
    prune_all(model, 0.95)
    plan = planc.compile(model, images(), ratio=0.5)
    planc.verify(plan, model, planc.apply(plan, model), images())
