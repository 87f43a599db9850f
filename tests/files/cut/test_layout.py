"""Claims of what the headers of a result say: all that :func:`planc.files.tensors.opened` looks
at is there and right, whatever shard it is in; a second plan makes the record one of the original.
"""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import planc
from planc.errors import LimitExceeded, PlancError
from planc.files.cut.layout import lay_out
from planc.files.cut.shard import Done
from planc.files.disk.limits import DEFAULT, Limits
from planc.files.formats import checkpoint as checkpoint_codec
from planc.files.formats import encode_plan
from planc.files.formats.checkpoint import (
    KEY,
    Checkpoint,
    StoredModule,
    StoredShard,
    StoredTensor,
    decode_part,
    encode_checkpoint,
)
from planc.files.tensors.header import aligned, place, write_header
from planc.files.tensors.opened import open_checkpoint
from planc.files.tensors.reader import open_tensors, read_header
from planc.files.tensors.shards import find_shards
from planc.ir.groups import Member, Run
from planc.plan.compose import compose
from planc.plan.plan import AttributeChange, ModuleSpec, Plan, PlanGroup, TensorSpec
from tests.support.strategies import complete, cut_array

WHOLE: dict[str, Any] = {
    "up": np.arange(12, dtype=np.int16).reshape(4, 3),
    "bias": np.arange(4, dtype=np.int8),
    "down": np.arange(20, dtype=np.float32).reshape(5, 4),
    "same": np.arange(3, dtype=np.int8),
}
FILES = {"1.safetensors": ("up", "bias"), "2.safetensors": ("down",), "3.safetensors": ("same",)}


def plan_of(size: int = 4, removed: tuple[int, ...] = (1, 2), out: int = 1) -> Plan:
    """Removes channels of ``up``, ``bias`` and ``down``; ``same`` has two names."""
    places = (("up", 0), ("bias", 0), ("down", 1))
    members = tuple(Member(name, dim, (Run(0, size, 0, 1),)) for name, dim in places)
    group = PlanGroup("up:0", "channels", size, 1, members, "", removed)
    tensors = (
        TensorSpec(("up",), (size, 3), "parameter"),
        TensorSpec(("bias",), (size,), "parameter"),
        TensorSpec(("down",), (5, size), "parameter"),
        TensorSpec(("other", "same"), (3,), "parameter"),
    )
    left = size - len(removed)
    modules = (ModuleSpec("up", (("kinds", ("a", 1)), ("out_features", size))),)
    changes = (AttributeChange("up", "out_features", size, left),)
    return complete(tensors, modules, (group,), changes)


PLAN = plan_of()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for file, names in FILES.items():
        held = {name: WHOLE[name] for name in names}
        save_file(held, tmp_path / "in" / file, {"format": "pt", "of": file})
    holder = {name: file for file, names in FILES.items() for name in names}
    (tmp_path / "in" / "m.safetensors.index.json").write_text(json.dumps({"weight_map": holder}))
    return tmp_path / "in"


def test_the_result_is_a_checkpoint_whose_files_belong_together(
    source: Path, tmp_path: Path
) -> None:
    planc.apply_files(PLAN, source, tmp_path / "out")
    opened = open_checkpoint(tmp_path / "out" / "1.safetensors")
    assert opened.paths == tuple(tmp_path / "out" / file for file in FILES)
    record = opened.checkpoint
    assert (record.plan, record.modules) == (PLAN, ())
    assert [shard.name for shard in record.shards] == list(FILES)
    assert {t.names: t.shard for t in record.tensors} == {
        ("up",): 0,
        ("bias",): 0,
        ("down",): 1,
        ("same", "other"): 2,
    }
    for tensor in record.tensors:
        with open_tensors(opened.paths[tensor.shard]) as file:
            entry = opened.places[tensor.names[0]]
            content = b"".join(map(bytes, file.chunks(entry, 1 << 10)))
        assert tensor.digest == sha256(content).digest()
        assert (tensor.dtype, tensor.shape, tensor.role) == (entry.dtype, entry.shape, "state")


def test_each_file_says_what_it_was_made_of(source: Path, tmp_path: Path) -> None:
    planc.apply_files(PLAN, source, tmp_path / "out")
    for file in FILES:
        header, old = (read_header(folder / file) for folder in (tmp_path / "out", source))
        assert {k: header.metadata[k] for k in ("format", "of")} == {"format": "pt", "of": file}
        specs = [(e.name, e.dtype, e.shape) for e in header.entries]
        assert header.entries == place(aligned(specs))
        if file != "1.safetensors":
            part = decode_part(header.metadata)
            assert part.plan == sha256(encode_plan(PLAN)).digest()
            assert part.source == old.digest
            assert [name for name, _ in part.tensors] == [e.name for e in header.entries]


def test_a_tie_of_which_both_names_are_there_is_none(source: Path, tmp_path: Path) -> None:
    save_file({"same": WHOLE["same"], "other": WHOLE["same"]}, source / "3.safetensors")
    index = source / "m.safetensors.index.json"
    table = json.loads(index.read_text())
    table["weight_map"]["other"] = "3.safetensors"
    index.write_text(json.dumps(table))
    planc.apply_files(PLAN, source, tmp_path / "out")
    record = open_checkpoint(tmp_path / "out").checkpoint
    names = {t.names for t in record.tensors}
    assert names == {("up",), ("bias",), ("down",), ("same",), ("other",)}


def test_a_record_within_the_limits_is_written_and_no_larger_one(source: Path) -> None:
    found = find_shards(source)
    record = len(lay_out(PLAN, found, DEFAULT).cutting[0].metadata[KEY])
    most = Limits(record=record // 4 * 3)
    layout = lay_out(PLAN, found, most)
    assert layout.limits == most
    assert {cutting.limits for cutting in layout.cutting} == {most}
    with pytest.raises(LimitExceeded, match="record"):
        lay_out(PLAN, found, Limits(record=100))
    with pytest.raises(LimitExceeded, match="units"):
        lay_out(PLAN, found, Limits(units=3))


def test_the_file_of_a_plan_is_made_once(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> bytes:
        raise AssertionError

    monkeypatch.setattr(checkpoint_codec, "encode_plan", never)
    layout = lay_out(PLAN, find_shards(source), DEFAULT)
    done = [Done(bytes(32), tuple((e.name, bytes(32)) for e in c.entries)) for c in layout.cutting]
    assert layout.first_header(done)
    with pytest.raises(LimitExceeded, match="record"):
        replace(layout, limits=Limits(record=1)).first_header(done)


def written(path: Path, plan: Plan, modules: tuple[StoredModule, ...], more: bool = False) -> Path:
    """A checkpoint of a plan, as saving a model writes it, in one file; none of the others is there
    if ``more`` is set.
    """
    arrays = {name: cut_array(array, plan.cuts.get(name)) for name, array in WHOLE.items()}
    kinds = {"int16": "I16", "int8": "I8", "float32": "F32"}
    specs = [(name, kinds[a.dtype.name], a.shape) for name, a in arrays.items()]
    entries = place(aligned(specs))
    tensors = tuple(
        StoredTensor((e.name,), e.dtype, e.shape, sha256(arrays[e.name].tobytes()).digest())
        for e in entries
    )
    bare = sha256(write_header(entries, {"format": "pt"})).digest()
    shards = [StoredShard(path.name, 0, bare)]
    if more:
        shards.append(StoredShard("a.planc-extra", 9, bytes(32)))
    raw = b""
    for _ in range(3):
        record = encode_checkpoint(Checkpoint(plan, modules, tensors, tuple(shards)))
        raw = write_header(entries, {"format": "pt", KEY: record})
        shards[0] = replace(shards[0], size=len(raw) + entries[-1].stop)
    path.write_bytes(raw + b"".join(arrays[e.name].tobytes() for e in entries))
    return path


def test_a_second_plan_makes_the_record_one_of_the_original(tmp_path: Path) -> None:
    modules = (
        StoredModule("", "Model", (("depth", 2),)),
        StoredModule("up", "Linear", (("in_features", 3), ("out_features", 2))),
        StoredModule("down", "Linear", (("in_features", 2), ("out_features", 5))),
    )
    source = written(tmp_path / "a.safetensors", PLAN, modules)
    assert open_checkpoint(source).checkpoint.plan == PLAN
    second = plan_of(2, (0,))
    planc.apply_files(second, source, tmp_path / "b.safetensors")
    record = open_checkpoint(tmp_path / "b.safetensors").checkpoint
    assert record.plan == compose(PLAN, second)
    assert record.modules == (
        modules[0],
        replace(modules[1], attributes=(("in_features", 3), ("out_features", 1))),
        modules[2],
    )
    assert load_file(tmp_path / "b.safetensors")["up"].tolist() == [[9, 10, 11]]
    with pytest.raises(LimitExceeded, match=f"^{source}: .* exceeds the limit of 1 tensors"):
        lay_out(second, find_shards(source), Limits(tensors=1))


def test_a_second_plan_finds_the_record_in_the_first_of_several_files(
    source: Path, tmp_path: Path
) -> None:
    planc.apply_files(PLAN, source, tmp_path / "out")
    second = plan_of(2, (0,))
    planc.apply_files(second, tmp_path / "out", tmp_path / "smaller")
    assert open_checkpoint(tmp_path / "smaller").checkpoint.plan == compose(PLAN, second)


def test_tensors_that_only_code_can_prune_are_refused(tmp_path: Path) -> None:
    source = written(tmp_path / "a.safetensors", PLAN, (), more=True)
    with pytest.raises(PlancError, match=r"a\.safetensors: has buffers or an optimizer in"):
        planc.apply_files(plan_of(2, (0,)), source, tmp_path / "b.safetensors")
    assert not (tmp_path / "b.safetensors").exists()
