"""Golden files: files of every format version that was ever released, and what reading them gives.

``python -m tests.support.golden_files`` adds those that ``tests/golden/v2`` lacks. What is there
is never written again; a new version gets a directory of its own. Latency tables are of version 1.
"""

from __future__ import annotations

import copy
import json
import math
import shutil
import struct
import tempfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import torch
from torch import nn

import planc
from planc import masks
from planc.files.formats import encode_plan
from planc.files.formats.envelope import seal, unseal
from planc.files.formats.masks import KIND as MASK
from planc.files.formats.masks import encode_masks
from planc.plan.masks import MaskPlan
from planc.plan.plan import Latency
from tests.crash.test_crash import Net
from tests.files.cut.test_files import PLAN, mlp_plan, sharded
from tests.fuzz.test_plans import small_plan
from tests.masks.test_files import FILE, MASKS
from tests.support import small
from tests.support.strategies import example_plan, full_plan

ROOT = Path(__file__).parents[1] / "golden"
VERSIONS = ("v1", "v2")
DIRECTORY = ROOT / VERSIONS[-1]
MANIFEST = DIRECTORY / "manifest.json"
MODELS = ("residual", "grouped", "depthwise", "dense", "up", "tied", "attention", "shuffle")
KIND = b"planc/plan"


def plans() -> dict[str, planc.Plan]:
    """Valid plans: hand-made ones, and those of small models."""
    found = {"example": example_plan(), "small": small_plan(), "mlp": mlp_plan()}
    found["full"] = full_plan()
    found["timed"] = full_plan().replace(latency=Latency(700, 1_000, "abacus"))
    for name in MODELS:
        model, args = small.build(name)
        found[name] = planc.compile(model, args, ratio=0.5, scores=name == "residual")
    return found


def edited(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    """An edit that sets entries at dotted paths (with __ for dots)."""

    def edit(body: dict[str, Any]) -> Any:
        for path, value in changes.items():
            *parents, last = [int(k) if k.isdecimal() else k for k in path.split("__") if k]
            holder: Any = body
            for key in parents:
                holder = holder[key]
            holder[last] = value
        return body

    return edit


def malformed() -> dict[str, bytes]:
    """Files that must be refused, each for one reason."""
    file = encode_plan(full_plan())
    body = unseal(KIND, file)

    def with_body(edit: Callable[[dict[str, Any]], Any]) -> bytes:
        return seal(KIND, msgpack.packb(edit(msgpack.unpackb(body))))

    deep: Any = 0
    for _ in range(400):
        deep = [deep]
    run = "groups__0__members__0__runs__0"
    return {
        "empty": b"",
        "text": b"a plan\n",
        "zip": b"PK\x03\x04" + bytes(60),
        "pickle": b"\x80\x04\x95cposix\nsystem\n",
        "checkpoint-record": seal(b"planc/ckpt", b""),
        "version-3": file[:12] + b"\x03" + file[13:],
        "version-1-with-later-fields": _of_version_1(body),
        "no-outputs": with_body(lambda plan: {k: v for k, v in plan.items() if k != "outputs"}),
        "short-scores": with_body(edited(groups__0__scores=bytes(20))),
        "scores-not-finite": with_body(edited(groups__0__scores=b"\0\0\xc0\x7f" * 6)),
        "whole-output": with_body(edited(outputs__0__kept=b"\x3f")),
        "empty-output": with_body(edited(outputs__0__kept=b"\x00")),
        "large-output": with_body(edited(outputs__0__size=1 << 40)),
        "short-digest": with_body(edited(provenance__0__weights=bytes(31))),
        "origin": with_body(edited(provenance__0__origin="disk")),
        "latency-without-machine": with_body(
            lambda plan: dict(sorted({**plan, "latency": {"after": 1, "before": 2}}.items()))
        ),
        "hidden-decision": with_body(edited(provenance__0__decisions=["keep \u202e"])),
        "truncated-prefix": file[:30],
        "truncated-body": file[:-1],
        "trailing": file + b"\0",
        "flipped": file[:-9] + bytes([file[-9] ^ 4]) + file[-8:],
        "long-length": file[:47] + b"\xc6" + struct.pack(">I", len(body)) + body,
        "not-msgpack": seal(KIND, b"\xc1"),
        "unsorted": with_body(lambda plan: dict(reversed(plan.items()))),
        "unknown-field": with_body(lambda plan: {**plan, "zz": 1}),
        "future": with_body(edited(requires=["quantised"])),
        "nan": with_body(edited(structural__1__0__1=math.nan)),
        "deep": with_body(edited(inputs=deep)),
        "class-attribute": with_body(edited(attributes__0__name="__class__")),
        "other-type": with_body(edited(attributes__0__after="6")),
        "all-removed": with_body(edited(groups__0__removed=b"\x3f")),
        "padding": with_body(edited(groups__0__removed=b"\x40")),
        "no-such-tensor": with_body(edited(groups__0__members__0__tensor=99)),
        "out-of-range": with_body(edited(**{run: [0, 6, 1, 1, 1, 1, 0]})),
        "twice": with_body(edited(**{run: [0, 6, 0, 0, 1, 1, 0]})),
        "expansion": with_body(edited(**{run: [0, 6, 0, 1, 1 << 60, 1 << 60, 1 << 60]})),
        "many-units": with_body(edited(groups__0__size=1 << 62)),
        "other-result": with_body(edited(result__tensors=bytes(32))),
        "two-tensors-of-a-name": with_body(edited(tensors__1__names=["a.weight"])),
    }


def _of_version_1(body: bytes) -> bytes:
    """A sealed body of the current version that says it is of version 1."""
    start = b"\x94\xaa" + KIND + b"\x01"
    length = b"\xc5" + struct.pack(">H", len(body))
    return start + b"\xc4\x20" + sha256(start + body).digest() + length + body


def others() -> dict[str, bytes]:
    """Mask plans, some of which must be refused."""
    model, _ = small.build("residual")
    half = encode_masks(masks.select(model, masks.NofM(1, 2), keep=("stem.0",)))
    tables = {
        "masks/example.masks": FILE,
        "masks/1-of-2.masks": half,
        "masks/nothing.masks": encode_masks(MaskPlan(MASKS.tensors, (), ())),
    }
    body = msgpack.unpackb(unseal(MASK, FILE))

    def changed(kind: bytes, body: dict[str, Any], **changes: Any) -> bytes:
        return seal(kind, msgpack.packb(edited(**changes)(copy.deepcopy(body))))

    refused = {
        "masks/malformed-plan.masks": encode_plan(example_plan()),
        "masks/malformed-flipped.masks": FILE[:-1] + bytes([FILE[-1] ^ 1]),
        "masks/malformed-truncated.masks": FILE[:-1],
        "masks/malformed-future.masks": changed(MASK, body, requires=["blocks"]),
        "masks/malformed-padding.masks": changed(MASK, body, masks__0__removed=b"\x49\x92"),
        "masks/malformed-length.masks": changed(MASK, body, masks__0__removed=b"\x49"),
        "masks/malformed-row.masks": changed(MASK, body, masks__1__tensor=9),
        "masks/malformed-origin.masks": changed(MASK, body, provenance__0__origin="disk"),
    }
    return tables | refused


def checkpoints(directory: Path) -> None:
    """Checkpoints: one file, shards, bfloat16, and one that was made from files."""
    torch.manual_seed(0)
    model = Net().eval()
    plan = planc.compile(model, torch.zeros(1, 4), ratio=0.5)
    smaller = planc.apply(plan, model)
    planc.save(directory / "single" / "net.safetensors", smaller, plan, metadata={"epoch": 1})
    planc.save(directory / "sharded", smaller, plan, shard_size=80)
    half = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)).bfloat16()
    other = planc.compile(half, torch.zeros(1, 3, dtype=torch.bfloat16), ratio=0.25)
    planc.save(directory / "bfloat16" / "net.safetensors", planc.apply(other, half), other)
    sharded(directory / "source")
    planc.apply_files(PLAN, directory / "source", directory / "applied")
    shutil.rmtree(directory / "source")


def outcome(path: Path) -> str:
    """What reading a file gives, as the manifest says it: plans by their fingerprint, mask
    plans with how many elements go, latency tables by what they predict where every group has 8
    units, errors by their class; files of checkpoints are read together, elsewhere.
    """
    try:
        match path.suffix:
            case ".planc":
                return f"plan {planc.load_plan(path).fingerprint}"
            case ".masks":
                plan = planc.load_masks(path)
                return f"mask plan {plan.fingerprint}, {plan.removed} removed"
            case ".latency":
                table = planc.load_latency(path)
                time = table.function(table.structure, 3)(np.full(3, 8))
                return f"latency table {time} ns"
    except planc.PlancError as error:
        return type(error).__name__
    return "part of a checkpoint"


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        made = Path(directory)
        for kind in ("plans", "malformed", "checkpoints/single", "checkpoints/bfloat16"):
            (made / kind).mkdir(parents=True)
        for title, plan in plans().items():
            planc.save_plan(plan, made / "plans" / f"{title}.planc")
        for title, content in malformed().items():
            (made / "malformed" / f"{title}.planc").write_bytes(content)
        for name, content in others().items():
            (made / name).parent.mkdir(exist_ok=True)
            (made / name).write_bytes(content)
        checkpoints(made / "checkpoints")
        add(made)


def add(made: Path) -> None:
    """Takes over the files that are not there yet; a checkpoint that is there stays as it is."""
    manifest = json.loads(MANIFEST.read_text()) if MANIFEST.exists() else {}
    whole = {name.rpartition("/")[0] for name in manifest if name.startswith("checkpoints/")}
    for path in sorted(made.rglob("*")):
        name = path.relative_to(made).as_posix()
        if path.is_dir() or name in manifest or name.rpartition("/")[0] in whole:
            continue
        (DIRECTORY / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, DIRECTORY / name)
        digest = sha256(path.read_bytes()).hexdigest()
        manifest[name] = {"sha256": digest, "gives": outcome(path)}
    MANIFEST.write_text(json.dumps(dict(sorted(manifest.items())), indent=1) + "\n")


if __name__ == "__main__":
    main()
