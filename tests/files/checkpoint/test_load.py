"""Claims of loading: what it allocates and where, how it reads, and what it says of a checkpoint or
a model that does not fit.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import planc
from planc.errors import CorruptFile, LimitExceeded, MalformedFile, PlancError, VerificationError
from planc.files.checkpoint.load import Mode
from planc.files.disk.limits import Limits
from planc.files.formats.checkpoint import Checkpoint, encode_checkpoint
from planc.files.tensors.header import Header, write_header
from planc.files.tensors.reader import TensorFile, read_header
from tests.files.checkpoint.small import INPUT, PLAN, Small, pruned, small
from tests.support import blocks


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("saved") / "small.safetensors"
    planc.save(found, pruned(), PLAN)
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the state of an optimiser: a tensor of integers, and one in a tuple in a list."""
    model = pruned().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    model(INPUT + 1).sum().backward()
    optimizer.step()
    optimizer.param_groups[0]["rows"] = torch.arange(3)
    optimizer.param_groups[0]["pairs"] = [(1, torch.ones(2))]
    found = tmp_path_factory.mktemp("trained") / "small.safetensors"
    planc.save(found, model, PLAN, optimizer=optimizer)
    return found


def cut_files(tmp_path: Path, model: nn.Module, plan: planc.Plan = PLAN) -> Path:
    """A checkpoint of a state dict alone, so without buffers that are not persistent."""
    save_file(model.state_dict(), tmp_path / "whole.safetensors")
    planc.apply_files(plan, tmp_path / "whole.safetensors", tmp_path / "cut.safetensors")
    return tmp_path / "cut.safetensors"


def rewritten(path: Path, target: Path, change: Callable[[Checkpoint], Checkpoint]) -> None:
    """A copy of a checkpoint whose record is another one."""
    for file in path.parent.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    header, checkpoint, raw = read_header(path), change(planc.inspect(path)), b""
    while Header(header.entries, {}, raw).size != checkpoint.shards[0].size:
        first = replace(checkpoint.shards[0], size=Header(header.entries, {}, raw).size)
        checkpoint = replace(checkpoint, shards=(first, *checkpoint.shards[1:]))
        record = encode_checkpoint(checkpoint)
        raw = write_header(header.entries, {**header.metadata, "planc": record})
    (target / path.name).write_bytes(raw + path.read_bytes()[header.data :])


# -- what is allocated ----------------------------------------------------------------------------


def test_the_modes_are_those_that_are_named(path: Path) -> None:
    models = {"replay": small(seed=1), "verify": pruned(seed=1)}
    assert set(get_args(Mode)) == models.keys()
    for mode in get_args(Mode):
        assert torch.equal(planc.load(path, models[mode], mode)(INPUT), pruned()(INPUT))


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_everything_goes_to_the_device_that_is_named(
    path: Path, tmp_path: Path, device: str
) -> None:
    """Also a buffer that only the model has values of."""
    for file in (path, cut_files(tmp_path, small())):
        loaded = planc.load(file, small(), device=device)
        tensors = [*loaded.parameters(), *loaded.buffers()]
        assert {tensor.device.type for tensor in tensors} == {device}
        assert [tuple(tensor.shape) for tensor in tensors][:2] == [(2, 3), (2,)]


def test_without_a_device_tensors_go_where_the_models_are(path: Path, tmp_path: Path) -> None:
    loaded = planc.load(cut_files(tmp_path, small()), small())
    assert loaded.steps.item() == 1
    mixed = small()
    mixed.up.to("meta")  # which has no memory: what is loaded has
    assert planc.load(path, mixed).up.weight.device.type == "cpu"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_another_order_in_memory_is_filled_with_the_same_values(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    saved = pruned().to(dtype)
    planc.save(tmp_path / "a.safetensors", saved, PLAN)
    model = small()
    with torch.no_grad():
        model.up.weight = nn.Parameter(model.up.weight.t().contiguous().t())
    loaded = planc.load(tmp_path / "a.safetensors", model)
    assert loaded.up.weight.stride() == (1, 2)
    assert loaded.up.weight.dtype is dtype
    assert torch.equal(loaded.up.weight, saved.up.weight)


def test_a_complex_parameter_may_be_trained(tmp_path: Path) -> None:
    def phased() -> Small:
        model = small()
        model.phase = nn.Parameter(torch.tensor([1 + 2j]))
        return model

    plan = planc.compile(phased(), INPUT, ratio=0.5)
    planc.save(tmp_path / "a.safetensors", planc.apply(plan, phased()), plan)
    loaded = planc.load(tmp_path / "a.safetensors", phased())
    assert loaded.phase.requires_grad
    assert loaded.phase.tolist() == [1 + 2j]


def test_a_plain_attribute_without_values_is_named(path: Path) -> None:
    model = small()
    model.table = torch.zeros(2, device="meta")
    with pytest.raises(
        PlancError, match=r"^a tensor that is a plain attribute of a module: neither"
    ):
        planc.load(path, model)
    model.table = torch.arange(2)
    assert planc.load(path, model).table.tolist() == [0, 1]


class Sharing(Small):
    """Its copies hold the original's configuration, under another name."""

    def __init__(self) -> None:
        super().__init__()
        self.options = Options()

    def __deepcopy__(self, memo: dict[int, Any]) -> Sharing:
        made = Sharing()
        del made.options
        vars(made)["shared"] = self.options
        vars(made)["_modules"] = copy.deepcopy(self._modules, memo)
        return made


class Options:
    def __init__(self) -> None:
        self.width = 4


def test_an_object_that_a_copy_shares_is_named_as_the_copy_has_it(tmp_path: Path) -> None:
    model = Sharing().eval()
    plan = planc.compile(model, INPUT, ratio=0.5)
    file = cut_files(tmp_path, small(), plan)
    with pytest.raises(PlancError, match=r"shared \(Options\) of the copy is the original's"):
        planc.load(file, model)


# -- what is read ---------------------------------------------------------------------------------


@pytest.mark.long
def test_a_tensor_is_read_in_pieces_of_sixteen_mebibytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def large() -> Small:
        model = small()
        model.register_buffer("table", torch.zeros((16 << 20) + 3, dtype=torch.uint8))
        return model

    plan = planc.compile(large(), INPUT, ratio=0.5)
    planc.save(tmp_path / "a.safetensors", planc.apply(plan, large()), plan)
    read: list[tuple[int, int]] = []
    real = TensorFile.read_into

    def noted(self: TensorFile, entry: Any, start: int, into: Any) -> None:
        read.extend([(start, len(into))] if entry.name == "table" else [])
        real(self, entry, start, into)

    monkeypatch.setattr(TensorFile, "read_into", noted)
    planc.load(tmp_path / "a.safetensors", large())
    assert read == [(0, 16 << 20), (16 << 20, 3)]


def test_tensors_are_read_in_the_order_of_the_file(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[Path, int]] = []
    real = TensorFile.read_into

    def noted(self: TensorFile, entry: Any, start: int, into: Any) -> None:
        read.append((Path(self.path), entry.start))
        real(self, entry, start, into)

    monkeypatch.setattr(TensorFile, "read_into", noted)
    planc.load(trained, small())
    assert len(read) == 5
    assert read[:4] == sorted(read[:4])
    assert read[4][0].name.endswith(".planc-extra")


def test_a_damaged_tensor_is_named_with_both_digests(path: Path, tmp_path: Path) -> None:
    def other(checkpoint: Checkpoint) -> Checkpoint:
        tensors = tuple(
            replace(t, digest=bytes(range(32))) if t.name == "up.bias" else t
            for t in checkpoint.tensors
        )
        return replace(checkpoint, tensors=tensors)

    rewritten(path, tmp_path, other)
    with pytest.raises(
        CorruptFile,
        match=r"small\.safetensors: up\.bias: the bytes have digest [0-9a-f]{16}\.\.\., the record "
        r"lists 0001020304050607\.\.\.; the file is damaged",
    ):
        planc.load(tmp_path / path.name, small())
    assert type(planc.load(tmp_path / path.name, small(), check_digests=False)) is Small


def test_damage_of_the_optimiser_is_found_unless_told_not_to_look(
    trained: Path, tmp_path: Path
) -> None:
    rewritten(trained, tmp_path, lambda checkpoint: checkpoint)
    (extra,) = tmp_path.glob("*.planc-extra")
    content = bytearray(extra.read_bytes())
    entry = next(e for e in read_header(extra).entries if e.name.endswith("/rows"))
    content[read_header(extra).data + entry.start] ^= 1
    extra.write_bytes(content)
    with pytest.raises(CorruptFile, match="optimizer/param_groups/0/rows"):
        planc.load_optimizer(tmp_path / trained.name)
    found = planc.load_optimizer(tmp_path / trained.name, check_digests=False)
    assert found["param_groups"][0]["rows"].tolist() == [1, 1, 2]
    assert found["param_groups"][0]["rows"].dtype is torch.int64
    assert type(planc.load(tmp_path / trained.name, small())) is Small


def test_tensors_in_tuples_and_lists_of_an_optimiser_come_back_in_them(trained: Path) -> None:
    (found,) = planc.load_optimizer(trained)["param_groups"][0]["pairs"]
    assert type(found) is tuple
    assert found[0] == 1
    assert found[1].tolist() == [1, 1]


@pytest.mark.parametrize(
    "numbers",
    [
        ("dict", ("lr", ("type", "nothing"))),
        ("dict", "ab"),
        ("dict", 3),
        ("dict", ("a", 1, 2)),
        ("dict", (("list", "a"), 1)),
        ("size", "a"),
    ],
)
def test_the_state_of_an_optimiser_that_is_no_record_is_refused(
    trained: Path, tmp_path: Path, numbers: Any
) -> None:
    def other(checkpoint: Checkpoint) -> Checkpoint:
        return replace(checkpoint, metadata=(("planc.optimizer", numbers),))

    rewritten(trained, tmp_path, other)
    with pytest.raises(MalformedFile, match="is no value of the record"):
        planc.load_optimizer(tmp_path / trained.name)


def test_limits_hold_for_the_headers_and_can_be_raised(path: Path, tmp_path: Path) -> None:
    for limited in (
        lambda: planc.load(path, small(), limits=Limits(header=8)),
        lambda: planc.load_optimizer(path, limits=Limits(header=8)),
    ):
        with pytest.raises(LimitExceeded, match="header"):
            limited()

    def deep() -> Small:
        model = small()
        model.register_buffer("deep", torch.ones((1,) * 33))
        return model

    wide = Limits(rank=33)
    plan = planc.compile(deep(), INPUT, ratio=0.5)
    planc.save(tmp_path / "a.safetensors", planc.apply(plan, deep()), plan, limits=wide)
    assert planc.load(tmp_path / "a.safetensors", deep(), limits=wide).deep.sum() == 1
    with pytest.raises(LimitExceeded, match="33 exceeds the limit of 32 rank"):
        planc.load(tmp_path / "a.safetensors", deep())


# -- what is said ---------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 20, 21])
def test_differences_are_listed_one_a_line(path: Path, count: int) -> None:
    model = pruned()
    for i in range(count):
        model.add_module(f"extra{i:02}", nn.Identity())
    with pytest.raises(VerificationError) as caught:
        planc.load(path, model, "verify")
    lines = [
        f"  extra{i:02}: a torch.nn.modules.linear.Identity in the model, not in the checkpoint"
        for i in range(min(count, 20))
    ]
    assert str(caught.value).splitlines() == [
        f"{path}: the model is not the one that was saved, {count} differences:",
        *lines,
        *(["  and 1 more"] if count == 21 else []),
        "build the model as it was built for the checkpoint",
    ]


def test_a_checkpoint_without_some_blocks_is_loaded_into_the_original(tmp_path: Path) -> None:
    model, args = blocks.Stack(4).eval(), blocks.inputs()
    plan = planc.compile(model, args, remove={"blocks": [1]}, ratio=0.5)
    smaller = planc.apply(plan, model)
    planc.save(tmp_path / "a.safetensors", smaller, plan)
    loaded: Any = planc.load(tmp_path / "a.safetensors", blocks.Stack(4))
    assert len(loaded.blocks) == 3
    with torch.no_grad():
        assert torch.equal(loaded.eval()(*args), smaller(*args))
