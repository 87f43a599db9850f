"""Attached masks hold in training, also where weights are read without calling their module."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn

import planc
from planc import masks
from planc.masks import PerTensor, attach, read, select
from planc.modules.hooks import Refresh
from tests.support.small import contents

X = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))


class Reader(nn.Module):
    """Reads weights of parts that it never calls, one of them in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Linear(16, 8)
        self.lists = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.embedding(x))
        x = nn.functional.linear(x, self.lists[0].weight, self.lists[1].bias)
        return nn.functional.linear(x, self.embedding.weight.T)


class Attention(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True, **options)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.attention(x, x, x)[0]
        return found


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(layer, 2)


MODELS = {
    "attention": Attention,
    "attention with widths of its own": lambda: Attention(kdim=16, vdim=16, bias=False),
    "encoder layer": lambda: nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True),
    "encoder": encoder,
    "weights read from lists": Reader,
    "inside a sequence": lambda: nn.Sequential(nn.Linear(16, 16), nn.Sequential(Reader())),
}


def attached(name: str) -> tuple[nn.Module, masks.MaskPlan]:
    torch.manual_seed(0)
    model = MODELS[name]()
    plan = select(model, PerTensor(0.5))
    return attach(plan, model), plan


def trained(model: nn.Module, steps: int = 4) -> nn.Module:
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        model(X).square().mean().backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("name", MODELS)
def test_many_steps_train_what_is_kept_and_leave_zeros(name: str) -> None:
    model, plan = attached(name)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    trained(model.train())
    used = [n for n, p in model.named_parameters() if p.grad is not None]
    assert {mask.tensor for mask in plan.masks} & {n.removesuffix("_orig") for n in used}
    unused = ("lists.0.bias", "lists.1.weight_orig")
    for n, parameter in model.named_parameters():
        if not n.endswith(unused):
            assert parameter.grad is not None, n
            assert not torch.equal(parameter, before[n]) or not parameter.grad.any()
    baked = planc.bake(model)
    tensors = dict(baked.named_parameters())
    for mask in plan.masks:
        assert not tensors[mask.tensor].detach()[torch.from_numpy(plan.elements(mask.tensor))].any()


@pytest.mark.parametrize("name", MODELS)
def test_evaluation_after_a_step_is_that_of_the_baked_model(name: str) -> None:
    model, _ = attached(name)
    trained(model.train())
    model.eval()
    baked = planc.bake(model)
    assert not any(
        isinstance(hook, Refresh) for m in baked.modules() for hook in m._forward_pre_hooks.values()
    )
    with torch.no_grad():
        expected = model(X)
        assert torch.allclose(baked(X), expected, atol=1e-5)
        before = torch.backends.mha.get_fastpath_enabled()
        try:
            torch.backends.mha.set_fastpath_enabled(not before)
            assert torch.allclose(model(X), expected, atol=1e-5)
        finally:
            torch.backends.mha.set_fastpath_enabled(before)


@pytest.mark.parametrize("name", MODELS)
def test_attached_models_are_copied_stored_and_read_again(name: str) -> None:
    model, plan = attached(name)
    assert read(model).masks == plan.masks
    other, _ = attached(name)
    trained(other.train())
    model.load_state_dict(other.state_dict())
    with torch.no_grad():
        assert torch.equal(model(X), other(X))
        assert contents(planc.bake(model)) == contents(planc.bake(other))
    again = attach(select(planc.bake(model), PerTensor(0.1)), planc.bake(model))
    for twin in (copy.deepcopy(trained_without_graph(again)), pickle.loads(pickle.dumps(again))):
        trained(twin.train(), steps=2)


def trained_without_graph(model: nn.Module) -> nn.Module:
    """torch copies no computed tensor: after a run without gradients there is none."""
    with torch.no_grad():
        model(X)
    for module in model.modules():
        for name, held in list(vars(module).items()):
            if isinstance(held, torch.Tensor):
                vars(module)[name] = held.detach()
    return model


@pytest.mark.parametrize("name", ["attention", "encoder layer", "weights read from lists"])
def test_plans_are_made_applied_and_verified_with_masks_attached(name: str) -> None:
    model, _ = attached(name)
    trained(model.train())
    model.eval()
    plan = planc.compile(model, X, ratio=0.5)
    smaller = planc.apply(plan, model)
    planc.verify(plan, model, smaller, X)
    trained(smaller.train(), steps=2)
    assert sum(isinstance(hook, Refresh) for m in smaller.modules()
               for hook in m._forward_pre_hooks.values()) > 0  # fmt: skip
