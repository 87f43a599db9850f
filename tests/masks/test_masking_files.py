"""Mask plans on files: zeros where the executor in memory writes them, and the very file again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file as save_numpy
from safetensors.torch import load_file, save_file
from torch import nn

import planc
from planc import masks
from planc.errors import LimitExceeded, PlancError, ShardMismatch, StalePlan
from planc.files.cut import masking
from planc.files.cut.masking import holds_masks, mask_files, unmask_files
from planc.files.disk.limits import Limits
from planc.files.tensors import shards
from planc.files.tensors.distributed import KEY
from planc.files.tensors.shards import INDEX_SUFFIX
from planc.plan.masks import MaskPlan, mask_plan
from planc.plan.plan import TensorSpec

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int8, torch.complex64]


def state(dtypes: list[torch.dtype]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        f"t{i}": (100 * torch.randn(3, 5 + i, generator=generator)).to(dtype)
        for i, dtype in enumerate(dtypes)
    }


def drawn(tensors: dict[str, torch.Tensor], seed: int) -> MaskPlan:
    generator = torch.Generator().manual_seed(seed)
    specs = tuple(TensorSpec((n,), tuple(t.shape), "parameter") for n, t in tensors.items())
    removed = {
        name: (torch.rand(tensor.shape, generator=generator) < 0.4).numpy()
        for name, tensor in list(tensors.items())[:-1]
    }
    return mask_plan(specs, removed)


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


@settings(deadline=None, max_examples=20)
@given(st.lists(st.sampled_from(DTYPES), min_size=1, max_size=6), st.integers(0, 99))
def test_files_are_masked_as_state_dicts_are_and_come_back_byte_for_byte(
    tmp_path_factory: pytest.TempPathFactory, dtypes: list[torch.dtype], seed: int
) -> None:
    place = tmp_path_factory.mktemp("masked")
    tensors = state(dtypes)
    plan = drawn(tensors, seed)
    save_file(tensors, place / "in.safetensors", {"of": "whom"})
    out, kept, back = place / "out.safetensors", place / "kept", place / "back.safetensors"
    assert mask_files(plan, place / "in.safetensors", out, keep_removed=kept) == plan.removed
    expected, found = masks.apply(plan, tensors), load_file(out)
    assert all(bits(found[name]) == bits(tensor) for name, tensor in expected.items())
    assert holds_masks(kept)
    assert unmask_files(out, kept, back)
    assert back.read_bytes() == (place / "in.safetensors").read_bytes()


def test_pieces_of_a_large_tensor_are_masked_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(masking, "BLOCK", 64)
    tensors = {"a": torch.randn(37, 11), "b": torch.randn(3)}
    plan = drawn(tensors, 1)
    save_file(tensors, tmp_path / "in.safetensors")
    out, kept, back = tmp_path / "out.safetensors", tmp_path / "kept", tmp_path / "b.safetensors"
    mask_files(plan, tmp_path / "in.safetensors", out, keep_removed=kept)
    assert torch.equal(load_file(out)["a"], masks.apply(plan, tensors)["a"])
    assert unmask_files(out, kept, back)


def test_shards_stay_shards_and_trained_values_stay_new(tmp_path: Path) -> None:
    tensors = state([torch.float32] * 3)
    plan = drawn(tensors, 2)
    source = tmp_path / "in"
    source.mkdir()
    names = {"t0": "a.safetensors", "t1": "b.safetensors", "t2": "b.safetensors"}
    for shard in ("a.safetensors", "b.safetensors"):
        save_file({n: tensors[n] for n in tensors if names[n] == shard}, source / shard)
    table = str({"weight_map": names}).replace("'", '"')
    (source / f"model{INDEX_SUFFIX}").write_text(table)
    (source / "config.json").write_text("{}")
    out, kept, back = tmp_path / "out", tmp_path / "kept", tmp_path / "back"
    mask_files(plan, source, out, keep_removed=kept)
    assert sorted(path.name for path in out.iterdir()) == sorted(p.name for p in source.iterdir())
    assert unmask_files(out, kept, back)
    assert all((back / p.name).read_bytes() == p.read_bytes() for p in source.iterdir())
    trained = {name: tensor + 1 for name, tensor in load_file(out / "b.safetensors").items()}
    save_file(trained, out / "b.safetensors")
    assert not unmask_files(out, kept, back, overwrite=True)
    found, gone = load_file(back / "b.safetensors")["t1"], torch.from_numpy(plan.elements("t1"))
    assert torch.equal(found[gone], tensors["t1"][gone])
    assert torch.equal(found[~gone], tensors["t1"][~gone] + 1)
    with pytest.raises(PlancError, match="exists"):
        mask_files(plan, source, out)


def test_what_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    tensors = state([torch.float32, torch.float32])
    plan, path = drawn(tensors, 3), tmp_path / "in.safetensors"
    save_file(tensors, path)
    out = tmp_path / "out.safetensors"
    with pytest.raises(PlancError, match="is what is read"):
        mask_files(plan, path, path)
    mask_files(plan, path, out, keep_removed=tmp_path / "kept")
    mask_files(drawn(tensors, 4), path, tmp_path / "o.safetensors", keep_removed=tmp_path / "k")
    (tmp_path / "k" / "in.safetensors").replace(tmp_path / "kept" / "in.safetensors")
    with pytest.raises(ShardMismatch, match=r"its values of t0 do not belong.*--keep-removed"):
        unmask_files(out, tmp_path / "kept", tmp_path / "back.safetensors")
    save_file({**tensors, "t1": torch.zeros(2)}, path)
    with pytest.raises(StalePlan, match=r"t1: expected shape \(3, 6\), found \(2,\)"):
        mask_files(plan, path, out)


def test_a_checkpoint_with_digests_is_refused(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2)).eval()
    plan = planc.compile(model, torch.zeros(1, 4), ratio=0.5)
    smaller = planc.apply(plan, model)
    planc.save(tmp_path / "a.safetensors", smaller, plan)
    chosen = masks.select(smaller, masks.PerTensor(0.5))
    with pytest.raises(PlancError, match="digests of its tensors: mask the weights before"):
        mask_files(chosen, tmp_path / "a.safetensors", tmp_path / "b.safetensors")


@pytest.mark.parametrize("alone", [True, False])
def test_a_directory_is_made_of_one_file_and_of_a_directory_of_one(
    tmp_path: Path, alone: bool
) -> None:
    tensors, source = state([torch.float32, torch.int8]), tmp_path / "in"
    source.mkdir()
    save_file(tensors, source / "a.safetensors")
    (source / "config.json").write_text("{}")
    out = tmp_path / "out"
    mask_files(drawn(tensors, 5), source / "a.safetensors" if alone else source, out)
    beside = [] if alone else ["config.json"]  # whose neighbours are not its own
    assert sorted(path.name for path in out.iterdir()) == ["a.safetensors", *beside]


def test_a_shard_without_removed_values_is_named(tmp_path: Path) -> None:
    tensors, source = state([torch.float32, torch.float32]), tmp_path / "in"
    source.mkdir()
    for name, tensor in tensors.items():
        save_file({name: tensor}, source / f"{name}.safetensors")
    table = {"weight_map": {name: f"{name}.safetensors" for name in tensors}}
    (source / f"model{INDEX_SUFFIX}").write_text(json.dumps(table))
    mask_files(drawn(tensors, 6), source, tmp_path / "out", keep_removed=tmp_path / "kept")
    (tmp_path / "kept" / "t1.safetensors").unlink()
    with pytest.raises(ShardMismatch, match=r"kept: has no values for t1\.safetensors.*keep_rem"):
        unmask_files(tmp_path / "out", tmp_path / "kept", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_elements_smaller_than_a_byte_stay_whole(tmp_path: Path) -> None:
    header = b'{"t0":{"dtype":"F4","shape":[4,2],"data_offsets":[0,4]}}'
    path, out = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(range(4)))
    spec = (TensorSpec(("t0",), (4, 2), "parameter"),)
    mask_files(mask_plan(spec, {}), path, out)
    assert out.read_bytes() == path.read_bytes()
    with pytest.raises(PlancError, match="t0: elements of F4 share bytes: leave it whole"):
        mask_files(mask_plan(spec, {"t0": np.eye(4, 2, dtype=bool)}), path, tmp_path / "c")
    assert not (tmp_path / "c").exists()


def sharded(directory: Path, tensors: dict[str, torch.Tensor]) -> Path:
    """Each tensor in a file of its own, with an index."""
    directory.mkdir()
    for name, tensor in tensors.items():
        save_file({name: tensor}, directory / f"{name}.safetensors")
    table = {"weight_map": {name: f"{name}.safetensors" for name in tensors}}
    (directory / f"model{INDEX_SUFFIX}").write_text(json.dumps(table))
    return directory / f"model{INDEX_SUFFIX}"


def test_an_index_leads_to_its_directory(tmp_path: Path) -> None:
    tensors = state([torch.float32, torch.int8])
    index = sharded(tmp_path / "in", tensors)
    (tmp_path / "in" / "config.json").write_text("{}")
    mask_files(drawn(tensors, 5), index, tmp_path / "out")
    names = ["config.json", index.name, "t0.safetensors", "t1.safetensors"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    assert (tmp_path / "out" / index.name).read_bytes() == index.read_bytes()


def test_a_directory_stays_one_under_the_name_of_a_file(tmp_path: Path) -> None:
    tensors, source = state([torch.float32, torch.int8]), tmp_path / "in"
    source.mkdir()
    save_file(tensors, source / "a.safetensors")
    mask_files(drawn(tensors, 5), source, tmp_path / "out.safetensors")
    assert [path.name for path in (tmp_path / "out.safetensors").iterdir()] == ["a.safetensors"]


def test_pieces_of_ranks_become_files_with_an_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "SHARD_SIZE", 64)
    tensors, source = state([torch.float32] * 3), tmp_path / "in"
    source.mkdir()
    offsets = {name: {"saved_offsets": [0, 0]} for name in tensors}
    save_file(tensors, source / "1.safetensors", {KEY: json.dumps(offsets)})
    plan, kept = drawn(tensors, 7), tmp_path / "kept"
    mask_files(plan, source, tmp_path / "out", keep_removed=kept)
    expected = masks.apply(plan, tensors)
    found = {
        name: tensor
        for path in (tmp_path / "out").glob("*.safetensors")
        for name, tensor in load_file(path).items()
    }
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    table = json.loads((tmp_path / "out" / f"model{INDEX_SUFFIX}").read_text())
    assert table["weight_map"] == {
        f"t{i}": f"model-0000{i + 1}-of-00003.safetensors" for i in range(3)
    }
    assert table["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors.values())
    assert unmask_files(tmp_path / "out", kept, tmp_path / "back")


@pytest.mark.parametrize("kept", [False, True])
def test_the_limits_that_are_given_hold_for_all_that_is_read(tmp_path: Path, kept: bool) -> None:
    """Of more dimensions than are read by default."""
    shape, wide = (1,) * 32 + (8,), Limits(rank=33)
    tensors = {"t": torch.arange(8.0).reshape(shape)}
    removed = (torch.arange(8) % 2 == 0).reshape(shape).numpy()
    plan = mask_plan((TensorSpec(("t",), shape, "parameter"),), {"t": removed})
    source, out, values = tmp_path / "a.safetensors", tmp_path / "b.safetensors", tmp_path / "kept"
    save_file(tensors, source)
    options = {"keep_removed": values} if kept else {}
    with pytest.raises(LimitExceeded, match="33 exceeds the limit of 32 rank"):
        mask_files(plan, source, out, **options)
    assert mask_files(plan, source, out, limits=wide, **options) == 4
    assert load_file(out)["t"].flatten().tolist() == [0, 1, 0, 3, 0, 5, 0, 7]
    if kept:
        with pytest.raises(LimitExceeded):
            unmask_files(out, values, tmp_path / "c.safetensors")
        assert unmask_files(out, values, tmp_path / "c.safetensors", limits=wide)
        with pytest.raises(LimitExceeded, match="exceeds the limit of 10"):
            unmask_files(out, values, tmp_path / "d", limits=Limits(rank=33, file=10))


def test_what_removed_values_are_put_into_is_looked_at_first(tmp_path: Path) -> None:
    tensors, source = state([torch.float32, torch.float32]), tmp_path / "in.safetensors"
    save_file(tensors, source)
    out, kept = tmp_path / "out.safetensors", tmp_path / "kept"
    mask_files(drawn(tensors, 3), source, out, keep_removed=kept)
    with pytest.raises(PlancError, match="is what is read"):
        unmask_files(out, kept, out)
    save_file(load_file(kept / "in.safetensors") | {"t0": torch.zeros(1)}, kept / "in.safetensors")
    with pytest.raises(ShardMismatch, match="its values of t0 do not belong"):
        unmask_files(out, kept, tmp_path / "back.safetensors")
    save_file({"other": torch.zeros(1)}, kept / "in.safetensors")
    with pytest.raises(ShardMismatch, match="its values of t0 do not belong"):
        unmask_files(out, kept, tmp_path / "back.safetensors")
    save_file({"t1": tensors["t1"]}, out)
    with pytest.raises(StalePlan, match="t0"):
        unmask_files(out, kept, tmp_path / "back.safetensors")
    assert not (tmp_path / "back.safetensors").exists()


def test_elements_are_those_of_their_place_in_every_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(masking, "BLOCK", 64)
    whole = np.arange(1, 180, dtype=np.uint8)
    gone = [1, 63, 64, 65, 71, 72, 128, 129, 136, 137, 179]
    removed = np.isin(whole, gone)
    save_numpy({"t": whole}, tmp_path / "a")
    plan = mask_plan((TensorSpec(("t",), (179,), "parameter"),), {"t": removed})
    mask_files(plan, tmp_path / "a", tmp_path / "b.safetensors", keep_removed=tmp_path / "kept")
    found = load_file(tmp_path / "b.safetensors")["t"].numpy()
    assert found.tolist() == np.where(removed, 0, whole).tolist()
    kept = load_file(tmp_path / "kept" / "a")["t"]
    assert kept.tolist() == gone
