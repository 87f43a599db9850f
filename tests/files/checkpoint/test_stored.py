"""Claims of weights that stay in their files: each is read when it is asked for, and is the tensor
that was saved.
"""

from __future__ import annotations

import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from planc.errors import LimitExceeded
from planc.files.checkpoint.stored import StoredWeights
from planc.files.disk.limits import Limits


def test_stored_weights_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    made = {"a": torch.arange(3), "b": torch.ones(2, 2, dtype=torch.bfloat16), "c": torch.zeros(0)}
    save_file(made, tmp_path / "w.safetensors")
    weights = StoredWeights(tmp_path / "w.safetensors")
    assert sorted(weights) == ["a", "b", "c"]
    assert len(weights) == 3
    assert "a" in weights
    assert "z" not in weights
    for name, tensor in made.items():
        assert torch.equal(weights[name], tensor)
        assert weights[name].dtype == weights.meta[name].dtype == tensor.dtype
        assert weights.meta[name].is_meta
        assert weights.meta[name].shape == tensor.shape
    with pytest.raises(KeyError):
        weights["z"]
    assert weights["a"] is weights["a"]
    first = weights["a"]
    assert weights["b"] is not first
    assert weights["a"] is not first
    with pytest.raises(LimitExceeded):
        StoredWeights(tmp_path / "w.safetensors", limits=Limits(header=8))


def test_two_weights_are_never_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file({"a": torch.ones(3), "b": torch.zeros(3)}, tmp_path / "w.safetensors")
    weights = StoredWeights(tmp_path / "w.safetensors")
    first, real = weakref.ref(weights["a"]), StoredWeights._read
    held = []

    def noted(self: StoredWeights, name: str) -> torch.Tensor:
        held.append(first())
        return real(self, name)

    assert first() is not None
    monkeypatch.setattr(StoredWeights, "_read", noted)
    assert weights["b"].sum() == 0
    assert held == [None]
