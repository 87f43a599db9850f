"""Claims of checkpoints that ranks of a job wrote with torch.distributed.checkpoint: cut as if they
were whole, in both of its forms; what is missing is refused; torch reads the result on any ranks.
"""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import planc
from planc.cli import run
from planc.errors import FileError, MalformedFile, PlancError, ShardMismatch, StalePlan
from planc.files.tensors import shards
from tests.support.ranks import in_ranks

WIDTH = 18  # not divisible by the four ranks


def build() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU())
    return model.append(nn.Linear(WIDTH, 4)).eval()


def plan_of(model: nn.Module) -> planc.Plan:
    return planc.compile(model, torch.zeros(1, 6), ratio=0.5)


WRITE = """
import torch, torch.distributed as dist, torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_model_state_dict, get_optimizer_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from tests.support.ranks import forked
from tests.files.cut.test_native import build

def work(rank):
    dist.init_process_group("gloo")
    mesh, square = init_device_mesh("cpu", (4,)), init_device_mesh("cpu", (2, 2))
    model = build()
    state = dict(model.state_dict())
    laid = {
        "0.weight": distribute_tensor(state["0.weight"], mesh, [Shard(0)]),
        "0.bias": state["0.bias"],
        "2.weight": distribute_tensor(state["2.weight"], square, [Shard(1), Shard(0)]),
        "2.bias": distribute_tensor(state["2.bias"], mesh, [Shard(0)]),
        "4.weight": distribute_tensor(state["4.weight"], mesh, [Shard(1)]),
        "4.bias": distribute_tensor(state["4.bias"], square, [Replicate(), Shard(0)]),
    }
    writer = dcp.HuggingFaceStorageWriter("hf", save_distributed=True)
    dcp.save(laid, storage_writer=writer)
    dcp.save(laid, checkpoint_id="flat")
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    model(torch.zeros(2, 6)).sum().backward()
    optimizer.step()
    held = {"model": get_model_state_dict(model), "step": 7}
    held["optim"] = get_optimizer_state_dict(model, optimizer)
    dcp.save(held, checkpoint_id="training")
    dist.destroy_process_group()

raise SystemExit(max(forked(4, work)))
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("written")
    done = in_ranks(WRITE, directory)
    assert done.returncode == 0, done.stderr
    return directory


@pytest.mark.long
@pytest.mark.parametrize("form", ["hf", "flat", "training"])
def test_what_ranks_wrote_is_cut_as_the_whole(written: Path, tmp_path: Path, form: str) -> None:
    model = build()
    plan, out = plan_of(model), tmp_path / "out"
    kept, trust = tmp_path / "kept", form != "hf"
    done = planc.apply_files(plan, written / form, out, keep_removed=kept, trust_pickle=trust)
    assert done.outside == (("optim", "step") if form == "training" else ())
    smaller = planc.apply(plan, model)
    assert_equal(load_file(out / "model.safetensors"), dict(smaller.state_dict()))
    loaded = planc.load(out, build())
    inputs = torch.randn(3, 6)
    assert torch.equal(loaded(inputs), smaller(inputs))
    assert planc.restore_files(out, kept, tmp_path / "back")
    assert_equal(load_file(tmp_path / "back" / "model.safetensors"), dict(model.state_dict()))


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


READ = """
import torch, torch.distributed as dist, torch.distributed.checkpoint as dcp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
from safetensors.torch import load_file
import planc
from tests.support.ranks import forked
from tests.files.cut.test_native import build, plan_of

def work(rank):
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (3,))
    model = build()
    expected = planc.apply(plan_of(model), model).state_dict()
    state = {
        name: distribute_tensor(torch.zeros_like(tensor), mesh, [Shard(0)])
        for name, tensor in expected.items()
    }
    dcp.load(state, storage_reader=dcp.HuggingFaceStorageReader("out"))
    for name, tensor in state.items():
        assert torch.equal(tensor.full_tensor(), expected[name]), name
    dist.destroy_process_group()

raise SystemExit(max(forked(3, work)))
"""


@pytest.mark.long
def test_torch_reads_the_result_on_another_number_of_ranks(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "SHARD_SIZE", 1 << 10)
    plan = plan_of(build())
    planc.apply_files(plan, written / "flat", tmp_path / "out", trust_pickle=True, workers=2)
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == [
        "model-00001-of-00003.safetensors",
        "model-00002-of-00003.safetensors",
        "model-00003-of-00003.safetensors",
        "model.safetensors.index.json",
    ]
    total = json.loads((tmp_path / "out" / files[-1]).read_text())["metadata"]["total_size"]
    smaller = planc.apply(plan, build())
    assert total == sum(t.nbytes for t in smaller.state_dict().values())
    assert_equal(dict(planc.load(tmp_path / "out", build()).state_dict()), smaller.state_dict())
    done = in_ranks(READ, tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_native_checkpoint_is_read_only_when_it_is_trusted(written: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(FileError, match=r"\.metadata: is a pickle.*--trust-pickle"):
        planc.apply_files(plan_of(build()), written / "flat", out)
    planc.save_plan(plan_of(build()), tmp_path / "p.planc")
    command = ["apply", str(tmp_path / "p.planc"), "--weights", str(written / "training")]
    assert run([*command, "--out", str(out)]) == 1
    assert not out.exists()
    assert run([*command, "--out", str(out), "--trust-pickle"]) == 0


def test_a_missing_file_is_no_reason_for_zeros(written: Path, tmp_path: Path) -> None:
    plan = plan_of(build())
    for form in ("hf", "flat", "training"):
        for path in sorted((written / form).iterdir()):
            shutil.copytree(written / form, tmp_path / "in")
            (tmp_path / "in" / path.name).unlink()
            with pytest.raises((ShardMismatch, StalePlan, PlancError)):
                planc.apply_files(plan, tmp_path / "in", tmp_path / "out", trust_pickle=True)
            shutil.rmtree(tmp_path / "in")
            assert not (tmp_path / "out").exists()


def test_a_middle_shard_that_torch_fills_with_zeros_is_refused(tmp_path: Path) -> None:
    import torch.distributed.checkpoint as dcp

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.Linear(6, 2))
    plan = planc.compile(model, torch.zeros(1, 5), ratio=0.5)
    state = {name: tensor.detach() for name, tensor in model.named_parameters()}
    (tmp_path / "in").mkdir()
    for rank, (first, last) in enumerate(((0, 2), (2, 4), (4, 6)), 1):
        held = {"0.weight": state["0.weight"][first:last].clone()}
        offsets = {"0.weight": {"saved_offsets": [first, 0]}}
        if rank == 1:
            held |= {name: t.clone() for name, t in state.items() if name != "0.weight"}
            offsets |= {n: {"saved_offsets": [0] * t.ndim} for n, t in held.items()}
        metadata = {"DCP_SHARDING_INFO": json.dumps(offsets)}
        if rank != 2:
            name = f"shard-{rank:05d}-model-00001-of-00001.safetensors"
            save_file(held, tmp_path / "in" / name, metadata)
    into = {"0.weight": torch.full((6, 5), 9.0)}
    dcp.load(into, storage_reader=dcp.HuggingFaceStorageReader(str(tmp_path / "in")), no_dist=True)
    assert (into["0.weight"][2:4] == 9).all(), "torch has learnt to refuse this: say so in README"
    with pytest.raises(ShardMismatch, match=r"0\.weight: its pieces hold 20 of the 30 values"):
        planc.apply_files(plan, tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()


class Bomb:
    """What runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("exploded"),)


def edited(change: Any) -> Any:
    def edit(path: Path) -> None:
        metadata = pickle.loads(path.read_bytes())
        change(metadata)
        path.write_bytes(pickle.dumps(metadata))

    return edit


def places(metadata: Any, name: str) -> list[Any]:
    return [info for index, info in metadata.storage_data.items() if index.fqn == name]


def forget(metadata: Any) -> None:
    metadata.state_dict_metadata["2.weight"].chunks.pop(2)


def misplace(metadata: Any) -> None:
    del metadata.storage_data[next(i for i in metadata.storage_data if i.fqn == "2.weight")]


def elsewhere(metadata: Any) -> None:
    places(metadata, "2.weight")[0].relative_path = "../__0_0.distcp"


def swap(metadata: Any) -> None:
    one, other = places(metadata, "0.weight")[0], places(metadata, "4.weight")[0]
    one.offset, other.offset = other.offset, one.offset


def compressed(metadata: Any) -> None:
    places(metadata, "0.weight")[0].transform_descriptors = ["zstd"]


def beyond(metadata: Any) -> None:
    places(metadata, "0.weight")[0].offset = 1 << 40


WRONG = [
    (edited(forget), ShardMismatch),
    (edited(misplace), ShardMismatch),
    (edited(elsewhere), FileError),
    (edited(swap), ShardMismatch),
    (edited(compressed), MalformedFile),
    (edited(beyond), MalformedFile),
    (edited(lambda metadata: metadata.state_dict_metadata.pop("2.weight")), StalePlan),
    (edited(lambda metadata: metadata.planner_data.update({"2.weight": ()})), MalformedFile),
    (edited(lambda metadata: setattr(metadata, "storage_data", 3)), MalformedFile),
    (edited(lambda metadata: setattr(metadata, "planner_data", Bomb())), MalformedFile),
    (lambda path: path.write_bytes(pickle.dumps(Bomb())), MalformedFile),
    (lambda path: path.write_bytes(path.read_bytes()[:-40]), MalformedFile),
    (lambda path: path.write_bytes(b""), MalformedFile),
]


@pytest.mark.parametrize(("edit", "kind"), WRONG)
def test_metadata_that_is_wrong_is_refused_and_runs_nothing(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edit: Any, kind: type[Exception]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(written / "flat", tmp_path / "in")
    edit(tmp_path / "in" / ".metadata")
    with pytest.raises(kind):
        planc.apply_files(plan_of(build()), tmp_path / "in", tmp_path / "out", trust_pickle=True)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
