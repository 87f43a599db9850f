"""Claims of plans on files: the same tensors as in memory, bit for bit, in bounded memory; what
does not belong together is refused before there is output; what was interrupted goes on.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_torch
from safetensors.torch import save_file as save_torch
from torch import nn

import planc
from planc.errors import (
    AlreadyApplied,
    FileError,
    PlancError,
    ShardMismatch,
    StalePlan,
    UnsafePath,
)
from planc.files.cut import shard
from planc.files.tensors.shards import find_shards
from planc.ir.groups import Member, Run
from planc.plan.plan import AttributeChange, ModuleSpec, Plan, PlanGroup, TensorSpec
from tests.support.strategies import arrays, complete, cut_array

Arrays = dict[str, NDArray[Any]]


def state_of(plan: Plan, dtype: str = "int32") -> Arrays:
    return {name: array.astype(dtype) for name, array in arrays(plan).items()}


def one_by_one(plan: Plan, whole: Arrays) -> Arrays:
    return {name: cut_array(array, plan.cuts.get(name)) for name, array in whole.items()}


def test_every_width_of_elements_is_moved_as_bits(tmp_path: Path) -> None:
    plan = mlp_plan()
    for dtype in (torch.float8_e4m3fn, torch.bfloat16, torch.float64, torch.complex64, torch.bool):
        whole = {
            spec.name: torch.randint(0, 256, (*spec.shape, dtype.itemsize), dtype=torch.uint8)
            .view(dtype)
            .reshape(spec.shape)
            if dtype is not torch.bool
            else torch.rand(spec.shape) < 0.5
            for spec in plan.tensors
        }
        save_torch(whole, tmp_path / "a.safetensors")
        planc.apply_files(plan, tmp_path / "a.safetensors", tmp_path / "b.safetensors")
        found, expected = load_torch(tmp_path / "b.safetensors"), planc.apply(plan, whole)
        for name, tensor in expected.items():
            assert found[name].dtype == dtype
            assert torch.equal(found[name].view(torch.uint8), tensor.view(torch.uint8))


# sharded checkpoints


def mlp_plan(width: int = 16, layers: int = 3, step: int = 2) -> Plan:
    """A plan for layers of an MLP, without a model: each loses every other inner channel, or every
    ``step``-th.
    """
    tensors, groups = [], []
    for i in range(layers):
        up, down = f"layers.{i}.up.weight", f"layers.{i}.down.weight"
        tensors += [
            TensorSpec((up,), (width, 4), "parameter"),
            TensorSpec((down,), (4, width), "parameter"),
        ]
        members = tuple(
            Member(name, dim, (Run(0, width, 0, 1),)) for name, dim in ((up, 0), (down, 1))
        )
        gone = tuple(range(0, width, step))
        groups.append(PlanGroup(f"{up}:0", "features", width, 1, members, "", gone))
    modules = (ModuleSpec("", (("config.inner.size", width), ("config.kind", "mlp"))),)
    changes = (AttributeChange("", "config.inner.size", width, width - len(range(0, width, step))),)
    return complete(tuple(tensors), modules, tuple(groups), changes)


PLAN = mlp_plan()
INDEX = "model.safetensors.index.json"


def sharded(directory: Path, plan: Plan = PLAN, metadata: Any = None) -> Arrays:
    """A checkpoint of two tensors a shard, as other tools write it."""
    directory.mkdir()
    whole = state_of(plan, "float16")
    names = list(whole)
    files = [
        f"model-{i:05d}-of-{len(names) // 2:05d}.safetensors" for i in range(1, len(names) // 2 + 1)
    ]
    shard_of = {}
    for i, file in enumerate(files):
        part = {name: whole[name] for name in names[2 * i : 2 * i + 2]}
        save_file(part, directory / file, metadata or {"format": "pt"})
        shard_of |= dict.fromkeys(part, file)
    table = {"metadata": {"total_size": 1, "note": "x"}, "weight_map": shard_of}
    (directory / INDEX).write_text(json.dumps(table))
    (directory / "config.json").write_text('{"inner": {"size": 16}, "other": 16}')
    (directory / "tokenizer.txt").write_text("a b c")
    (directory / "pytorch_model.bin").write_text("a pickle")
    return whole


def together(directory: Path) -> Arrays:
    """All tensors of the shards that an index lists, read with the safetensors package."""
    table = json.loads((directory / INDEX).read_text())
    files = sorted(set(table["weight_map"].values()))
    found = {name: array for file in files for name, array in load_file(directory / file).items()}
    assert set(found) == set(table["weight_map"])
    return found


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("workers", [1, 2])
def test_shards_keep_names_index_dtype_metadata_and_neighbours(
    tmp_path: Path, workers: int
) -> None:
    whole = sharded(tmp_path / "in")
    done = planc.apply_files(PLAN, tmp_path / "in", tmp_path / "out", workers=workers)
    found = together(tmp_path / "out")
    expected = one_by_one(PLAN, whole)
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[n], expected[n]) for n in expected)
    assert all(array.dtype == np.float16 for array in found.values())
    assert {p.name for p in (tmp_path / "in").iterdir()} - {"pytorch_model.bin"} == {
        p.name for p in (tmp_path / "out").iterdir()
    }
    table = json.loads((tmp_path / "out" / INDEX).read_text())
    assert table["metadata"] == {
        "total_size": sum(a.nbytes for a in expected.values()),
        "note": "x",
    }
    assert (done.shards, done.cut) == (3, 3)
    for file in find_shards(tmp_path / "out").shards:
        assert file.header.metadata["format"] == "pt"


def test_workers_and_processes_give_equal_bytes(tmp_path: Path) -> None:
    sharded(tmp_path / "in")
    planc.apply_files(PLAN, tmp_path / "in", tmp_path / "one")
    planc.apply_files(PLAN, tmp_path / "in", tmp_path / "two", workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_configuration_says_what_the_plan_makes_of_it(tmp_path: Path) -> None:
    sharded(tmp_path / "in")
    planc.apply_files(PLAN, tmp_path / "in", tmp_path / "out")
    found = json.loads((tmp_path / "out" / "config.json").read_text())
    assert found == {"inner": {"size": 8}, "other": 16}
    (tmp_path / "in" / "config.json").write_text('{"inner": {"size": 12}}')
    with pytest.raises(StalePlan, match=r"inner\.size is 12, the plan was made for 16"):
        planc.apply_files(PLAN, tmp_path / "in", tmp_path / "other")
    assert not (tmp_path / "other").exists()
    (tmp_path / "in" / "config.json").write_text("{}")  # fields with their defaults are left out
    planc.apply_files(PLAN, tmp_path / "in", tmp_path / "other")
    assert json.loads((tmp_path / "other" / "config.json").read_text()) == {"inner": {"size": 8}}


def test_restoring_a_directory_gives_every_file_back(tmp_path: Path) -> None:
    sharded(tmp_path / "in")
    (tmp_path / "in" / "pytorch_model.bin").unlink()
    kept = tmp_path / "kept"
    planc.apply_files(PLAN, tmp_path / "in", tmp_path / "out", keep_removed=kept)
    assert planc.restore_files(tmp_path / "out", kept, tmp_path / "back")
    assert contents(tmp_path / "back") == contents(tmp_path / "in")


def test_trained_weights_are_restored_with_their_new_values(tmp_path: Path) -> None:
    whole = sharded(tmp_path / "in")
    kept = tmp_path / "kept"
    planc.apply_files(PLAN, tmp_path / "in", tmp_path / "out", keep_removed=kept)
    first = sorted((tmp_path / "out").glob("*.safetensors"))[1]
    trained = load_file(first)
    name = next(iter(trained))
    trained[name] = trained[name] + 1000
    save_file(trained, first)
    assert not planc.restore_files(tmp_path / "out", kept, tmp_path / "back")
    back = together(tmp_path / "back")
    gone = PLAN.cuts[name].kept
    mask = np.zeros(whole[name].shape, dtype=bool)
    mask[np.ix_(*(range(n) if k is None else k for n, k in zip(mask.shape, gone, strict=True)))] = 1
    assert np.array_equal(back[name][~mask], whole[name][~mask])
    assert np.array_equal(back[name][mask], whole[name][mask] + 1000)


def test_removed_values_of_another_checkpoint_are_refused(tmp_path: Path) -> None:
    sharded(tmp_path / "in")
    other = mlp_plan(layers=2)
    sharded(tmp_path / "other", other)
    planc.apply_files(PLAN, tmp_path / "in", tmp_path / "out")
    planc.apply_files(other, tmp_path / "other", tmp_path / "small", keep_removed=tmp_path / "kept")
    with pytest.raises(StalePlan, match=r"layers\.2"):
        planc.restore_files(tmp_path / "out", tmp_path / "kept", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_second_plan_makes_a_checkpoint_of_the_composed_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    args = torch.zeros(1, 6)
    first = planc.compile(model, args, ratio=0.5)
    smaller = planc.apply(first, model)
    second = planc.compile(smaller, args, ratio=0.5)
    planc.save(tmp_path / "a", smaller, first)
    planc.apply_files(second, tmp_path / "a", tmp_path / "b")
    loaded = planc.load(tmp_path / "b", model)
    expected = planc.apply(second, smaller)
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.parameters(), expected.parameters(), strict=True)
    )
    assert planc.inspect(tmp_path / "b").plan == planc.compose(first, second)
    with pytest.raises(AlreadyApplied):
        planc.apply_files(first, tmp_path / "a", tmp_path / "c")
    other = planc.compile(model, args, ratio=0.5, criterion="random", seed=1)
    with pytest.raises(StalePlan, match="was pruned by another plan, to the same shapes"):
        planc.apply_files(other, tmp_path / "a", tmp_path / "c")


# interruptions


class Interrupted(BaseException):
    """What a run is stopped with."""


def test_an_interrupted_run_leaves_no_output_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sharded(tmp_path / "in")
    real, cut = shard.cut_shard, []

    def stopping(job: shard.Cutting, descriptor: int) -> shard.Done:
        if len(cut) == 2:
            raise Interrupted
        cut.append(job.name)
        return real(job, descriptor)

    with monkeypatch.context() as patched:
        patched.setattr("planc.files.cut.workers.cut_shard", stopping)
        with pytest.raises(Interrupted):
            planc.apply_files(PLAN, tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    done = planc.apply_files(PLAN, tmp_path / "in", tmp_path / "out")
    assert done.cut == 2
    planc.apply_files(PLAN, tmp_path / "in", tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out", "whole"]


@pytest.mark.parametrize("change", ["weights", "plan"])
def test_what_another_run_left_is_not_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    sharded(tmp_path / "in")
    with monkeypatch.context() as patched:
        patched.setattr(
            "planc.files.cut.apply.copy_besides", lambda *_: (_ for _ in ()).throw(Interrupted)
        )
        with pytest.raises(Interrupted):
            planc.apply_files(PLAN, tmp_path / "in", tmp_path / "out")
    plan = PLAN
    if change == "weights":
        file = sorted((tmp_path / "in").glob("*.safetensors"))[1]
        save_file({n: a + 1 for n, a in load_file(file).items()}, file, {"format": "pt"})
    else:
        group = PLAN.groups[0]
        plan = complete(
            PLAN.tensors,
            PLAN.modules,
            (
                PlanGroup(
                    *(getattr(group, f) for f in ("name", "kind", "size", "rows", "members")),
                    "",
                    (0,),
                ),
                *PLAN.groups[1:],
            ),
            PLAN.attributes,
        )
    assert planc.apply_files(plan, tmp_path / "in", tmp_path / "out").cut == 3
    planc.apply_files(plan, tmp_path / "in", tmp_path / "again")
    assert contents(tmp_path / "out") == contents(tmp_path / "again")


def test_two_processes_do_not_write_one_place(tmp_path: Path) -> None:
    from planc.files.disk.staging import staging

    sharded(tmp_path / "in")
    with (
        staging(tmp_path / "out", "other", False),
        pytest.raises(PlancError, match="another process is writing"),
    ):
        planc.apply_files(PLAN, tmp_path / "in", tmp_path / "out")


def test_what_is_there_is_replaced_only_on_request(tmp_path: Path) -> None:
    sharded(tmp_path / "in")
    (tmp_path / "out").mkdir()
    planc.apply_files(PLAN, tmp_path / "in", tmp_path / "out")  # an empty directory is room
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(PlancError, match="exists"):
        planc.apply_files(PLAN, tmp_path / "in", tmp_path / "out")
    planc.apply_files(PLAN, tmp_path / "in", tmp_path / "out", overwrite=True)
    assert not (tmp_path / "out" / "mine.txt").exists()
    with pytest.raises(PlancError, match="what is read"):
        planc.apply_files(PLAN, tmp_path / "in", tmp_path / "in", overwrite=True)


def test_a_file_is_not_written_over_what_is_read(tmp_path: Path) -> None:
    save_file(state_of(PLAN), tmp_path / "a.safetensors")
    with pytest.raises(PlancError, match="what is read"):
        planc.apply_files(PLAN, tmp_path / "a.safetensors", tmp_path / "a.safetensors")


# hostile sets of shards: R13, R14


def edit_index(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def edit(directory: Path) -> None:
        table = json.loads((directory / INDEX).read_text())
        change(table)
        (directory / INDEX).write_text(json.dumps(table))

    return edit


def map_to(tensor: str, file: str) -> Callable[[Path], None]:
    return edit_index(lambda table: table["weight_map"].update({tensor: file}))


def rewrite(number: int, change: Callable[[Arrays], Arrays]) -> Callable[[Path], None]:
    def edit(directory: Path) -> None:
        file = sorted(directory.glob("*.safetensors"))[number]
        save_file(change(load_file(file)), file)

    return edit


def bytes_of(number: int, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def edit(directory: Path) -> None:
        file = sorted(directory.glob("*.safetensors"))[number]
        file.write_bytes(change(file.read_bytes()))

    return edit


def replaced(number: int, make: Callable[[Path], Any]) -> Callable[[Path], None]:
    def edit(directory: Path) -> None:
        file = sorted(directory.glob("*.safetensors"))[number]
        file.unlink()
        make(file)

    return edit


UP = "layers.1.up.weight"
ONE, TWO = "model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors"
Kinds = type[Exception] | tuple[type[Exception], ...]
SETS: list[tuple[Callable[[Path], None], Kinds]] = [
    (replaced(1, lambda file: None), ShardMismatch),
    (replaced(1, os.mkfifo), UnsafePath),
    (replaced(1, os.mkdir), UnsafePath),
    (replaced(1, lambda file: file.symlink_to(os.devnull)), UnsafePath),
    (replaced(1, lambda file: file.write_bytes(b"")), FileError),
    (bytes_of(1, lambda content: content[:-1]), FileError),
    (bytes_of(1, lambda content: content + b"\0"), FileError),
    (bytes_of(1, lambda content: content[:100]), FileError),
    (bytes_of(1, lambda content: b"\xff" * 8 + content[8:]), FileError),
    (bytes_of(1, lambda content: content.replace(b'"F16"', b'"F99"')), FileError),
    (bytes_of(1, lambda content: content.replace(b"up", b"do", 1)), ShardMismatch),
    (rewrite(1, lambda t: {**t, "layers.0.up.weight": np.zeros((16, 4))}), ShardMismatch),
    (rewrite(1, lambda t: {**t, "more": np.zeros(2)}), ShardMismatch),
    (rewrite(1, lambda t: {UP: t[UP]}), ShardMismatch),
    (rewrite(1, lambda t: {**t, UP: np.zeros((16, 5))}), StalePlan),
    (rewrite(1, lambda t: {**t, UP: np.zeros((15, 4))}), StalePlan),
    (rewrite(1, lambda t: {**t, UP: np.zeros((8, 4))}), StalePlan),
    (rewrite(1, lambda t: {**t, UP: np.zeros(64)}), StalePlan),
    (replaced(0, lambda file: None), ShardMismatch),
    (replaced(2, lambda file: None), ShardMismatch),
    (replaced(1, lambda file: file.write_bytes(file.with_name(ONE).read_bytes())), ShardMismatch),
    (replaced(1, lambda file: file.write_text("{}")), FileError),
    (replaced(1, lambda file: file.symlink_to(file)), (OSError, FileError)),
    (bytes_of(1, lambda content: content[:8] + b" " + content[9:]), FileError),
    (bytes_of(1, lambda content: b"\0" * 8 + content[8:]), FileError),
    (bytes_of(1, lambda content: content.replace(b"[16,4]", b"[16,5]")), FileError),
    (bytes_of(1, lambda content: content.replace(b"[0,128]", b"[0,127]")), FileError),
    (bytes_of(1, lambda content: content.replace(b"[0,128]", b"[1,128]")), FileError),
    (bytes_of(1, lambda content: content.replace(b"down", b"also")), ShardMismatch),
    (rewrite(0, lambda t: {}), ShardMismatch),
    (map_to(UP, ONE), ShardMismatch),
    (map_to(UP, "other.safetensors"), ShardMismatch),
    (map_to("more", TWO), ShardMismatch),
    (edit_index(lambda table: table["weight_map"].pop(UP)), ShardMismatch),
    (edit_index(lambda table: table["weight_map"].clear()), StalePlan),
    (edit_index(lambda table: table.pop("weight_map")), FileError),
    (edit_index(lambda table: table.update(weight_map=[1])), FileError),
    (edit_index(lambda table: table["weight_map"].update({UP: 3})), FileError),
    (lambda d: (d / INDEX).write_text("[]") and None, FileError),
    (lambda d: (d / INDEX).write_text('{"weight_map":{"a":"x","a":"y"}}') and None, FileError),
    (lambda d: (d / INDEX).write_text("[" * 100_000) and None, FileError),
    (lambda d: (d / INDEX).write_bytes(b"\xff\xfe{}") and None, FileError),
    (lambda d: os.truncate(d / INDEX, 1 << 40), FileError),
    (lambda d: (d / "other.safetensors.index.json").write_text("{}") and None, PlancError),
]


@pytest.mark.promise("R13 shards")
@pytest.mark.parametrize(("edit", "kind"), SETS)
def test_a_set_of_shards_that_is_wrong_is_refused_before_there_is_output(
    tmp_path: Path, edit: Callable[[Path], None], kind: Kinds
) -> None:
    sharded(tmp_path / "in")
    edit(tmp_path / "in")
    with pytest.raises(kind):
        planc.apply_files(PLAN, tmp_path / "in", tmp_path / "out", keep_removed=tmp_path / "kept")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


HOSTILE = [
    "",
    ".",
    "..",
    "../secret.safetensors",
    "/etc/passwd",
    "/etc/passwd.safetensors",
    "a/b.safetensors",
    "./a.safetensors",
    "a/../../b.safetensors",
    "..\\secret.safetensors",
    "\\\\host\\share\\a.safetensors",
    "C:\\a.safetensors",
    "C:a.safetensors",
    "a\0.safetensors",
    "a\n.safetensors",
    "a\x1b.safetensors",
    "a\x7f.safetensors",
    ".hidden.safetensors",
    "~/a.safetensors",
    "file:///etc/passwd.safetensors",
    "http://host/a.safetensors",
    "a.safetensors/",
    "a.safetensors ",
    "a.safetensors\0",
    "a.bin",
    "a.pt",
    "a",
    "con.safetensors",
    "NUL.safetensors",
    "com1.safetensors",
    "lpt9.x.safetensors",
    "a*.safetensors",
    "a?.safetensors",
    "a<b>.safetensors",
    'a".safetensors',
    "a|b.safetensors",
    "x" * 300 + ".safetensors",
    "\ud800.safetensors",
    "/dev/stdin",
    "/proc/self/mem",
    "MODEL-00002-of-00003.safetensors",
]


@pytest.mark.promise("R14 names")
@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_a_shard_cannot_be_named_elsewhere(tmp_path: Path, name: str) -> None:
    """R14: nothing outside the directory is opened, by the interpreter's own report."""
    sharded(tmp_path / "in")
    map_to(UP, name)(tmp_path / "in")
    opened: list[str] = []
    listen(opened)
    try:
        with pytest.raises((UnsafePath, FileError)):
            find_shards(tmp_path / "in")
    finally:
        listen(None)
    assert [path for path in opened if not path.startswith(str(tmp_path / "in"))] == []


_heard: list[list[str] | None] = [None]


def _hook(event: str, args: Any) -> None:
    if event == "open" and _heard[0] is not None and isinstance(args[0], str | os.PathLike):
        _heard[0].append(os.fspath(args[0]))


sys.addaudithook(_hook)


def listen(into: list[str] | None) -> None:
    _heard[0] = into
