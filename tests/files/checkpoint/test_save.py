"""Claims of saving: which files there are, what each says of itself, and what is refused before any
of them is written.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import planc
from planc.errors import LimitExceeded, PlancError, UnsafePath
from planc.files.checkpoint.differences import transient_names
from planc.files.disk.limits import Limits
from planc.files.formats import encode_plan
from planc.files.formats.checkpoint import decode_part
from planc.files.tensors.reader import read_header
from tests.files.checkpoint.small import INPUT, PLAN, Small, pruned, small


def extras(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("*.planc-extra"))


def test_every_file_says_that_its_tensors_are_torchs(tmp_path: Path) -> None:
    planc.save(tmp_path / "net", pruned(), PLAN, shard_size=20)
    files = sorted(path for path in (tmp_path / "net").iterdir() if path.suffix != ".json")
    assert len(files) == 5
    for path in files:
        assert read_header(path).metadata["format"] == "pt"
        assert read_header(path).metadata.keys() == {"format", "planc"}
    for path in files:
        if path.name == "model-00001-of-00004.safetensors":  # which has the record
            continue
        part = decode_part(read_header(path).metadata)
        assert part.source == b""
        assert {name for name, _ in part.tensors} == {e.name for e in read_header(path).entries}


def test_shards_have_the_names_and_the_index_that_other_tools_know(tmp_path: Path) -> None:
    def named() -> Small:
        model = small()
        model.register_buffer("größe", torch.zeros(1))
        return model

    plan = planc.compile(named(), INPUT, ratio=0.5)
    planc.save(tmp_path / "net", planc.apply(plan, named()), plan, shard_size=1)
    text = (tmp_path / "net" / "model.safetensors.index.json").read_text()
    held = {
        entry.name: path.name
        for path in (tmp_path / "net").glob("*.safetensors")
        for entry in read_header(path).entries
    }
    assert set(held.values()) == {f"model-{i:05}-of-00006.safetensors" for i in range(1, 7)}
    assert held.keys() == named().state_dict().keys()
    index = {"metadata": {"total_size": 60}, "weight_map": dict(sorted(held.items()))}
    assert text == json.dumps(index, indent=2, ensure_ascii=False) + "\n"


def test_the_extra_file_is_named_by_what_is_in_it(tmp_path: Path) -> None:
    """So that no file of another checkpoint ever has its name."""

    def made(name: str, value: float, directory: str) -> str:
        model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        model.register_buffer(name, torch.tensor(value), persistent=False)
        plan = planc.compile(model, INPUT, ratio=0.5)
        (tmp_path / directory).mkdir()
        planc.save(tmp_path / directory / "net.safetensors", planc.apply(plan, model), plan)
        (found,) = extras(tmp_path / directory)
        return found

    first = made("a", 1.0, "first")
    assert re.fullmatch(r"net-[0-9a-f]{16}\.planc-extra", first)
    assert made("a", 1.0, "same") == first
    assert made("b", 1.0, "other name") != first
    assert made("a", 2.0, "other value") != first


def test_saving_again_removes_the_extra_file_that_it_had_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "n[e]t.safetensors"
    planc.save(path, pruned(), PLAN)
    (first,) = extras(tmp_path)
    others = [
        "n[e]t-0123.planc-extra",
        "n[e]t-00112233445566778.planc-extra",
        "n[e]t-copy-of-yesterday.planc-extra",
        "net-0011223344556677.planc-extra",
    ]
    for name in others:
        (tmp_path / name).touch()
    planc.save(path, pruned(), PLAN)
    assert extras(tmp_path) == sorted([first, *others])
    model = pruned()
    model.steps.add_(1)
    planc.save(path, model, PLAN)
    (second,) = set(extras(tmp_path)) - set(others)
    assert second != first
    assert planc.load(path, small()).steps.item() == 2


def test_an_extra_file_that_someone_else_removed_meanwhile_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def seen(self: Path, pattern: str) -> Iterator[Path]:
        yield self / "small-0011223344556677.planc-extra"

    monkeypatch.setattr(Path, "glob", seen)
    planc.save(tmp_path / "small.safetensors", pruned(), PLAN)
    assert type(planc.load(tmp_path / "small.safetensors", small())) is Small


def test_a_link_is_followed_to_the_file_that_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "net.safetensors").symlink_to(tmp_path / "store" / "real.safetensors")
    planc.save(tmp_path / "net.safetensors", pruned(), PLAN)
    assert (tmp_path / "net.safetensors").is_symlink()
    assert (tmp_path / "store" / "real.safetensors").is_file()
    assert [name.partition("-")[0] for name in extras(tmp_path / "store")] == ["real"]


def test_the_plan_is_written_out_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is most of the record, which is made several times until its size is known."""
    count = 0

    def counted(plan: planc.Plan, *, limits: Limits) -> bytes:
        nonlocal count
        count += 1
        return encode_plan(plan, limits=limits)

    monkeypatch.setattr(sys.modules[planc.save.__module__], "encode_plan", counted)
    monkeypatch.setattr("planc.files.formats.checkpoint.encode_plan", counted)
    planc.save(tmp_path / "a.safetensors", pruned(), PLAN)
    assert count == 1


def test_the_optimiser_is_under_a_name_that_is_plancs_own(tmp_path: Path) -> None:
    model = pruned()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    planc.save(tmp_path / "a.safetensors", model, PLAN, optimizer=optimizer, metadata={"z": 1})
    assert [name for name, _ in planc.inspect(tmp_path / "a.safetensors").metadata] == [
        "z",
        "planc.optimizer",
    ]


class Tied(Small):
    """A parameter and a buffer with two names each; a state dict has those of ``held`` only."""

    def __init__(self, held: str) -> None:
        super().__init__()
        self.held = held
        self.first = self.second = nn.Parameter(torch.zeros(1))
        self.register_buffer("one", torch.zeros(1))
        self.register_buffer("two", self.one)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        state = super().state_dict(*args, **kwargs)
        return {n: t for n, t in state.items() if self.held == "all" or "." in n}


def test_of_a_tensor_with_several_names_the_first_is_named(tmp_path: Path) -> None:
    plan = planc.compile(Tied("some").eval(), INPUT, ratio=0.5)
    with pytest.raises(PlancError, match=r"^first: not in the model's state_dict"):
        planc.save(tmp_path / "a.safetensors", planc.apply(plan, Tied("some").eval()), plan)
    plan = planc.compile(Tied("all").eval(), INPUT, ratio=0.5)
    model = planc.apply(plan, Tied("all").eval())
    model.one = model.two = torch.zeros(1, dtype=torch.complex128)
    with pytest.raises(PlancError, match=r"^one: safetensors has no torch\.complex128"):
        planc.save(tmp_path / "a.safetensors", model, plan)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a*.safetensors", "a:b.safetensors", ".a.safetensors"])
def test_a_name_that_no_record_may_have_is_refused(tmp_path: Path, name: str) -> None:
    """It would be written, and never be read."""
    with pytest.raises(UnsafePath, match=r"is not the plain name of a \.safetensors file"):
        planc.save(tmp_path / name, pruned(), PLAN)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("limits", "words"), [(Limits(groups=0), "groups"), (Limits(record=99), "record")]
)
def test_limits_hold_for_the_plan_and_the_record(
    tmp_path: Path, limits: Limits, words: str
) -> None:
    with pytest.raises(LimitExceeded, match=f"exceeds the limit of .* {words}"):
        planc.save(tmp_path / "a.safetensors", pruned(), PLAN, limits=limits)
    assert list(tmp_path.iterdir()) == []


def test_buffers_that_a_state_dict_leaves_out_have_all_their_names() -> None:
    """A module that stands in two places has its buffers in both."""
    inner = nn.Linear(2, 2)
    inner.register_buffer("steps", torch.zeros(1), persistent=False)
    model = nn.Sequential(inner, inner)
    model.register_buffer("scale", torch.zeros(1), persistent=False)
    model.register_buffer("kept", torch.zeros(1))
    assert sorted(transient_names(model)) == ["0.steps", "1.steps", "scale"]
