"""R9: every file of every format version that was released still reads, and still gives the same;
R15: reading any of them runs no code.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgpack
import pytest
import torch
from safetensors.torch import load_file

import planc
from planc import errors
from planc.cli.report.plain import plan_json
from planc.files.formats import decode_plan, encode_plan
from planc.files.formats.envelope import unseal
from planc.files.tensors.opened import open_checkpoint
from tests.crash.test_crash import Net
from tests.scripts.promises import Goal
from tests.support.golden_files import ROOT, VERSIONS, malformed, others, outcome, plans
from tests.support.second_reader import read

GOLDEN: dict[str, dict[str, str]] = {
    f"{version}/{name}": entry
    for version in VERSIONS
    for name, entry in json.loads((ROOT / version / "manifest.json").read_text()).items()
}
PLANS = [name for name, entry in GOLDEN.items() if entry["gives"].startswith("plan ")]
MALFORMED = [name for name in GOLDEN if "/malformed/" in name]
OTHERS = [name for name in GOLDEN if "/masks/" in name or "/latency/" in name]
CHECKPOINTS = [
    f"{version}/checkpoints/{name}"
    for version in VERSIONS
    for name in ("single/net.safetensors", "sharded", "bfloat16/net.safetensors", "applied")
]


def test_no_golden_file_was_changed_or_forgotten() -> None:
    found = {
        path.relative_to(ROOT).as_posix(): sha256(path.read_bytes()).hexdigest()
        for version in VERSIONS
        for path in (ROOT / version).rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }
    assert found == {name: entry["sha256"] for name, entry in GOLDEN.items()}
    for version in VERSIONS:
        assert sum(name.startswith(version) for name in PLANS) >= 10
        assert sum(name.startswith(version) for name in MALFORMED) >= 20
        assert f"{version}/malformed/future.planc" in MALFORMED


@pytest.mark.promise("R9 golden")
@pytest.mark.parametrize("name", [*PLANS, *MALFORMED, *OTHERS])
def test_a_golden_file_gives_what_it_gave(name: str) -> None:
    assert outcome(ROOT / name) == GOLDEN[name]["gives"]


def test_malformed_files_are_refused_by_many_classes() -> None:
    kinds = Counter(GOLDEN[name]["gives"] for name in MALFORMED)
    assert all(issubclass(getattr(errors, kind), errors.FileError) for kind in kinds)
    assert len(kinds) >= 6


@pytest.mark.parametrize("name", PLANS)
def test_reading_and_writing_a_golden_plan_gives_its_bytes(name: str) -> None:
    plan = planc.load_plan(ROOT / name)
    content = encode_plan(plan)
    assert decode_plan(content) == plan
    if name.startswith("v2/"):
        assert content == (ROOT / name).read_bytes()
        return
    assert content[12] == 2
    old = msgpack.unpackb(unseal(b"planc/plan", (ROOT / name).read_bytes()))
    new = msgpack.unpackb(unseal(b"planc/plan", content))
    assert new.pop("outputs") == []
    assert all(group.pop("scores") is None for group in new["groups"])
    for entry in new["provenance"]:
        added = [entry.pop(n) for n in ("weights", "origin", "statistics", "decisions")]
        assert added == [None, "", None, []]
    assert new == old


def test_reading_and_writing_golden_masks_and_tables_gives_their_bytes(tmp_path: Path) -> None:
    seen = Counter[str]()
    for name in OTHERS:
        if "malformed" in name:
            assert issubclass(getattr(errors, GOLDEN[name]["gives"]), errors.FileError)
            continue
        path, again = ROOT / name, tmp_path / "again"
        if path.suffix == ".masks":
            planc.save_masks(planc.load_masks(path), again)
            assert planc.load_masks(again) == planc.load_masks(path)
        else:
            planc.save_latency(planc.load_latency(path), again)
        if not name.startswith("v1/masks/"):
            assert again.read_bytes() == path.read_bytes()
        seen[path.suffix] += 1
    assert seen == {".masks": 6, ".latency": 2}


@pytest.mark.parametrize("name", PLANS)
def test_a_second_reader_finds_the_same_plan(name: str) -> None:
    body = read(ROOT / name)
    plain = plan_json(planc.load_plan(ROOT / name))
    for field in ("target", "attributes", "inputs", "outputs", "provenance", "requires"):
        assert body[field] == plain[field]
    assert body["cost"] == {"after": plain["cost_after"], "before": plain["cost_before"]}
    assert body["shapes"].hex() == plain["shapes"]
    tables = ("tensors", "modules")
    assert [body[table] for table in tables] == [plain[table] for table in tables]
    for group, expected in zip(body["groups"], plain["groups"], strict=True):
        members = expected.pop("members")
        found = group.pop("members")
        assert group == expected
        for member, other in zip(found, members, strict=True):
            other["runs"] = [list(run.values()) for run in other["runs"]]
            assert member == other


@pytest.mark.promise("R9 golden")
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_golden_checkpoint_is_whole(name: str) -> None:
    path = ROOT / name
    opened = open_checkpoint(path)
    for number, file in enumerate(opened.paths):
        tensors = load_file(file)
        for stored in opened.checkpoint.tensors:
            if stored.shard == number:
                tensor = tensors[stored.names[0]]
                content = bytes(tensor.reshape(-1).view(torch.uint8).tolist())
                assert sha256(content).digest() == stored.digest
    assert {encode_plan(planc.inspect(path).plan)} == {encode_plan(opened.checkpoint.plan)}


@pytest.mark.parametrize("name", ["single/net.safetensors", "sharded"])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_golden_checkpoint_loads_into_its_model(version: str, name: str) -> None:
    loaded = planc.load(ROOT / version / "checkpoints" / name, Net().eval())
    assert loaded.up.out_features == 4
    assert loaded.scale.tolist() == [1.0] * 4


def test_the_script_makes_files_of_the_same_kinds() -> None:
    made = {f"plans/{name}.planc" for name in plans()}
    made |= {f"malformed/{name}.planc" for name in malformed()} | set(others())
    newest = [*PLANS, *MALFORMED, *OTHERS]
    assert {f"v2/{name}" for name in made} == {n for n in newest if n.startswith("v2/")}


# R15

_FORBIDDEN = (
    "pickle.find_class",
    "exec",
    "compile",
    "import",
    "os.system",
    "os.exec",
    "os.posix_spawn",
)
_heard: list[list[str] | None] = [None]


def _hook(event: str, args: Any) -> None:
    if _heard[0] is not None and (
        event in _FORBIDDEN or event.startswith(("subprocess.", "ctypes."))
    ):
        _heard[0].append(f"{event} {args!r}"[:200])


sys.addaudithook(_hook)


def read_everything() -> None:
    for name in GOLDEN:
        outcome(ROOT / name)
    for name in CHECKPOINTS:
        planc.inspect(ROOT / name)
        open_checkpoint(ROOT / name)
    planc.load(ROOT / "v2" / "checkpoints" / "sharded", Net().eval())


@pytest.mark.promise("R15 code")
def test_reading_golden_files_runs_no_code(goal: Goal) -> None:
    read_everything()  # imports what is imported lazily
    events: list[str] = []
    _heard[0] = events
    try:
        read_everything()
    finally:
        _heard[0] = None
    assert events == []
    goal.count(len(GOLDEN))


def test_the_audit_hook_hears_what_it_listens_for(tmp_path: Path) -> None:
    events: list[str] = []
    _heard[0] = events
    try:
        exec("1")
    finally:
        _heard[0] = None
    assert any(event.startswith("exec") for event in events)
