"""R1 and R11: mutants of the other bodies that planc writes, digests right: the record of a
checkpoint and of its further shards, mask plans, latency tables.
"""

from __future__ import annotations

import base64
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgpack
import pytest

from planc.errors import FileError
from planc.files.disk.limits import DEFAULT
from planc.files.formats import latency, masks
from planc.files.formats.checkpoint import (
    KEY,
    Checkpoint,
    Part,
    StoredModule,
    StoredShard,
    StoredTensor,
    decode_checkpoint,
    decode_part,
    encode_checkpoint,
    encode_part,
)
from planc.files.formats.envelope import seal, unseal
from planc.plan.latency import Grid, LatencyTable, Use
from planc.plan.masks import MaskPlan, TensorMask
from planc.plan.plan import Provenance, TensorSpec
from tests.fuzz.mutants import Mutants
from tests.fuzz.test_plans import small_plan
from tests.scripts.promises import Goal

Read = Callable[[bytes], Any]
_SLOW = 1.0  # seconds that no body of this size may take
_DIGEST = bytes(range(32))


def checkpoint_body() -> bytes:
    attributes = (("limits", ("dict", ("low", -1.5))), ("n", 4))
    checkpoint = Checkpoint(
        plan=small_plan(),
        modules=(StoredModule("", "m.Net", attributes), StoredModule("a", "m.Linear", ())),
        tensors=(
            StoredTensor(("a", "b"), "F32", (3, 2), _DIGEST),
            StoredTensor(("buffer/c",), "BF16", (), _DIGEST, "buffer", 1),
        ),
        shards=(
            StoredShard("a.safetensors", 1000, _DIGEST),
            StoredShard("a-0.planc-extra", 90, _DIGEST),
        ),
        metadata=(("epoch", 3), ("tags", ("list", "a", ("tuple", "b", 1.5)))),
    )
    return unseal(b"planc/ckpt", base64.b64decode(encode_checkpoint(checkpoint)))


def read_checkpoint(body: bytes) -> Checkpoint:
    text = base64.b64encode(seal(b"planc/ckpt", body)).decode()
    return decode_checkpoint({KEY: text})


def part_body() -> bytes:
    part = Part(_DIGEST, _DIGEST, (("a", _DIGEST), ("b", _DIGEST)))
    return unseal(b"planc/part", base64.b64decode(encode_part(part)))


def read_part(body: bytes) -> Part:
    return decode_part({KEY: base64.b64encode(seal(b"planc/part", body)).decode()})


def masks_body() -> bytes:
    tensors = (
        TensorSpec(("a", "b"), (4, 3), "parameter"),
        TensorSpec(("c",), (8,), "parameter"),
        TensorSpec(("d",), (), "buffer"),
    )
    provenance = (Provenance("l1", "nofm(2, 4)", 0, (("planc", "0.1.0"),)),)
    chosen = (TensorMask("a", b"\x05\x0a"), TensorMask("c", b"\x80"))
    return masks.to_body(MaskPlan(tensors, chosen, provenance))


def latency_body() -> bytes:
    table = LatencyTable(
        structure=_DIGEST,
        inputs=("tuple", ("tensor", (1, 3), "float32")),
        machine="a machine",
        threads=1,
        rest=12,
        grids=(
            Grid("aten.linear", ((4, 8), (1, 2, 3)), (5, 6, 7, 8, 9, 300), (1, 4)),
            Grid("add", (), (4,)),
        ),
        uses=(Use(0, (((0, 2), (1, 1)), ((1, 4),))), Use(1, ())),
        unmeasured=("aten.sort",),
    )
    return latency.to_body(table)


KINDS: dict[str, tuple[Callable[[], bytes], Read]] = {
    "checkpoint": (checkpoint_body, read_checkpoint),
    "part": (part_body, read_part),
    "masks": (masks_body, lambda body: masks.from_body(body, DEFAULT)),
    "latency": (latency_body, lambda body: latency.from_body(body, DEFAULT)),
}


@pytest.mark.long
@pytest.mark.promise("R1 records")
@pytest.mark.parametrize("kind", KINDS)
def test_mutants_of_records_are_refused_or_canonical(kind: str, goal: Goal) -> None:
    make, read = KINDS[kind]
    outcomes, cases = Counter[str](), goal.share(len(KINDS))
    mutants = Mutants(make(), random.Random(kind))
    for body in mutants.some(cases):
        began = time.perf_counter()
        try:
            read(body)
        except FileError as error:
            outcomes[type(error).__name__] += 1
        else:
            outcomes["accepted"] += 1
            assert msgpack.packb(msgpack.unpackb(body)) == body
        assert time.perf_counter() - began < _SLOW
    assert outcomes["MalformedFile"] > cases // 2
    assert outcomes["accepted"] > cases // 500
    goal.count(cases)


@pytest.mark.parametrize("kind", KINDS)
def test_every_mutant_is_made_of_a_record_that_is_accepted(kind: str) -> None:
    make, read = KINDS[kind]
    assert read(make()) == read(make())
