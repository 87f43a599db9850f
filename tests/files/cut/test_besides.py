"""What lies beside the shards, and what is refused before there is output: all by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import planc
from planc.errors import LimitExceeded, MalformedFile, PlancError, ShardMismatch, StalePlan
from planc.files.cut.besides import copy_besides, copy_index
from planc.files.cut.configuration import FILE, described, describes
from planc.files.disk.limits import Limits
from planc.files.tensors.header import place
from planc.files.tensors.indexing import write_index
from planc.files.tensors.shards import Index, find_shards
from planc.ir.groups import Member, Run
from planc.plan.plan import AttributeChange, ModuleSpec, Plan, PlanGroup, TensorSpec
from tests.support.strategies import complete


def plan_of(*changes: tuple[str, Any, Any], target: str = "module") -> Plan:
    """Removes two of four rows of ``w``, and changes fields of the configuration."""
    group = PlanGroup("w:0", "channels", 4, 1, (Member("w", 0, (Run(0, 4, 0, 1),)),), "", (1, 2))
    tensors = (TensorSpec(("w",), (4, 3), "parameter"), TensorSpec(("v",), (2,), "parameter"))
    fields = tuple(sorted((f"config.{name}", before) for name, before, _ in changes))
    modules = (ModuleSpec("", fields),)
    made = tuple(AttributeChange("", f"config.{n}", b, a) for n, b, a in changes)
    return complete(tensors, modules, (group,), made).replace(target=target)


WHOLE = {"w": np.arange(12, dtype=np.int32).reshape(4, 3), "v": np.zeros(2, np.int32)}


# -- indices --------------------------------------------------------------------------------------

ENTRIES = place([("a", "F32", (2, 3)), ("b", "U8", (5,))])


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        ({}, {}),
        ({"metadata": {"total_size": 9}}, {"metadata": {"total_size": 29}}),
        (
            {"metadata": {"total_parameters": 9, "note": "x"}, "more": [1]},
            {"metadata": {"total_parameters": 11, "note": "x"}, "more": [1]},
        ),
        ({"metadata": {}}, {"metadata": {}}),
        ({"metadata": [1]}, {"metadata": [1]}),
    ],
)
def test_an_index_keeps_all_but_its_totals(
    rest: dict[str, Any], expected: dict[str, Any], tmp_path: Path
) -> None:
    shards = {"b": "2.safetensors", "a": "1.safetensors"}
    write_index(tmp_path, Index("i.json", shards, rest), ENTRIES)
    text = (tmp_path / "i.json").read_text()
    assert text == json.dumps({**expected, "weight_map": shards}, indent=2) + "\n"


def test_an_index_is_copied_as_it_stands_or_made(tmp_path: Path) -> None:
    source, target = tmp_path / "from", tmp_path / "to"
    source.mkdir()
    target.mkdir()
    save_file(WHOLE, source / "a.safetensors")
    text = '{"weight_map":{"v":"a.safetensors","w":"a.safetensors"},"metadata":{"total_size":1}}'
    (source / "m.safetensors.index.json").write_text(text)
    found = find_shards(source)
    copy_index(found, target, Limits(index=len(text)))
    assert (target / "m.safetensors.index.json").read_text() == text
    with pytest.raises(LimitExceeded):
        copy_index(found, target, Limits(index=len(text) - 1))
    (source / "m.safetensors.index.json").unlink()
    copy_index(found, target, Limits())
    made = json.loads((target / "m.safetensors.index.json").read_text())
    assert made == {
        "metadata": {"total_size": 56},
        "weight_map": {"v": "a.safetensors", "w": "a.safetensors"},
    }


def test_names_in_an_index_stay_readable(tmp_path: Path) -> None:
    write_index(tmp_path, Index("i.json", {"größe": "1.safetensors"}, {}), ENTRIES)
    assert "größe" in (tmp_path / "i.json").read_text(encoding="utf-8")


# -- neighbours -----------------------------------------------------------------------------------


def test_neighbours_are_copied_and_weights_and_hidden_files_are_not(tmp_path: Path) -> None:
    source, target = tmp_path / "from", tmp_path / "to"
    (source / "folder").mkdir(parents=True)
    target.mkdir()
    copied = {"tokenizer.json": b"{}", "LICENSE": b"x" * 100, "empty.txt": b""}
    left = (".hidden", "a.safetensors", "a.bin", "a.pt", "a.safetensors.index.json")
    for name, content in copied.items():
        (source / name).write_bytes(content)
    for name in left:
        (source / name).write_bytes(b"weights")
    (source / "link.txt").symlink_to(source / "LICENSE")
    (source / "config.json").write_text("old")
    copy_besides(source, target, {"config.json": b"new", "made.txt": b"1"})
    found = {path.name: path.read_bytes() for path in target.iterdir()}
    assert found == copied | {"link.txt": b"x" * 100, "config.json": b"new", "made.txt": b"1"}
    assert not (target / "link.txt").is_symlink()


# -- configurations -------------------------------------------------------------------------------


def test_a_plan_that_changes_no_field_leaves_the_text_as_it_is() -> None:
    assert not describes(plan_of())
    assert described(b"not JSON", plan_of(), "here") == b"not JSON"


def test_fields_are_set_where_they_are_and_the_rest_stays() -> None:
    plan = plan_of(("a.b", 4, 2), ("sizes", (4, (1, 2)), (2, (1, 2))), ("width", 4, 2))
    assert describes(plan)
    text = json.dumps({"z": "é", "width": 4, "a": {"b": 4, "c": None}, "sizes": [4, [1, 2]]})
    made = described(text.encode(), plan, "here")
    assert json.loads(made) == {
        "z": "é",
        "width": 2,
        "a": {"b": 2, "c": None},
        "sizes": [2, [1, 2]],
    }
    assert list(json.loads(made)) == ["z", "width", "a", "sizes"]
    assert made.decode().endswith("}\n")
    assert made.decode().startswith('{\n  "z": "é",\n  "width": 2,\n')
    absent = described(b"{}", plan, "here")
    assert json.loads(absent) == {"a": {"b": 2}, "sizes": [2, [1, 2]], "width": 2}


def test_numbers_that_are_no_sizes_stay() -> None:
    text = b'{"eps": 1e-05, "width": 4, "ids": [-1, 2.5, null]}'
    made = json.loads(described(text, plan_of(("width", 4, 2)), "here"))
    assert made == {"eps": 1e-05, "width": 2, "ids": [-1, 2.5, None]}


def test_only_fields_of_the_configuration_of_the_model_itself_are_set() -> None:
    plan = plan_of(("width", 4, 2))
    others = (
        AttributeChange("layer", "config.width", 4, 3),
        AttributeChange("", "out_features", 4, 2),
        AttributeChange("", "width", 5, 6),
    )
    both = plan.replace(attributes=(*others, *plan.attributes))
    assert json.loads(described(b'{"width": 4}', both, "here")) == {"width": 2}
    assert described(b"not JSON", plan.replace(attributes=others), "here") == b"not JSON"
    assert not describes(plan.replace(attributes=others[1:]))


def test_a_plan_that_cuts_nothing_is_described_by_what_is_there() -> None:
    plan = plan_of()
    assert not describes(plan)
    [group] = plan.groups
    whole = replace(group, removed=())
    assert describes(complete(plan.tensors, plan.modules, (whole,), ()))


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        (
            '{"a": {"b": 5}}',
            StalePlan,
            "here: a.b is 5, the plan was made for 4; get the config.json",
        ),
        ('{"a": {"b": "4"}}', StalePlan, "here: a.b is '4', the plan was made for 4"),
        ('{"a": [4]}', StalePlan, "here: a is [4], the plan has fields in it"),
        ('{"a": {"b": 4, "b": 4}}', MalformedFile, "here"),
        ("[]", MalformedFile, "here"),
    ],
)
def test_a_configuration_of_another_model_is_refused(
    text: str, error: type[PlancError], words: str
) -> None:
    with pytest.raises(error) as caught:
        described(text.encode(), plan_of(("a.b", 4, 2)), "here")
    assert words in str(caught.value)


@pytest.mark.parametrize("with_file", [False, True])
def test_a_result_says_whether_its_configuration_describes_it(
    with_file: bool, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    save_file(WHOLE, tmp_path / "in" / "model.safetensors")
    if with_file:
        (tmp_path / "in" / FILE).write_text('{"width": 4}')
    changing = planc.apply_files(plan_of(("width", 4, 2)), tmp_path / "in", tmp_path / "changing")
    keeping = planc.apply_files(plan_of(), tmp_path / "in", tmp_path / "keeping")
    assert (changing.described, keeping.described) == (True, not with_file)
    if with_file:
        assert json.loads((tmp_path / "changing" / FILE).read_text()) == {"width": 2}
        assert (tmp_path / "keeping" / FILE).read_text() == '{"width": 4}'
    assert load_file(tmp_path / "changing" / "model.safetensors")["w"].tolist() == [
        [0, 1, 2],
        [9, 10, 11],
    ]


# -- what is refused before there is output -------------------------------------------------------


def test_a_plan_for_a_graph_needs_the_model(tmp_path: Path) -> None:
    save_file(WHOLE, tmp_path / "a.safetensors")
    with pytest.raises(
        PlancError, match="the plan is for a rewritten graph, which only the model's"
    ):
        planc.apply_files(plan_of(target="graph"), tmp_path / "a.safetensors", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_elements_smaller_than_a_byte_are_not_cut(tmp_path: Path) -> None:
    header = (
        b'{"v":{"dtype":"I32","shape":[2],"data_offsets":[0,8]},'
        b'"w":{"dtype":"F4","shape":[4,3],"data_offsets":[8,14]}}'
    )
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(14))
    with pytest.raises(PlancError, match=r"w: F4 has elements of 4 bits, which cannot be cut"):
        planc.apply_files(plan_of(), path, tmp_path / "b.safetensors")
    assert not (tmp_path / "b.safetensors").exists()


def kept(folder: Path) -> tuple[Path, Path]:
    """A pruned file, and the values that were removed from it."""
    save_file(WHOLE, folder / "a.safetensors")
    planc.apply_files(
        plan_of(), folder / "a.safetensors", folder / "b.safetensors", keep_removed=folder / "kept"
    )
    return folder / "b.safetensors", folder / "kept"


def only(folder: Path) -> Path:
    (path,) = folder.glob("*.safetensors")
    return path


@pytest.mark.parametrize(
    ("spoil", "error", "words"),
    [
        (
            lambda b, k: save_file({"w": np.zeros(6, np.int32)}, only(k)),
            MalformedFile,
            "not what planc apply --keep-removed wrote",
        ),
        (
            lambda b, k: (k / "more.safetensors").write_bytes(only(k).read_bytes()),
            ShardMismatch,
            "holds 2 shards",
        ),
        (lambda b, k: only(k).unlink(), ShardMismatch, "holds 0 shards"),
        (
            lambda b, k: save_file(
                {"w": np.zeros((2, 3), np.int16), "v": np.zeros(2, np.int32)}, b
            ),
            ShardMismatch,
            "its values of w do not belong to this checkpoint",
        ),
        (
            lambda b, k: save_file({"v": np.zeros(2, np.int32)}, b),
            StalePlan,
            "is not what the plan",
        ),
    ],
)
def test_removed_values_that_do_not_belong_are_refused(
    spoil: Callable[[Path, Path], object],
    error: type[PlancError],
    words: str,
    tmp_path: Path,
) -> None:
    smaller, removed = kept(tmp_path)
    assert planc.restore_files(smaller, removed, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (
        tmp_path / "a.safetensors"
    ).read_bytes()
    spoil(smaller, removed)
    with pytest.raises(error, match=words):
        planc.restore_files(smaller, removed, tmp_path / "c.safetensors")
    assert not (tmp_path / "c.safetensors").exists()


def test_the_limits_that_are_given_hold_for_all_that_is_read(tmp_path: Path) -> None:
    """A tensor of more dimensions than are read by default, in one file and in several."""
    shape, wide = (4, *(1,) * 31, 3), Limits(rank=33)
    group = PlanGroup("w:0", "channels", 4, 1, (Member("w", 0, (Run(0, 4, 0, 1),)),), "", (1, 2))
    tensors = (TensorSpec(("w",), shape, "parameter"), TensorSpec(("v",), (2,), "parameter"))
    plan = complete(tensors, (), (group,), ())
    (tmp_path / "in").mkdir()
    whole = WHOLE | {"w": WHOLE["w"].reshape(shape)}
    for name, array in whole.items():
        save_file({name: array}, tmp_path / "in" / f"{name}.safetensors")
    table = {"weight_map": {name: f"{name}.safetensors" for name in whole}}
    (tmp_path / "in" / "m.safetensors.index.json").write_text(json.dumps(table))
    kept, back = tmp_path / "kept", tmp_path / "back"
    with pytest.raises(LimitExceeded):
        planc.apply_files(plan, tmp_path / "in", tmp_path / "out")
    planc.apply_files(plan, tmp_path / "in", tmp_path / "out", keep_removed=kept, limits=wide)
    assert load_file(tmp_path / "out" / "w.safetensors")["w"].flatten().tolist() == [
        0, 1, 2, 9, 10, 11,
    ]  # fmt: skip
    with pytest.raises(LimitExceeded):
        planc.restore_files(tmp_path / "out", kept, back)
    assert planc.restore_files(tmp_path / "out", kept, back, limits=wide)
    assert load_file(back / "w.safetensors")["w"].shape == shape


def test_a_checkpoint_with_more_than_its_state_is_pruned_by_its_model(tmp_path: Path) -> None:
    import torch
    from torch import nn

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(3, 4), nn.Linear(4, 2)
            self.register_buffer("steps", torch.ones(()), persistent=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.down(torch.relu(self.up(x))) * self.steps
            return y

    model = Counting()
    first = planc.compile(model, torch.zeros(1, 3), ratio=0.25)
    smaller = planc.apply(first, model)
    planc.save(tmp_path / "a.safetensors", smaller, first)
    second = planc.compile(smaller, torch.zeros(1, 3), ratio=0.5)
    with pytest.raises(PlancError, match=r"has buffers or an optimizer in a \.planc-extra file"):
        planc.apply_files(second, tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert not (tmp_path / "b.safetensors").exists()
