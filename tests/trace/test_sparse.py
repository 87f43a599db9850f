"""Models with tensors in sparse layouts are pruned around them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import planc

X = torch.randn(2, 8)
LAYOUTS = ["sparse_coo", "sparse_csr", "sparse_csc", "sparse_bsr", "sparse_bsc"]


class Mixing(nn.Module):
    """Two layers, and between them a sparse matrix, where ``used``."""

    def __init__(self, layout: str, kind: str = "buffer", used: bool = False) -> None:
        super().__init__()
        self.a, self.b, self.used = nn.Linear(8, 16), nn.Linear(16, 4), used
        dense = torch.eye(16).roll(1, 0) * torch.arange(1.0, 17)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            blocks = (2, 2) if "bs" in layout else None
            mix = dense.to_sparse(layout=getattr(torch, layout), blocksize=blocks)
        if kind == "parameter":
            self.mix: Any = nn.Parameter(mix)
        elif kind == "truth":
            self.register_buffer("mix", torch.eye(4).bool().to_sparse(), persistent=False)
        else:
            self.register_buffer("mix", mix)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.a(x).relu()
        y: torch.Tensor = self.b((self.mix @ h.T).T if self.used else h)
        return y


def is_equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.layout == b.layout and torch.equal(a.to_dense(), b.to_dense())


@pytest.mark.parametrize("target", ["module", "graph"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_sparse_buffer_is_copied_whole(layout: str, target: Any) -> None:
    model = Mixing(layout).eval()
    plan = planc.compile(model, X, ratio=0.5, target=target)
    smaller = planc.apply(plan, model)
    planc.verify(plan, model, smaller, X)
    assert plan.cost_after.params < plan.cost_before.params
    assert is_equal(dict(smaller.named_buffers())["mix"], model.mix)


@pytest.mark.parametrize("kind", ["buffer", "parameter"])
def test_what_a_sparse_matrix_reads_stays_whole(kind: str) -> None:
    model = Mixing("sparse_coo", kind, used=True).eval()
    plan = planc.compile(model, X, ratio=0.5)
    smaller, removed = planc.apply(plan, model, keep_removed=True)
    planc.verify(plan, model, smaller, X)
    torch.testing.assert_close(smaller(X), model(X))
    restored = planc.restore(plan, smaller, removed)
    assert is_equal(restored.mix, model.mix)


def test_a_sparse_buffer_of_truth_values_leaves_the_trace_on_meta_tensors() -> None:
    graph = planc.trace(Mixing("sparse_coo", "truth"), X)
    assert graph.frontend == "record (meta tensors)"


def test_a_sparse_tensor_is_pinned_with_its_layout_as_the_reason() -> None:
    analysis = planc.analyze(planc.trace(Mixing("sparse_coo", "parameter"), X))
    reasons = {pin.reason for pin in analysis.pins if pin.tensor == "mix"}
    assert any("sparse_coo" in reason for reason in reasons)


def test_files_refuse_sparse_tensors_by_name(tmp_path: Path) -> None:
    model = Mixing("sparse_csr").eval()
    plan = planc.compile(model, X, ratio=0.5)
    with pytest.raises(planc.PlancError, match=r"mix.*sparse_csr.*dense"):
        planc.save(tmp_path / "a.safetensors", planc.apply(plan, model), plan)


def test_another_layout_is_noticed() -> None:
    model = Mixing("sparse_coo").eval()
    plan = planc.compile(model, X, ratio=0.5)
    smaller = planc.apply(plan, model)
    smaller.mix = smaller.mix.to_dense()
    with pytest.raises(planc.VerificationError, match=r"mix is stored as torch\.strided"):
        planc.verify(plan, model, smaller, X)


def test_another_value_is_noticed() -> None:
    model = Mixing("sparse_coo").eval()
    plan = planc.compile(model, X, ratio=0.5)
    smaller = planc.apply(plan, model)
    smaller.mix = smaller.mix * 2
    with pytest.raises(planc.VerificationError, match="mix: its values"):
        planc.verify(plan, model, smaller, X)


def test_a_sparse_buffer_that_is_not_persistent_stays_a_fresh_models_own(tmp_path: Path) -> None:
    def made() -> Mixing:
        model = Mixing("sparse_coo").eval()
        model._non_persistent_buffers_set.add("mix")
        return model

    plan = planc.compile(made(), X, ratio=0.5)
    smaller = planc.apply(plan, made())
    planc.save(tmp_path / "a.safetensors", smaller, plan)
    loaded = planc.load(tmp_path / "a.safetensors", made())
    assert loaded.mix.layout == torch.sparse_coo
    assert torch.equal(loaded(X), smaller(X))
