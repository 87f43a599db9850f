"""Claims of weights that stay in their files: each is read when it is asked for, and is the tensor
that was saved.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from planc.errors import FileError, LimitExceeded, MalformedFile
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


def net() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))


def averaged(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    prefixed = {f"module.{name}": tensor for name, tensor in state.items()}
    return {"n_averaged": torch.tensor(1), **prefixed}


@pytest.mark.parametrize(
    ("wrap", "name"),
    [
        (lambda state: state, "a.pt"),
        (lambda state: {"model": state, "epoch": 3, "optimizer": {"lr": 0.1}}, "a.pth"),
        (lambda state: {"state_dict": state}, "a.ckpt"),
        (lambda state: {"a": {"b": state}}, "checkpoint.pth.tar"),
        (lambda state: {f"module.{name}": t for name, t in state.items()}, "a.bin"),
        (lambda state: {"ema": averaged(state), "model": state}, "no_suffix"),
        (lambda state: {"ema": averaged(state)}, "a.pt"),
        (lambda state: {"net": {f"_orig_mod.module.{n}": t for n, t in state.items()}}, "a.pt"),
    ],
)
def test_pickled_weights_of_a_model_are_read_on_trust(
    wrap: Callable[..., object], name: str, tmp_path: Path
) -> None:
    model = net()
    torch.save(wrap(model.state_dict()), tmp_path / name)
    with pytest.raises(FileError, match="pass --trust-pickle"):
        StoredWeights(tmp_path / name, model=model)
    found = StoredWeights(tmp_path / name, model=model, trust_pickle=True)
    assert found.keys() == model.state_dict().keys()
    assert all(torch.equal(found[key], tensor) for key, tensor in model.state_dict().items())


def test_a_pickle_is_read_without_a_model_where_it_is_one_state_dict(tmp_path: Path) -> None:
    torch.save(net().state_dict(), tmp_path / "a.pt")
    found = StoredWeights(tmp_path / "a.pt", trust_pickle=True)
    assert found.keys() == net().state_dict().keys()
    nested = {"model": net().state_dict(), "moments": {"a": torch.zeros(2)}, "epoch": 3}
    torch.save(nested, tmp_path / "b.pt")
    found = StoredWeights(tmp_path / "b.pt", trust_pickle=True)
    assert found.keys() == net().state_dict().keys()
    torch.save({"epoch": 3}, tmp_path / "c.pt")
    with pytest.raises(MalformedFile, match="'epoch' is a int; a state dict holds names and tens"):
        StoredWeights(tmp_path / "c.pt", trust_pickle=True)
