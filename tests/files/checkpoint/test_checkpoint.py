"""Claims of checkpoints: what is saved is loaded, bit for bit, into a model that was just built;
what does not fit is said in full before anything is loaded.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import planc
from planc.errors import (
    AlreadyApplied,
    CorruptFile,
    FileError,
    MalformedFile,
    PlancError,
    ShardMismatch,
    StalePlan,
    TruncatedFile,
    UnsafePath,
    VerificationError,
)
from planc.files.checkpoint.values import decoded
from planc.files.tensors.opened import open_checkpoint

INPUT = torch.zeros(2, dtype=torch.int64)


class Net(nn.Module):
    """Tied weights, a buffer that no state dict has, one that is integer, plain attributes."""

    def __init__(self, width: int = 12, dropout: float = 0.1) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 8)
        self.up = nn.Linear(8, width)
        self.norm = nn.BatchNorm1d(width)
        self.down = nn.Linear(width, 8)
        self.head = nn.Linear(8, 10, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("scale", torch.linspace(0.5, 2, width), persistent=False)
        self.dropout, self.names, self.limits = dropout, ["a", ("b", None)], {"low": -1.5}
        self.device_of_birth, self.kind = torch.device("cpu"), torch.float32

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        inner = torch.relu(self.norm(self.up(self.embed(tokens)))) * self.scale
        logits: torch.Tensor = self.head(self.down(inner))
        return logits


def built(seed: int = 0, device: str = "cpu", **options: Any) -> Net:
    torch.manual_seed(seed)
    with torch.device(device):
        return Net(**options).eval()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Net, planc.Plan]:
    model = built()
    with torch.no_grad():
        model.norm.running_mean.normal_()
        model.norm.num_batches_tracked += 7
    plan = planc.compile(model, INPUT, ratio=0.5)
    smaller = planc.apply(plan, model)
    path = tmp_path_factory.mktemp("saved") / "net.safetensors"
    planc.save(path, smaller, plan, metadata={"epoch": 3, "tags": ["a", ("b", 1.5)]})
    return path, smaller, plan


Saved = tuple[Path, Net, planc.Plan]


def same(first: nn.Module, second: nn.Module) -> bool:
    """Whether both compute the same and hold the same bits."""
    with torch.no_grad():
        outputs = torch.equal(first(INPUT), second(INPUT))
    pairs = zip(first.state_dict().items(), second.state_dict().items(), strict=True)
    return outputs and all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_replay_into_a_fresh_model_is_bit_identical(saved: Saved, device: str) -> None:
    path, smaller, _ = saved
    fresh = built(seed=1, device=device)
    loaded = planc.load(path, fresh)
    assert same(loaded, smaller)
    assert torch.equal(loaded.scale, smaller.scale)
    assert loaded.head.weight is loaded.embed.weight
    assert type(loaded) is Net
    assert fresh.up.weight.shape == (12, 8)
    assert fresh.up.out_features == 12
    assert loaded.up.out_features == loaded.down.in_features == 6


def test_replay_on_the_meta_device_allocates_nothing_of_the_unpruned_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planc.compile(built(width=600), INPUT, ratio=0.9)
    planc.save(tmp_path / "a.safetensors", planc.apply(plan, built(width=600)), plan)
    fresh = built(width=600, device="meta")
    largest = 0
    real = torch.empty_like

    def noted(*args: Any, **kwargs: Any) -> torch.Tensor:
        nonlocal largest
        made: torch.Tensor = real(*args, **kwargs)
        largest = max(largest, made.numel() if made.device.type != "meta" else 0)
        return made

    monkeypatch.setattr(torch, "empty_like", noted)
    loaded = planc.load(tmp_path / "a.safetensors", fresh)
    assert not any(tensor.is_meta for tensor in loaded.state_dict().values())
    assert 60 <= largest < 600


def test_verify_takes_a_model_of_the_pruned_structure(saved: Saved) -> None:
    path, smaller, plan = saved
    other = planc.apply(plan, built(seed=5))
    assert not same(other, smaller)
    assert same(planc.load(path, other, "verify", plan=plan), smaller)
    assert not same(other, smaller)


def test_verify_says_every_difference_at_once(saved: Saved) -> None:
    path, _, plan = saved
    other = planc.apply(plan, built(dropout=0.2))
    other.down = nn.Linear(6, 9)
    other.extra = nn.Linear(2, 2)
    other.head.weight = nn.Parameter(torch.zeros(10, 4))
    del other.norm
    foreign = planc.compile(built(), INPUT, ratio=0.25)
    with pytest.raises(VerificationError) as caught:
        planc.load(path, other, "verify", plan=foreign)
    message = str(caught.value)
    for words in (
        "down.weight: shape (4, 6) in the checkpoint, (9, 6) in the model",
        "head.weight: tied to embed.weight in the checkpoint, not in the model",
        "norm.running_mean: in the checkpoint with shape (6,), not in the model",
        "extra.weight: a parameter of shape (2, 2) of the model, not in the checkpoint",
        "down.out_features: 4 in the checkpoint, 9 in the model",
        "norm: a torch.nn.modules.batchnorm.BatchNorm1d in the checkpoint, not in the model",
        "extra: a torch.nn.modules.linear.Linear in the model, not in the checkpoint",
        "the plan: ",
    ):
        assert words in message


def test_an_attribute_that_state_dicts_miss_is_checked(saved: Saved) -> None:
    path, _, _ = saved
    changed = built()
    changed.norm.eps = 1e-3
    with pytest.raises(VerificationError, match=r"norm\.eps: 1e-05 in the checkpoint, 0\.001"):
        planc.load(path, changed)


def test_devices_and_dtypes_as_attributes_may_differ(saved: Saved) -> None:
    changed = built()
    changed.device_of_birth, changed.kind = torch.device("meta"), torch.float16
    assert planc.load(saved[0], changed).kind == torch.float16


def test_a_model_of_another_width_is_stale(saved: Saved) -> None:
    path, smaller, _ = saved
    with pytest.raises(StalePlan, match=r"up\.weight"):
        planc.load(path, built(width=10))
    with pytest.raises(AlreadyApplied):
        planc.load(path, smaller)
    with pytest.raises(PlancError, match="'guess'"):
        planc.load(path, smaller, "guess")  # type: ignore[arg-type]


def test_only_what_the_plan_produced_is_saved(saved: Saved, tmp_path: Path) -> None:
    _, smaller, plan = saved
    with pytest.raises(StalePlan, match=r"is not what the plan produces: .*expected shape"):
        planc.save(tmp_path / "a.safetensors", built(), plan)
    assert list(tmp_path.iterdir()) == []
    smaller = planc.load(saved[0], smaller, "verify")
    smaller.up.out_features = 7
    with pytest.raises(StalePlan, match="out_features"):
        planc.save(tmp_path / "a.safetensors", smaller, plan)


def test_inspect_tells_the_plan_the_tensors_and_the_metadata(saved: Saved) -> None:
    path, smaller, plan = saved
    found = planc.inspect(path)
    assert found.plan == plan
    stored = {name: t for t in found.tensors for name in t.names}
    assert stored["head.weight"] is stored["embed.weight"]
    assert stored["buffer/scale"].role == "buffer"
    assert stored["up.weight"].shape == tuple(smaller.up.weight.shape)
    assert {name: decoded(value) for name, value in found.metadata} == {
        "epoch": 3,
        "tags": ["a", ("b", 1.5)],
    }
    own = dict(next(m for m in found.modules if m.path == "").attributes)
    assert decoded(own["names"]) == ["a", ("b", None)]
    assert decoded(own["limits"]) == {"low": -1.5}


def test_plain_safetensors_fills_a_replayed_model(saved: Saved) -> None:
    path, smaller, _ = saved
    replayed = planc.load(path, built(seed=2))
    with torch.no_grad():
        for parameter in replayed.parameters():
            parameter.zero_()
    missing, unexpected = replayed.load_state_dict(load_file(path), strict=False)
    assert missing == ["head.weight"]  # tied, so it is there
    assert unexpected == []
    assert same(replayed, smaller)


def test_a_sharded_checkpoint_has_the_usual_index(saved: Saved, tmp_path: Path) -> None:
    _, smaller, plan = saved
    planc.save(tmp_path / "net", smaller, plan, shard_size=150)
    index = json.loads((tmp_path / "net" / "model.safetensors.index.json").read_text())
    files = {p.name for p in (tmp_path / "net").glob("*.safetensors")}
    assert len(files) > 2
    assert set(index["weight_map"].values()) == files
    tensors = {k: v for name in files for k, v in load_file(tmp_path / "net" / name).items()}
    assert set(tensors) == set(index["weight_map"]) == set(smaller.state_dict()) - {"head.weight"}
    total = sum(t.numel() * t.element_size() for t in tensors.values())
    assert index["metadata"]["total_size"] == total
    assert same(planc.load(tmp_path / "net", built(device="meta")), smaller)
    assert planc.inspect(tmp_path / "net").plan == plan
    with pytest.raises(PlancError, match="exists"):
        planc.save(tmp_path / "net", smaller, plan)
    planc.save(tmp_path / "net", smaller, plan, overwrite=True)
    assert [p.name for p in (tmp_path / "net").glob("*.safetensors")] == ["model.safetensors"]
    assert same(planc.load(tmp_path / "net", built(seed=4)), smaller)
    assert list(tmp_path.iterdir()) == [tmp_path / "net"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_dtypes_are_those_of_the_checkpoint(dtype: torch.dtype, tmp_path: Path) -> None:
    model = built().to(dtype)
    plan = planc.compile(model, INPUT, ratio=0.5)
    smaller = planc.apply(plan, model)
    planc.save(tmp_path / "a.safetensors", smaller, plan)
    loaded = planc.load(tmp_path / "a.safetensors", built(seed=1))
    assert loaded.up.weight.dtype == dtype
    assert same(loaded, smaller)


def test_memory_format_and_training_flags_are_those_of_the_model(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    args = torch.zeros(1, 3, 8, 8)
    plan = planc.compile(model, args, ratio=0.5)
    smaller = planc.apply(plan, model)
    planc.save(tmp_path / "a.safetensors", smaller, plan)
    fresh = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    fresh = fresh.to(memory_format=torch.channels_last).eval()
    fresh[0].weight.requires_grad_(False)
    loaded = planc.load(tmp_path / "a.safetensors", fresh)
    assert loaded[2].weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(loaded[2].weight, smaller[2].weight)
    assert not loaded.training
    assert not loaded[0].weight.requires_grad
    assert loaded[2].weight.requires_grad


def test_the_optimiser_goes_on_where_it_was(saved: Saved, tmp_path: Path) -> None:
    path, _, plan = saved
    model = planc.load(path, built()).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, betas=(0.5, 0.75))
    model(torch.arange(6)).square().sum().backward()
    optimizer.step()
    planc.save(tmp_path / "a.safetensors", model, plan, optimizer=optimizer)
    again = planc.load(tmp_path / "a.safetensors", built()).train()
    resumed = torch.optim.AdamW(again.parameters())
    resumed.load_state_dict(planc.load_optimizer(tmp_path / "a.safetensors"))
    for each, opt in ((model, optimizer), (again, resumed)):
        opt.zero_grad()
        each(torch.arange(6)).square().sum().backward()
        opt.step()
    assert same(model.eval(), again.eval())
    with pytest.raises(PlancError, match="without an optimizer"):
        planc.load_optimizer(path)


def test_saving_again_leaves_one_extra_file(saved: Saved, tmp_path: Path) -> None:
    path, smaller, plan = saved
    planc.save(tmp_path / "net.safetensors", smaller, plan)
    extra = [p.name for p in tmp_path.iterdir() if p.name.endswith(".planc-extra")]
    other = planc.load(path, built())
    other.scale.mul_(2)
    planc.save(tmp_path / "net.safetensors", other, plan)
    left = [p.name for p in tmp_path.iterdir() if p.name.endswith(".planc-extra")]
    assert len(extra) == len(left) == 1
    assert extra != left
    assert torch.equal(planc.load(tmp_path / "net.safetensors", built()).scale, other.scale)


def test_tied_tensors_of_several_values_are_refused(saved: Saved, tmp_path: Path) -> None:
    _, _, plan = saved
    state = built().state_dict()
    for twin, fits in ((state["embed.weight"].clone(), True), (torch.zeros(10, 8), False)):
        save_file(state | {"head.weight": twin}, tmp_path / "w.safetensors")
        planc.apply_files(plan, tmp_path / "w.safetensors", tmp_path / "b.safetensors")
        if fits:
            assert same(planc.load(tmp_path / "b.safetensors", built()), planc.apply(plan, built()))
        else:
            with pytest.raises(VerificationError, match="with several values in the checkpoint"):
                planc.load(tmp_path / "b.safetensors", built())


def test_a_buffer_with_values_nowhere_is_named(saved: Saved, tmp_path: Path) -> None:
    _, _, plan = saved
    state = built().state_dict()
    del state["head.weight"]  # tied
    save_file(state, tmp_path / "w.safetensors")
    planc.apply_files(plan, tmp_path / "w.safetensors", tmp_path / "b.safetensors")
    assert planc.load(tmp_path / "b.safetensors", built()).scale.shape == (6,)
    with pytest.raises(PlancError, match="scale: neither the checkpoint nor the model"):
        planc.load(tmp_path / "b.safetensors", built(device="meta"))


@pytest.mark.long
def test_equal_models_give_equal_bytes_in_every_process(saved: Saved, tmp_path: Path) -> None:
    """R10: other hash seeds, other threads."""
    path, _, plan = saved
    planc.save_plan(plan, tmp_path / "p.planc")
    script = (
        "import sys, torch, planc\n"
        "from tests.files.checkpoint.test_checkpoint import built\n"
        "plan = planc.load_plan(sys.argv[1])\n"
        "model = planc.load(sys.argv[2], built())\n"
        "planc.save(sys.argv[3], model, plan, metadata={'epoch': 3, 'tags': ['a', ('b', 1.5)]})\n"
    )
    for seed in ("0", "1"):
        out = tmp_path / seed
        out.mkdir()
        subprocess.run(
            [sys.executable, "-c", script, tmp_path / "p.planc", path, out / path.name],
            check=True,
            env=os.environ | {"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": str(1 + int(seed))},
            cwd=Path(__file__).parents[3],
        )
        for file in path.parent.iterdir():
            assert (out / file.name).read_bytes() == file.read_bytes()


# damage


def test_every_damaged_bit_is_found(saved: Saved, tmp_path: Path) -> None:
    """R3: bits all over the header and the data."""
    path, _, _ = saved
    for file in path.parent.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    copy = tmp_path / path.name
    content = bytearray(path.read_bytes())
    data = int.from_bytes(content[:8], "little") + 8
    fresh = built(device="meta")
    for bit in range(0, 8 * data, 53):
        content[bit // 8] ^= 1 << bit % 8
        copy.write_bytes(content)
        with pytest.raises((FileError, ShardMismatch)):
            open_checkpoint(copy)
        content[bit // 8] ^= 1 << bit % 8
    for bit in range(8 * data, 8 * len(content), 29):
        content[bit // 8] ^= 1 << bit % 8
        copy.write_bytes(content)
        with pytest.raises(CorruptFile, match="digest"):
            planc.load(copy, fresh)
        content[bit // 8] ^= 1 << bit % 8


def test_shards_that_do_not_belong_together_are_refused(saved: Saved, tmp_path: Path) -> None:
    """R13, for planc's own checkpoints: known from headers alone."""
    path, smaller, plan = saved
    other = planc.load(path, built())
    with torch.no_grad():
        other.down.weight.add_(1)
    planc.save(tmp_path / "a", smaller, plan, shard_size=150)
    planc.save(tmp_path / "b", other, plan, shard_size=150)
    names = sorted(p.name for p in (tmp_path / "a").glob("*.safetensors"))
    index = json.loads((tmp_path / "a" / "model.safetensors.index.json").read_text())
    holder = index["weight_map"]["down.weight"]
    mixed = (tmp_path / "b" / holder).read_bytes()
    original = (tmp_path / "a" / holder).read_bytes()
    fresh = built(device="meta")
    (tmp_path / "a" / holder).write_bytes(mixed)
    with pytest.raises(ShardMismatch):
        planc.load(tmp_path / "a", fresh)
    (tmp_path / "a" / holder).write_bytes(original[:-1])
    with pytest.raises(TruncatedFile):
        planc.load(tmp_path / "a", fresh)
    (tmp_path / "a" / names[-1]).unlink()
    (tmp_path / "a" / holder).write_bytes(original)
    with pytest.raises(ShardMismatch, match="missing"):
        planc.load(tmp_path / "a", fresh)


def test_a_record_cannot_name_files_elsewhere(saved: Saved, tmp_path: Path) -> None:
    from dataclasses import replace

    from planc.files.formats.checkpoint import encode_checkpoint
    from planc.files.tensors.header import write_header
    from planc.files.tensors.reader import read_header

    path, _, _ = saved
    header = read_header(path)
    checkpoint = planc.inspect(path)
    for name in ("../net.safetensors", "/etc/passwd", "a/b.planc-extra", ".a.planc-extra"):
        shards = (checkpoint.shards[0], replace(checkpoint.shards[1], name=name))
        record = encode_checkpoint(replace(checkpoint, shards=shards))
        raw = write_header(header.entries, {**header.metadata, "planc": record})
        (tmp_path / path.name).write_bytes(raw + path.read_bytes()[header.data :])
        with pytest.raises(UnsafePath, match="plain name"):
            planc.inspect(tmp_path / path.name)


def test_other_files_are_no_checkpoints(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(MalformedFile, match="planc did not write it"):
        planc.inspect(tmp_path / "a.safetensors")
    with pytest.raises(FileNotFoundError):
        planc.inspect(tmp_path / "b.safetensors")
    (tmp_path / "empty").mkdir()
    with pytest.raises(PlancError, match="holds neither"):
        planc.inspect(tmp_path / "empty")


def test_what_cannot_be_saved_is_named_before_anything_is_written(
    saved: Saved, tmp_path: Path
) -> None:
    path, _, plan = saved
    model = planc.load(path, built())
    model.scale = model.scale.to(torch.complex128)
    with pytest.raises(PlancError, match="scale: safetensors has no"):
        planc.save(tmp_path / "a.safetensors", model, plan)
    model = planc.load(path, built())
    with pytest.raises(PlancError, match="planc's own"):
        planc.save(tmp_path / "a.safetensors", model, plan, metadata={"planc.x": 1})
    assert list(tmp_path.iterdir()) == []
