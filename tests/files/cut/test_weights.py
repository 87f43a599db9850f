"""Plans applied to files warn about other weights than those that they were computed from."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import planc
from planc.errors import PlancWarning
from planc.files.cut import layout
from planc.plan.plan import Plan
from tests.files.cut.threads import in_threads

X = torch.zeros(1, 6)


def net(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    return model.to(dtype).eval()


def shards(model: nn.Module, directory: Path) -> Path:
    """A directory of one shard for each layer."""
    directory.mkdir()
    state = model.state_dict()
    names = {name: f"model-{name.split('.')[0]}.safetensors" for name in state}
    for file in set(names.values()):
        save_file({n: t for n, t in state.items() if names[n] == file}, directory / file)
    index = {"metadata": {}, "weight_map": names}
    (directory / "model.safetensors.index.json").write_text(str(index).replace("'", '"'))
    return directory


def one_file(model: nn.Module, path: Path) -> Path:
    save_file(model.state_dict(), path)
    return path


def warned(plan: Plan, source: Path, target: Path, workers: int = 1) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        planc.apply_files(plan, source, target, workers=workers)
    assert all(issubclass(found.category, PlancWarning) for found in caught)
    assert all(found.filename == __file__ for found in caught)
    return [str(found.message) for found in caught]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_weights_are_known_in_any_files(dtype: torch.dtype, tmp_path: Path) -> None:
    model = net(dtype)
    plan = planc.compile(model, X.to(dtype))
    single = one_file(model, tmp_path / "a.safetensors")
    assert not warned(plan, single, tmp_path / "b.safetensors")
    assert not warned(plan, single, tmp_path / "b")
    assert not warned(plan, shards(model, tmp_path / "c"), tmp_path / "d")
    planc.save(tmp_path / "e", model, planc.compile(model, X.to(dtype), ratio=0))
    assert not warned(plan, tmp_path / "e", tmp_path / "f")


@pytest.mark.parametrize("name", ["0.weight", "2.weight", "2.bias", "4.bias"])
def test_one_other_value_is_noticed_whether_its_tensor_is_cut_or_not(
    name: str, tmp_path: Path
) -> None:
    model = net()
    plan = planc.compile(model, X)
    with torch.no_grad():
        model.get_parameter(name).view(-1)[-1] += 1e-3
    for source in (one_file(model, tmp_path / "a.safetensors"), shards(model, tmp_path / "c")):
        (message,) = warned(plan, source, tmp_path / f"of-{source.name}")
        assert message.startswith(f"{source}: the weights differ")


def test_a_plan_without_a_digest_and_a_large_source_are_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = net()
    plan = planc.compile(model, X)
    unknown = planc.compile(net().to("meta"), X, criterion="random")
    nn.init.ones_(model[0].weight)
    source = one_file(model, tmp_path / "a.safetensors")
    assert not warned(unknown, source, tmp_path / "b")
    size = sum(4 * parameter.numel() for parameter in model.parameters())
    assert planc.apply_files(unknown, source, tmp_path / "e").compared
    monkeypatch.setattr(layout, "HASHED", size - 1)
    assert not warned(plan, source, tmp_path / "c")
    assert not planc.apply_files(plan, source, tmp_path / "f").compared
    monkeypatch.setattr(layout, "HASHED", size)
    assert warned(plan, source, tmp_path / "d")


def test_several_ranks_warn_once(tmp_path: Path) -> None:
    model = net()
    plan = planc.compile(model, X)
    nn.init.ones_(model[0].weight)
    source = shards(model, tmp_path / "c")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        in_threads(2, lambda ranks: planc.apply_files(plan, source, tmp_path / "d", ranks=ranks))
    assert len(caught) == 1
