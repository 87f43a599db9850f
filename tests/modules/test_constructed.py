"""Tensors in plain attributes: those of a constructor are part of the model, like its buffers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

import planc
from planc.modules.constructed import plain_tensors
from planc.modules.tree import owned_tensors

TOKENS = torch.randn(2, 5, 8)


class Stream(nn.Module):
    """A residual stream with positions and a scale that are no buffers."""

    def __init__(self, rank: int = 2) -> None:
        super().__init__()
        self.i, self.o = nn.Linear(8, 16), nn.Linear(16, 3)
        self.pos = torch.randn(*(1,) * (rank - 2), 5, 16)
        self._scale = torch.rand(16) + 0.5
        self.temperature = torch.tensor(2.0)

    def forward(self, x: Tensor) -> Tensor:
        h = (self.i(x) + self.pos) * self._scale / self.temperature
        return self.o(h + h.tanh())


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("target", ["module", "graph"])
def test_they_are_listed_and_cut(target: Any, rank: int) -> None:
    model = Stream(rank).eval()
    plan = planc.compile(model, TOKENS, ratio=0.5, target=target)
    members = {(m.tensor, m.dim) for group in plan.groups for m in group.members}
    assert {("pos", rank - 1), ("_scale", 0), ("i.weight", 0), ("o.weight", 1)} <= members
    smaller = planc.apply(plan, model)
    assert smaller.pos.shape[-1] == len(smaller._scale) == 8
    assert "pos" not in smaller.state_dict()
    report = planc.verify(plan, model, smaller, TOKENS)
    assert report.error is not None
    assert report.error < 1e-5


def test_they_are_saved_restored_and_composed(tmp_path: Path) -> None:
    model = Stream().eval()
    plan = planc.compile(model, TOKENS, ratio=0.5)
    smaller, removed = planc.apply(plan, model, keep_removed=True)
    assert torch.equal(planc.restore(plan, smaller, removed).pos, model.pos)
    planc.save(tmp_path / "file.safetensors", smaller, plan)
    loaded = planc.load(tmp_path / "file.safetensors", Stream().eval())
    assert torch.equal(loaded.pos, smaller.pos)
    assert torch.equal(loaded(TOKENS), smaller(TOKENS))
    second = planc.compile(smaller, TOKENS, ratio=0.5)
    both = planc.apply(planc.compose(plan, second), model)
    assert torch.equal(both(TOKENS), planc.apply(second, smaller)(TOKENS))


def test_a_state_dict_without_them_is_cut_like_any_other() -> None:
    model = Stream().eval()
    plan = planc.compile(model, TOKENS, ratio=0.5)
    assert set(planc.apply(plan, model.state_dict())) == set(model.state_dict())


def test_masks_cover_them() -> None:
    model = Stream().eval()
    masked = planc.mask(planc.compile(model, TOKENS, ratio=0.5), model)
    assert int((masked.pos == 0).all(dim=0).sum()) == 8


class Built(Stream):
    """Positions made by a method of the constructor, and a table that forward renews by another."""

    def __init__(self) -> None:
        super().__init__()
        self.build(5)
        self.renew()

    def build(self, length: int) -> None:
        self.built = torch.randn(length, 16)

    def renew(self) -> None:
        self.renewed = torch.ones(16)

    def forward(self, x: Tensor) -> Tensor:
        self.renew()
        return super().forward(x) * self.built.mean() * self.renewed.mean()


def test_methods_that_the_constructor_alone_calls_are_part_of_it() -> None:
    assert {name for name, _ in plain_tensors(Built())} == {"pos", "_scale", "built"}


class Cached(Stream):
    """A table that forward makes, and one that other code hangs on."""

    def __init__(self) -> None:
        super().__init__()
        self.table: Any = None
        self.pos = torch.randn(5, 16)
        self.same = self.o.weight

    def forward(self, x: Tensor) -> Tensor:
        if self.table is None:
            self.table = torch.ones(5, 16)
        self.pos = self.pos * 1
        return super().forward(x) + self.table.sum()


def test_caches_and_other_names_of_parameters_are_none_of_them() -> None:
    model = Cached().eval()
    model(TOKENS)
    model.hung = torch.ones(3)
    prune.l1_unstructured(model.i, "weight", 0.5)
    assert {name for name, _ in plain_tensors(model)} == {"_scale"}
    names = [name for owned in owned_tensors(model) for name in owned.names]
    assert "same" in names  # a parameter is one under each of its names
    assert "table" not in names


def test_a_view_of_a_parameter_follows_the_parameter() -> None:
    class Viewed(Stream):
        def __init__(self) -> None:
            super().__init__()
            self.seen = self.i.weight.detach()

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + self.seen.sum()

    model = Viewed().eval()
    assert [t.name for t in planc.trace(model, TOKENS).tensors if t.name == "seen"] == []
    smaller = planc.apply(planc.compile(model, TOKENS, ratio=0.5), model)
    assert smaller.seen.data_ptr() == smaller.i.weight.data_ptr()
