"""An optimizer is saved with the model whose parameters it has, and with no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import planc
from planc.errors import PlancError
from planc.files.checkpoint.optimizers import check_optimizer


def pruned() -> tuple[nn.Module, nn.Module, planc.Plan]:
    """An original, what a plan makes of it, and the plan."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    plan = planc.compile(model, torch.randn(4, 8), ratio=0.5)
    return model, planc.apply(plan, model), plan


def stepped(optimizer: torch.optim.Optimizer, model: nn.Module) -> torch.optim.Optimizer:
    model(torch.randn(4, 8)).sum().backward()
    optimizer.step()
    return optimizer


def of_the_original(old: nn.Module, new: nn.Module) -> Any:
    return stepped(torch.optim.Adam(old.parameters()), old)


def in_a_second_group(old: nn.Module, new: nn.Module) -> Any:
    groups = [{"params": list(new.parameters())}, {"params": [*old.parameters()][2:]}]
    return torch.optim.SGD(groups, lr=0.1)


def of_a_copy(old: nn.Module, new: nn.Module) -> Any:
    return torch.optim.SGD([p.detach().clone().requires_grad_() for p in new.parameters()], lr=0.1)


def with_the_originals_state(old: nn.Module, new: nn.Module) -> Any:
    """New parameters put into the groups by hand."""
    optimizer = of_the_original(old, new)
    optimizer.param_groups[0]["params"] = list(new.parameters())
    return optimizer


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (of_the_original, r"parameter 0 of group 0, of shape \(16, 8\), is none of the model's 4"),
        (in_a_second_group, r"parameter 0 of group 1, of shape \(4, 16\), is none"),
        (of_a_copy, r"parameter 0 of group 0, of shape \(8, 8\), is none"),
        (
            with_the_originals_state,
            r"a parameter in its state, but in none of its groups",
        ),
        (lambda old, new: of_the_original(old, new).state_dict(), "expected an optimizer"),
        (lambda old, new: "adam", "optimizer: expected an optimizer of torch.optim"),
    ],
)
def test_parameters_of_another_model_are_refused(made: Any, said: str, tmp_path: Path) -> None:
    old, new, plan = pruned()
    with pytest.raises(PlancError, match=said):
        planc.save(tmp_path / "a.safetensors", new, plan, optimizer=made(old, new))
    assert list(tmp_path.iterdir()) == []


def test_names_of_parameters_are_said_where_an_optimizer_has_them() -> None:
    old, new, _ = pruned()
    optimizer = torch.optim.SGD(list(new.parameters()), lr=0.1)
    optimizer.param_groups[0]["param_names"] = ["a", "b", "c"]
    check_optimizer(optimizer, new)
    optimizer.param_groups[0]["params"][1] = [*old.parameters()][1]
    with pytest.raises(PlancError, match=r"parameter 1 \(b\) of group 0, of shape \(16,\)"):
        check_optimizer(optimizer, new)


def groups(model: nn.Module) -> torch.optim.Optimizer:
    first, second = model.get_submodule("0"), model.get_submodule("2")
    both = [{"params": first.parameters(), "lr": 0.5}, {"params": second.parameters()}]
    return torch.optim.AdamW(both, lr=0.1)


@pytest.mark.parametrize(
    "made",
    [
        groups,
        lambda model: torch.optim.SGD([model.get_parameter("2.weight")], lr=0.1, momentum=0.5),
        lambda model: torch.optim.Adam(nn.ModuleDict({"wrapped": model}).parameters()),
    ],
)
def test_the_models_own_are_saved_and_go_on(made: Any, tmp_path: Path) -> None:
    _, new, plan = pruned()
    optimizer = stepped(made(new), new)
    planc.save(tmp_path / "a.safetensors", new, plan, optimizer=optimizer)
    original, _, _ = pruned()
    again = planc.load(tmp_path / "a.safetensors", original)
    resumed = made(again)
    resumed.load_state_dict(planc.load_optimizer(tmp_path / "a.safetensors"))
    torch.manual_seed(1)
    stepped(optimizer, new)
    again.zero_grad()
    for mine, theirs in zip(again.parameters(), new.parameters(), strict=True):
        mine.grad = None if theirs.grad is None else theirs.grad.clone()
    resumed.step()
    for mine, theirs in zip(again.parameters(), new.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_wrapper_is_judged_by_the_parameters_it_shows() -> None:
    old, new, _ = pruned()

    class Wrapper(torch.optim.Optimizer):
        """As those of libraries that scale gradients or share the state between processes."""

        def __init__(self, inner: torch.optim.Optimizer) -> None:
            self.inner, self.param_groups, self.state = inner, inner.param_groups, inner.state

    check_optimizer(Wrapper(groups(new)), new)
    with pytest.raises(PlancError, match="group 0"):
        check_optimizer(Wrapper(groups(old)), new)
