"""The laws of plan files: what is written is read again, and nothing else is."""

from __future__ import annotations

import errno
import math
import os
import stat
import struct
import tracemalloc
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planc.errors import (
    CorruptFile,
    FileError,
    LimitExceeded,
    MalformedFile,
    NotAPlancFile,
    TrailingData,
    TruncatedFile,
    UnsafePath,
    UnsupportedVersion,
)
from planc.files import formats as codec
from planc.files.disk.atomic import read_file, replacing, write_file
from planc.files.formats import Limits, decode_plan, encode_plan, load_plan, save_plan
from planc.files.formats.conversion import to_body
from planc.files.formats.envelope import seal, unseal
from planc.files.formats.membership import Tables
from planc.files.formats.shapes import shapes_after
from planc.ir.groups import Indices, Member, Over, Run, compress
from planc.plan.fingerprint import structure_digest, tensors_digest
from planc.plan.plan import AttributeChange, Plan, PlanGroup, TensorSpec
from tests.support.strategies import complete, example_plan, plans

KIND = b"planc/plan"
PLAN = example_plan()
FILE = encode_plan(PLAN)


def body_of(plan: Plan) -> dict[str, Any]:
    body: dict[str, Any] = msgpack.unpackb(to_body(plan))
    return body


def refusal(body: Any) -> str:
    """The message with which a body of that content is refused."""
    with pytest.raises(FileError) as caught:
        decode_plan(seal(KIND, msgpack.packb(body)))
    return f"{type(caught.value).__name__}: {caught.value}"


# what is written is read


@given(plans())
def test_a_saved_plan_loads_equal(plan: Plan) -> None:
    assert decode_plan(encode_plan(plan)) == plan


@given(plans())
def test_reading_and_writing_a_file_gives_the_same_bytes(plan: Plan) -> None:
    content = encode_plan(plan)
    assert encode_plan(decode_plan(content)) == content


@given(plans())
def test_both_msgpack_libraries_agree_on_every_plan(plan: Plan) -> None:
    body = to_body(plan)
    assert msgspec.msgpack.encode(msgspec.msgpack.decode(body), order="deterministic") == body
    assert msgpack.packb(msgpack.unpackb(body)) == body


def test_save_and_load_go_through_a_file(tmp_path: Path) -> None:
    save_plan(PLAN, tmp_path / "a.plan")
    assert load_plan(tmp_path / "a.plan") == PLAN
    assert load_plan(str(tmp_path / "a.plan")) == PLAN
    assert (tmp_path / "a.plan").read_bytes() == FILE


def test_equal_attributes_of_many_modules_are_stored_once() -> None:
    modules = tuple(replace(PLAN.modules[1], path=f"layer{i}") for i in range(100))
    plain = complete(PLAN.tensors, PLAN.modules[1:2], PLAN.groups, ())
    many = complete(PLAN.tensors, modules, PLAN.groups, ())
    assert len(encode_plan(many)) - len(encode_plan(plain)) < 100 * 32
    assert decode_plan(encode_plan(many)) == many


def test_attributes_that_python_calls_equal_stay_apart() -> None:
    values = (True, 1, 1.0)
    modules = tuple(
        replace(PLAN.modules[0], path=f"m{v!r}", attributes=(("n", v),)) for v in values
    )
    loaded = decode_plan(encode_plan(complete(PLAN.tensors, modules, PLAN.groups, ())))
    assert [type(module.attributes[0][1]) for module in loaded.modules] == [bool, int, float]


@pytest.mark.parametrize("removed", [(1,), (19,), (8, 15), (0, 7, 8, 16)])
def test_few_of_many_units_may_leave(removed: tuple[int, ...]) -> None:
    tensors = (TensorSpec(("w",), (20,), "parameter"),)
    members = (Member("w", 0, (Run(0, 20, 0, 1),)),)
    plan = complete(tensors, (), (PlanGroup("w:0", "channels", 20, 1, members, "", removed),), ())
    assert decode_plan(encode_plan(plan)).groups[0].removed == removed


def test_removed_units_cost_a_bit_each() -> None:
    size = 80_000
    runs = (Run(0, size, 0, 1),)
    tensors = (TensorSpec(("w",), (size,), "parameter"),)
    group = PlanGroup("w:0", "channels", size, 1, (Member("w", 0, runs),), "", ())
    every_other = replace(group, removed=tuple(range(0, size, 2)))
    whole = encode_plan(complete(tensors, (), (group,), ()))
    pruned = encode_plan(complete(tensors, (), (every_other,), ()))
    assert abs(len(whole) - len(pruned)) < 8
    assert len(pruned) < size // 8 + 1000


# what was not written is refused


@given(plans(), st.data())
@settings(max_examples=30)
def test_every_truncation_is_refused(plan: Plan, data: st.DataObject) -> None:
    content = encode_plan(plan)
    length = data.draw(st.integers(0, len(content) - 1))
    with pytest.raises(FileError):
        decode_plan(content[:length])


def test_every_truncation_of_the_example_is_refused_by_length() -> None:
    kinds = Counter()
    for length in range(len(FILE)):
        with pytest.raises((TruncatedFile, NotAPlancFile)) as caught:
            decode_plan(FILE[:length])
        kinds[type(caught.value)] += 1
    assert kinds == {TruncatedFile: len(FILE) - 1, NotAPlancFile: 1}


def test_every_flipped_bit_is_refused() -> None:
    content = bytearray(FILE)
    for bit in range(8 * len(FILE)):
        content[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FileError):
            decode_plan(bytes(content))
        content[bit // 8] ^= 1 << bit % 8
    assert decode_plan(bytes(content)) == PLAN


def test_bytes_after_the_end_are_refused() -> None:
    with pytest.raises(TrailingData, match=f"byte {len(FILE)}"):
        decode_plan(FILE + b"\0")


def test_a_damaged_body_is_called_corrupt() -> None:
    with pytest.raises(CorruptFile, match="digest"):
        decode_plan(FILE[:-1] + bytes([FILE[-1] ^ 1]))


def test_other_files_are_not_planc_files() -> None:
    for content in (b"", b"PK\x03\x04 a zip archive", b"{}", b"\x94\xaaplanc/part"):
        with pytest.raises(NotAPlancFile, match="byte 0"):
            decode_plan(content)
    with pytest.raises(NotAPlancFile, match="record of a checkpoint"):
        decode_plan(seal(b"planc/ckpt", b""))


def test_another_version_is_named() -> None:
    for rest in (FILE[13:], FILE[13:20], b""):
        for version in (0, 3, 255):
            found = f"version {version} found, 1 to 2 are known"
            with pytest.raises(UnsupportedVersion, match=found):
                decode_plan(FILE[:12] + bytes([version]) + rest)
    latency = seal(b"planc/time", b"")
    with pytest.raises(UnsupportedVersion, match="version 2 found, 1 is known"):
        unseal(b"planc/time", latency[:12] + b"\x02" + latency[13:])


def test_a_longer_form_of_the_length_is_refused() -> None:
    body = unseal(KIND, FILE)
    long = FILE[:47] + b"\xc6" + struct.pack(">I", len(body)) + body
    with pytest.raises(MalformedFile, match="shortest form"):
        decode_plan(long)


def test_a_pinned_digest_admits_that_file_only(tmp_path: Path) -> None:
    path = tmp_path / "a.plan"
    save_plan(PLAN, path)
    digest = sha256(path.read_bytes()).hexdigest()
    assert load_plan(path, sha256=digest.upper()) == PLAN
    with pytest.raises(CorruptFile, match=digest):
        load_plan(path, sha256="0" * 64)
    with pytest.raises(ValueError, match="64 hexadecimal"):
        load_plan(path, sha256="abc")


def test_a_plan_from_the_future_says_what_it_requires() -> None:
    body = body_of(PLAN)
    body["requires"] = ["quantised"]
    assert "UnsupportedVersion" in refusal(body)
    body["tomorrow"] = 1
    message = refusal(dict(sorted(body.items())))
    assert "UnsupportedVersion" in message
    assert "'quantised'" in message


def test_an_unknown_field_is_refused_by_its_path() -> None:
    body = body_of(PLAN)
    body["groups"][1]["zz"] = 1
    assert "`$.groups[1]`" in refusal(body)


def test_unsorted_keys_are_refused() -> None:
    assert "canonical" in refusal(dict(reversed(body_of(PLAN).items())))


def test_a_duplicate_key_is_refused() -> None:
    body = unseal(KIND, FILE)
    assert body[:1] == b"\x8f"
    first = b"\xaaattributes"
    assert body[1:].startswith(first)
    twice = b"\xde\x00\x10" + first + b"\x90" + body[1:]
    with pytest.raises(MalformedFile, match="canonical"):
        decode_plan(seal(KIND, twice))


def test_a_long_integer_form_is_refused() -> None:
    body = unseal(KIND, FILE)
    at = body.index(b"\xa3dim\x00") + 4
    long = body[:at] + b"\xcc\x00" + body[at + 1 :]
    with pytest.raises(MalformedFile, match=f"the body: byte {at} is not"):
        decode_plan(seal(KIND, long))


def test_deep_nesting_is_refused_without_recursion() -> None:
    body = body_of(PLAN)
    deep: Any = 0
    for _ in range(400):
        deep = [deep]
    body["inputs"] = deep
    assert "MalformedFile" in refusal(body)
    body["inputs"], body["structural"][1][0] = body_of(PLAN)["inputs"], ["n", [[[[[1]]]]]]
    assert "MalformedFile" in refusal(body)


def test_inputs_that_nest_without_end_are_refused() -> None:
    body = unseal(KIND, FILE)
    for packed in (b"\x91" * 100_000 + b"\xc0", b"\x81\xa0" * 100_000 + b"\xc0"):
        deep = body.replace(msgpack.packb(PLAN.inputs), packed)
        assert len(deep) > 100_000
        with pytest.raises(MalformedFile, match="the body: "):
            decode_plan(seal(KIND, deep))


def set_in(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """An edit of a body: ``groups.0.rows`` gets another value."""
    *parents, last = [int(key) if key.isdecimal() else key for key in path.split(".")]

    def edit(body: Any) -> None:
        for key in parents:
            body = body[key]
        body[last] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (set_in("target", "moon"), "target: 'moon'"),
        (set_in("tensors.0.kind", "weight"), "tensors[0].kind: 'weight'"),
        (set_in("tensors.4.names", []), "tensors[4].names"),
        (set_in("tensors.0.names", []), "groups[0].members[0].tensor: row 0, the table"),
        (set_in("tensors.0.names", ["a.weight", ""]), "tensors[0].names: a tensor without a name"),
        (set_in("tensors.1.names", ["a.weight"]), ": tensors: 'a.weight' is there twice"),
        (set_in("tensors.1.shape", [6, 11]), "dimension 1 of b.weight has 11"),
        (set_in("tensors.1.shape", [6, 1 << 48]), "LimitExceeded"),
        (set_in("tensors.1.shape", [1 << 40, 1 << 40]), "LimitExceeded"),
        (set_in("tensors.1.shape", [1] * 33), "LimitExceeded"),
        (set_in("tensors.1.shape", [6, -12]), "$.tensors[1].shape[1]"),
        (set_in("tensors.1.shape", [6, True]), "got `bool`"),
        (set_in("tensors.4.shape", [3]), "source.tensors: the digest"),
        (set_in("tensors.0.names", ["a" * 1025]), "1024 string"),
        (set_in("modules.1.path", "x" * 1025), "modules[1].path: 1025 exceeds the limit of 1024"),
        (set_in("modules.1.path", ""), "'' is there twice"),
        (set_in("modules.0.attributes", 1), "row 1 of 2"),
        (set_in("modules.2.attributes", 2), "modules[2].attributes: row 2 of 2, at most row 2 may"),
        (set_in("modules.1.attributes", 0), "has no attribute 'out_features'"),
        (set_in("structural.1", []), "structural: 2 rows, 1 distinct"),
        (set_in("structural", [[], [["n", 1]], [["n", 2]]]), "structural[2]: no module has it"),
        (set_in("structural.1.0", ["shapes", 1]), "not sorted"),
        (
            set_in("structural.1.0.0", "a" * 1025),
            "modules[1].attributes: 1025 exceeds the limit of 1024 string",
        ),
        (
            set_in("structural.1.1.1", "x" * 1025),
            "modules[1].attributes.mode: 1025 exceeds the limit of 1024 string",
        ),
        (set_in("structural.1.0.1", math.nan), "is not finite"),
        (set_in("structural.1.0.1", (1 << 64) - 1), "more than 64 bits"),
        (set_in("structural.1.0.1", [0] * 1025), "1024 leaves"),
        (set_in("structural.1.0.1", {}), "got `object`"),
        (set_in("structural.1.2.1", 7), "attributes[0].before: 6"),
        (set_in("attributes.0.name", "__class__"), "not a public name"),
        (set_in("attributes.0.name", "out features"), "not a public name"),
        (set_in("attributes.0.name", "in_features"), "has no attribute 'in_features'"),
        (set_in("attributes.0.module", "zz"), "'zz' is no module"),
        (set_in("attributes.0.after", 4.0), "not of the type"),
        (set_in("attributes.0.after", True), "not of the type"),
        (set_in("attributes.1.after", math.inf), "is not finite"),
        (set_in("attributes.1.before", math.inf), "attributes[1].before: inf is not finite"),
        (set_in("constraints.0.text", "x" * 1025), "constraints[0].text: 1025 exceeds the limit"),
        (set_in("constraints.1.reason", "x" * 1025), "constraints[1].reason: 1025 exceeds the"),
        (set_in("attributes.2.after", [4, [1]]), "not of the type"),
        (
            set_in("attributes.2.after", 4),
            "attributes[2].after: 4 is not of the type of (6, (1, 2))",
        ),
        (set_in("attributes.0.after", [4]), "attributes[0].after: (4,) is not of the type of 6"),
        (
            lambda body: body["attributes"].insert(1, body["attributes"][0]),
            "attributes: ('a', 'out_features') is there twice",
        ),
        (set_in("groups.0.mixing", "x" * 1025), "groups[0]: 1025 exceeds the limit of 1024"),
        (set_in("groups.0.name", "x" * 1025), "groups[0]: 1025 exceeds the limit of 1024"),
        (set_in("groups.0.kind", "x" * 1025), "groups[0]: 1025 exceeds the limit of 1024"),
        (set_in("attributes.0.after", 5), "result.attributes: the digest"),
        (set_in("inputs", None), "inputs: None"),
        (set_in("inputs.1.1.2", "x" * 1025), "1024 string"),
        (set_in("inputs.1.1.1", [1, -1]), "inputs[0][0]"),
        (set_in("inputs.1.2.1", ["value", [1]]), "inputs[0][1][0]"),
        (set_in("inputs.1.2.1", ["value", math.inf]), "does not specify"),
        (set_in("inputs.1.2.1", ["value", "x" * 1025]), "inputs[0][1][0]: 1025 exceeds"),
        (set_in("inputs.1.2.1", ["value", 1 << 63]), "inputs[0][1][0]: ('value', 922"),
        (set_in("inputs.1.2.1", ["value", "x", 1]), "inputs[0][1][0]: ('value', 'x', 1) does not"),
        (set_in("inputs.1.2.1", ["secret", "x"]), "inputs[0][1][0]: ('secret', 'x') does not"),
        (set_in("inputs.1.2.1", ["opaque", "x" * 1025]), "inputs[0][1][0]: 1025 exceeds"),
        (set_in("inputs.1.2.1", ["tensor", [1] * 33, "a"]), "inputs[0][1][0]: 33 exceeds"),
        (set_in("inputs.1.2.1", ["tensor", [1 << 48], "a"]), "inputs[0][1][0]: 281474976710656 ex"),
        (
            set_in("inputs.1.2.1", ["tensor", [1 << 31, 1 << 31], "a"]),
            "limit of 4611686018427387903",
        ),
        (set_in("inputs.1.2.1", ["tensor", [True], "a"]), "inputs[0][1][0]: ('tensor', (True,)"),
        (set_in("inputs.1.2.1", ["tensor", [], "x" * 1025]), "inputs[0][1][0]: 1025 exceeds"),
        (
            set_in("inputs.1.2.1", ["value", ["x" * 44]]),
            f"('value', ('{'x' * 44}',)) does not spec",
        ),
        (set_in("inputs.1.2.1", ["value", ["x" * 45]]), f"('value', ('{'x' * 45}',)... does not"),
        (set_in("inputs.2.1.0", "x" * 1025), "inputs[1]: 1025 exceeds"),
        (set_in("inputs.2.1", ["mask", ["value", []]]), "inputs[1]['mask']: ('value', ())"),
        (set_in("inputs.2.1", "ab"), "inputs[1]: ('dict', 'ab'"),
        (set_in("inputs.2.1", 5), "inputs[1]: ('dict', 5"),
        (set_in("inputs.2.1", ["mask"]), "inputs[1]: ('dict', ('mask',)"),
        (set_in("inputs.2.1", [1, ["value", 1]]), "inputs[1]: ('dict', (1, ('value'"),
        (set_in("inputs.2.1.0", "flag"), "a key is there twice"),
        (set_in("provenance.0.seed", 1 << 63), "seed"),
        (set_in("groups.0.size", 0), "$.groups[0].size"),
        (set_in("groups.0.size", 1 << 62), "LimitExceeded"),
        (set_in("groups.0.size", 4000), "4000 units in 1 rows need 500"),
        (set_in("groups.0.rows", 4), "equal rows"),
        (set_in("groups.0.removed", b"\x3f"), "all 6 units"),
        (set_in("groups.0.removed", b"\x40"), "padding"),
        (set_in("groups.0.removed", b"\x01\x00"), "2 bytes"),
        (set_in("groups.0.removed", b"\x01"), "result.tensors: the digest"),
        (set_in("groups.2.removed", b"\x01\x03"), "rows of 3 lose [1, 2]"),
        (set_in("groups.2.removed", b"\x07\x07"), "all 6 units"),
        (set_in("groups.0.members", []), "lie nowhere"),
        (set_in("groups.0.members.0.tensor", 5), "row 5, the table of tensors has 5"),
        (set_in("groups.0.members.0.dim", 2), "dim: 2"),
        (set_in("groups.0.members.0.runs", []), "holds no unit"),
        (set_in("groups.0.members.0.runs.0", [0, 5, 0, 1, 1, 1, 0]), "unit 5 of 6 is missing"),
        (set_in("groups.0.members.0.runs.0", [1, 5, 0, 1, 1, 1, 0]), "unit 0 of 6 is missing"),
        (set_in("groups.0.members.0.runs.0", [0, 7, 0, 1, 1, 1, 0]), "units 0 to 6"),
        (set_in("groups.0.members.0.runs.0", [0, 6, 1, 1, 1, 1, 0]), "indices 1 to 6"),
        (set_in("groups.0.members.0.runs.0", [0, 6, 4, -1, 1, 1, 0]), "indices -1 to 4"),
        (set_in("groups.0.members.0.runs.0", [0, 6, 0, 0, 1, 1, 0]), "listed twice"),
        (
            set_in("groups.0.members.0.runs.0", [0, 6, 0, 0, 3, 1, 0]),
            "groups[0]: a.weight:0: 18 indices of 6, some twice; compile",
        ),
        (
            set_in("groups.0.members.1.runs.0", [0, 6, 0, 1, 6, 1, 0]),
            "groups[0]: b.weight:1: 36 indices of 12, some twice; compile",
        ),
        (set_in("groups.0.members.1.runs.0", [0, 6, 0, 1, 2, 1, 0]), "listed twice"),
        (set_in("groups.0.members.1.runs.0", [0, 6, 0, 2, 1, 2, 0]), "listed twice"),
        (set_in("groups.0.members.0.runs.0", [0, 6, 0, 1, 1 << 60, 1 << 60, 1 << 60]), "indices 0"),
        (set_in("groups.0.members.0.runs.0", [0, 6, 0, 1, 1, 1, -1]), "$.groups[0]"),
        (set_in("groups.0.members.0.runs.0", [0, 6, 0, 1, 1, 1, 1 << 63]), "leaps further"),
        (
            set_in(
                "groups.0.members.0.runs", [[0, 5, 0, 1, 1, 1, 0], [5, 1, 5, -(1 << 62), 1, 1, 0]]
            ),
            "leaps further",
        ),
        (set_in("groups.2.members.2.over", [1, 0, 2]), "no range of another dimension"),
        (set_in("groups.2.members.2.over", [0, 2, 2]), "no range of another dimension"),
        (set_in("groups.2.members.2.over", [0, 0, 5]), "no range of another dimension"),
        (set_in("groups.2.members.2.over", [0, 0, 3]), "overlapping ranges"),
        (set_in("groups.2.members.2.over", [0, 0, 1]), "do not cover"),
        (set_in("groups.2.members.2.over", None), "6 indices of 3, some twice"),
        (
            lambda body: body["groups"][2].update(removed=b"\x01", rows=1),
            "groups: d.weight: ranges of dimension 0 keep [2, 3] indices",
        ),
        (set_in("groups.1.name", "a.weight:0"), ": groups: 'a.weight:0' is there twice"),
        (set_in("groups.1.size", 3), "unit 2 of 3"),
        (set_in("result.tensors", b"0" * 32), "result.tensors: the digest"),
        (set_in("source.structure", b"0" * 32), "source.structure: the digest"),
        (set_in("source.tensors", b"0" * 32), "source.tensors: the digest is 3030303030303030..."),
        (set_in("source.attributes", b"0" * 32), "source.attributes: the digest is 3030303030303"),
        (set_in("result.attributes", b"0" * 32), "result.attributes: the digest is 3030303030303"),
        (
            set_in("groups.0.members.0.runs.0", [0, 6, 0, 1, 1, 1, 0, 9]),
            "$.groups[0].members[0].ru",
        ),
        (set_in("groups.2.members.2.over", [0, 0, 2, 9]), "$.groups[2].members[2].over"),
        (set_in("source.structure", b"0" * 31), "$.source.structure"),
        (set_in("source.structure", b"0" * 33), "$.source.structure"),
        (set_in("shapes", ""), "$.shapes"),
    ],
)
def test_a_field_that_contradicts_another_is_named(
    edit: Callable[[dict[str, Any]], None], words: str
) -> None:
    body = body_of(PLAN)
    edit(body)
    message = refusal(body)
    assert words in message
    assert message.split(": ")[1] == "the plan"


def test_an_index_that_two_interleaved_runs_claim_is_found() -> None:
    group = PLAN.groups[0]
    runs = (Run(0, 1, 0, 1, 1, 2, 4), Run(1, 5, 1, 1, 1, 2, 4))
    member = Member("b.weight", 1, runs)
    bad = replace(group, members=(group.members[0], member))
    with pytest.raises(MalformedFile, match="index 4 is listed twice"):
        encode_plan(complete(PLAN.tensors, (), (bad, *PLAN.groups[1:]), ()))


def test_a_tensor_that_is_ragged_both_ways_is_refused() -> None:
    units = compress(np.arange(2), np.arange(2))
    members = [Member("w", 0, (Run(0, 4, 0, 1),))]
    for dim in (1, 2):
        for row in range(2):
            runs = tuple(replace(run, unit=run.unit + 2 * row) for run in units)
            members.append(Member("v", dim, runs, Over(3 - dim, row, row + 1)))
    group = PlanGroup("w:0", "cells", 4, 2, tuple(members), "", (0, 3))
    tensors = (TensorSpec(("w",), (4,), "parameter"), TensorSpec(("v",), (1, 2, 2), "parameter"))
    with pytest.raises(MalformedFile, match="ragged"):
        encode_plan(complete(tensors, (), (group,), ()))


@pytest.mark.parametrize("starts", [(0, 1, 2), (0, 1, 3), (0, 2, 3), (1, 2, 3)])
def test_ranges_of_a_ragged_dimension_leave_none_of_the_other_out(starts: tuple[int, ...]) -> None:
    members = [Member("w", 0, (Run(0, 6, 0, 1),))]
    for row, start in enumerate(starts):
        over = Over(0, start, start + 1)
        members.append(Member("v", 1, (Run(2 * row, 2, 0, 1),), over))
    group = PlanGroup("w:0", "cells", 6, 3, tuple(members), "", ())
    for height in range(starts[-1] + 1, 5):
        tensors = (
            TensorSpec(("w",), (6,), "parameter"),
            TensorSpec(("v",), (height, 2), "parameter"),
        )
        body = body_of(complete(tensors, (), (group,), ()))
        body["groups"][0]["removed"] = b"\x01\x02\x02"
        covered = starts == (0, 1, 2) and height == 3
        words = "result.tensors: the digest is" if covered else "v: ranges do not cover dimension 0"
        assert words in refusal(body)


def test_a_shape_without_indices_is_refused() -> None:
    tensors = (TensorSpec(("w",), (2,), "parameter"),)
    groups = tuple(
        PlanGroup(f"w:{i}", "channels", 2, 1, (Member("w", 0, (Run(0, 2, 0, 1),)),), "", (i,))
        for i in range(2)
    )
    with pytest.raises(MalformedFile, match="must keep an index"):
        encode_plan(complete(tensors, (), groups, ()))


def test_the_only_index_of_a_dimension_stays() -> None:
    members = (Member("v", 0, (Run(0, 2, 0, 1),)), Member("w", 0, (Run(0, 1, 0, 1),)))
    tensors = tuple(
        TensorSpec((name,), (size,), "parameter") for name, size in (("v", 2), ("w", 1))
    )
    group = PlanGroup("v:0", "channels", 2, 1, members, "", (0,))
    with pytest.raises(MalformedFile, match=r"w would have shape \(0,\) of \(1,\), dimension 0"):
        encode_plan(complete(tensors, (), (group,), ()))


def test_a_group_may_have_one_unit_which_stays() -> None:
    group = PlanGroup("w:0", "channels", 1, 1, (Member("w", 0, (Run(0, 1, 0, 1),)),), "", ())
    plan = complete((TensorSpec(("w",), (1,), "parameter"),), (), (group,), ())
    assert decode_plan(encode_plan(plan)) == plan


@pytest.mark.parametrize("number", [-(1 << 63), (1 << 63) - 1])
def test_integers_may_have_64_bits(number: int) -> None:
    plan = PLAN.replace(
        inputs=("value", number), provenance=(replace(PLAN.provenance[0], seed=number),)
    )
    assert decode_plan(encode_plan(plan)) == plan
    modules = (replace(PLAN.modules[0], attributes=(("n", number),)),)
    plan = complete(PLAN.tensors, modules, PLAN.groups, ())
    assert decode_plan(encode_plan(plan)) == plan


def test_inputs_may_be_empty() -> None:
    plan = PLAN.replace(inputs=("tuple", ("tuple", ("tensor", (0, 3), "float32")), ("dict",)))
    assert decode_plan(encode_plan(plan)) == plan


def test_a_dimension_that_was_empty_stays_empty() -> None:
    group = PlanGroup("w:0", "channels", 4, 1, (Member("w", 0, (Run(0, 4, 0, 1),)),), "", (1,))
    plan = complete((TensorSpec(("w",), (4, 0), "parameter"),), (), (group,), ())
    assert decode_plan(encode_plan(plan)) == plan
    assert plan.cuts["w"].shape == (3, 0)


def test_what_no_file_can_hold_is_refused_when_it_is_saved(tmp_path: Path) -> None:
    change = AttributeChange("a", "scale", 0.5, object())
    for bad in (
        PLAN.replace(attributes=(change,)),
        PLAN.replace(inputs=["list", ()]),
        PLAN.replace(requires=("magic",)),
        PLAN.replace(groups=(replace(PLAN.groups[0], removed=(6,)), *PLAN.groups[1:])),
        PLAN.replace(groups=(replace(PLAN.groups[0], removed=(4, 1)), *PLAN.groups[1:])),
        PLAN.replace(tensors=PLAN.tensors[1:]),
        PLAN.replace(shapes=b"short"),
    ):
        with pytest.raises(FileError, match="this plan cannot be saved"):
            save_plan(bad, tmp_path / "a.plan")
    assert list(tmp_path.iterdir()) == []


# limits


def test_limits_name_themselves_and_can_be_raised() -> None:
    with pytest.raises(LimitExceeded, match=r"3 exceeds the limit of 2 groups.*groups=3"):
        decode_plan(FILE, limits=Limits(groups=2))
    assert decode_plan(FILE, limits=Limits(groups=3)) == PLAN
    with pytest.raises(LimitExceeded, match="file"):
        decode_plan(FILE, limits=Limits(file=100))


def test_a_large_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large.plan"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    tracemalloc.start()
    with pytest.raises(LimitExceeded, match=str(1 << 40)):
        load_plan(path, limits=Limits(file=1 << 10))
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("size", [1 << 30, 1 << 47])
def test_a_small_file_cannot_claim_a_large_removal(size: int) -> None:
    run = Run(0, 2, 0, size // 2, size // 2)
    group = PlanGroup("w:0", "channels", 2, 1, (Member("w", 0, (run,)),), "", ())
    whole = complete((TensorSpec(("w",), (size,), "parameter"),), (), (group,), ())
    body = body_of(whole)
    assert decode_plan(seal(KIND, msgpack.packb(body))) == whole
    body["groups"][0]["removed"] = b"\x01"
    tracemalloc.start()
    assert f"{size} exceeds the limit" in refusal(body)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_large_row_of_attributes_cannot_be_used_without_end() -> None:
    body = body_of(PLAN)
    body["structural"] = [[["mode", ["x" * 1000] * 1000]]]
    body["modules"] = [{"attributes": 0, "path": f"m{i}"} for i in range(100)]
    assert "exceeds the limit of 33554432 attribute_bytes" in refusal(body)


def test_a_small_file_cannot_hold_units_without_end() -> None:
    body = body_of(PLAN)
    body["groups"][0] |= {"size": 1 << 23, "removed": b"\xff" * (1 << 20)}
    assert "units" in refusal(body)


def test_runs_that_every_range_repeats_are_counted() -> None:
    size, ranges = 40, 30
    dense = Member("w", 1, tuple(Run(i, 1, i, 1) for i in range(size)))
    first = Member("a", 0, (Run(0, size + ranges, 0, 1),))
    ragged = tuple(
        Member("w", 1, (Run(size + i, 1, size, 1),), Over(0, i, i + 1)) for i in range(ranges)
    )
    members = (first, dense, *ragged)
    group = PlanGroup("a:0", "cells", size + ranges, 1, members, "", ())
    tensors = (
        TensorSpec(("a",), (size + ranges,), "parameter"),
        TensorSpec(("w",), (ranges, size + 1), "parameter"),
    )
    plan = complete(tensors, (), (group,), ())
    assert decode_plan(encode_plan(plan)) == plan
    with pytest.raises(LimitExceeded, match="indices"):
        decode_plan(encode_plan(plan), limits=Limits(indices=50_000))


@given(plans())
def test_shapes_are_counted_as_the_executor_cuts_them(plan: Plan) -> None:
    tables = Tables(plan, Limits())
    expected = {name: cut.shape for name, cut in plan.cuts.items()}
    assert shapes_after(plan, tables) == expected


@pytest.mark.parametrize(
    ("span", "repeats", "stride"),
    [(1 << 24, 1, 0), (1, 1 << 23, 2), (3, 1 << 20, 2), (3, 300_000, 2)],
)
def test_a_file_of_valid_form_costs_memory_as_its_size_does(
    span: int, repeats: int, stride: int
) -> None:
    """R4: 1 MiB and 32 times the file, whatever its members claim."""
    runs = (Run(0, 1, 0, 1, span, repeats, stride), Run(1, 1, 1 << 25, 1))
    members = (Member("a", 0, (Run(0, 2, 0, 1),)), Member("w", 0, runs))
    sizes = {"a": 2, "w": (1 << 25) + 1}
    tensors = tuple(TensorSpec((name,), (size,), "parameter") for name, size in sizes.items())
    group = PlanGroup("w:0", "channels", 2, 1, members, "", ())
    body = msgpack.unpackb(to_body(complete(tensors, (), (group,), ())))
    body["groups"][0]["removed"] = b"\x01"
    assert peak(body) < (1 << 20) + 32 * len(msgpack.packb(body))


def peak(body: Any) -> int:
    """The most memory that Python's allocator held while a body was decoded or refused."""
    sealed = seal(KIND, msgpack.packb(body))
    tracemalloc.start()
    with suppress(FileError):
        decode_plan(sealed)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


# compression of index maps


@given(st.integers(1, 6), st.integers(1, 6), st.data())
def test_compressed_runs_expand_to_the_pairs_they_were_made_of(
    size: int, repeats: int, data: st.DataObject
) -> None:
    order = np.array(data.draw(st.permutations(range(size * repeats))))
    chosen = data.draw(st.integers(1, size * repeats))
    units: Indices = np.repeat(np.arange(size), repeats)[:chosen]
    indices = order[:chosen]
    runs = compress(units, indices)
    expanded = Member("w", 0, runs).expand()
    assert sorted(zip(*(a.tolist() for a in expanded), strict=True)) == sorted(
        zip(units.tolist(), indices.tolist(), strict=True)
    )
    assert max(run.largest for run in runs) == indices.max()


# files


class Broken(OSError):
    """What a failing disk raises."""


@pytest.mark.parametrize("call", ["write", "fsync", "close", "replace", "fchmod"])
def test_a_failing_write_leaves_the_old_file_and_no_other(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.plan"
    path.write_bytes(b"old")
    real = getattr(os, call)

    def broken(*args: Any, **kwargs: Any) -> Any:
        if call == "close":
            real(*args, **kwargs)
        raise Broken("the disk is gone")

    with monkeypatch.context() as patched:
        patched.setattr(os, call, broken)
        with pytest.raises(Broken):
            save_plan(PLAN, path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupt_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.plan"
    path.write_bytes(b"old")

    def interrupted() -> None:
        with replacing(path) as descriptor:
            os.write(descriptor, b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda fd, content: real(fd, bytes(content[:7])))
        write_file(tmp_path / "a", FILE)
    assert (tmp_path / "a").read_bytes() == FILE


def test_the_directory_is_flushed_after_the_file_is_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, rename = os.fsync, os.replace

    def note_fsync(descriptor: int) -> None:
        directory = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        calls.append("fsync directory" if directory else "fsync")
        fsync(descriptor)

    def note_replace(source: Any, target: Any, **kwargs: Any) -> None:
        calls.append("replace")
        rename(source, target, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", note_fsync)
        patched.setattr(os, "replace", note_replace)
        write_file(tmp_path / "a", b"new")
    assert calls == ["fsync", "replace", "fsync directory"]


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o664, 0o666, 0o777])
def test_a_replaced_file_keeps_its_mode(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "a.plan"
    path.write_bytes(b"old")
    path.chmod(mode)
    save_plan(PLAN, path)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_new_file_has_the_mode_that_open_gives(tmp_path: Path) -> None:
    save_plan(PLAN, tmp_path / "a.plan")
    (tmp_path / "b").touch()
    assert (tmp_path / "a.plan").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "a.plan", tmp_path / "link"
    target.write_bytes(b"old")
    link.symlink_to(target)
    save_plan(PLAN, link)
    assert link.is_symlink()
    assert load_plan(link) == load_plan(target) == PLAN


def test_a_loop_of_links_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(OSError, match="symbolic links"):
        load_plan(tmp_path / "a")
    with pytest.raises(OSError, match="symbolic links"):
        save_plan(PLAN, tmp_path / "a")


def test_a_missing_directory_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        save_plan(PLAN, tmp_path / "none" / "a.plan")
    with pytest.raises(FileNotFoundError):
        load_plan(tmp_path / "none" / "a.plan")
    assert list(tmp_path.iterdir()) == []


def test_directories_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsafePath, match="a directory"):
        load_plan(tmp_path)
    with pytest.raises(IsADirectoryError) as caught:
        save_plan(PLAN, tmp_path)
    assert str(caught.value) == f"[Errno {errno.EISDIR}] Is a directory: {str(tmp_path)!r}"


def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(UnsafePath, match="a pipe"):
        load_plan(pipe)
    with pytest.raises(UnsafePath, match="a pipe"):
        save_plan(PLAN, pipe)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_device_is_refused() -> None:
    with pytest.raises(UnsafePath, match="a device"):
        load_plan(os.devnull)
    with pytest.raises(UnsafePath, match="a device"):
        write_file(os.devnull, b"")


def test_a_file_that_shrinks_meanwhile_is_truncated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.plan"
    save_plan(PLAN, path)
    real = os.fstat

    def shrink(descriptor: int) -> os.stat_result:
        status = real(descriptor)
        os.truncate(path, 100)
        return status

    monkeypatch.setattr(os, "fstat", shrink)
    with pytest.raises(TruncatedFile, match=str(path)):
        load_plan(path)


def test_a_file_is_read_whole_up_to_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 10_000)
    assert read_file(path, 10_000) == b"x" * 10_000
    with pytest.raises(LimitExceeded, match="10000 bytes exceeds the limit of 9999"):
        read_file(path, 9_999)


def test_errors_begin_with_the_path(tmp_path: Path) -> None:
    path = tmp_path / "a.plan"
    path.write_bytes(FILE[:-1])
    with pytest.raises(TruncatedFile, match=f"^{path}: byte {len(FILE) - 1}"):
        load_plan(path)


def test_the_public_names_are_five() -> None:
    assert sorted(codec.__all__) == sorted(
        ["Limits", "decode_plan", "encode_plan", "load_plan", "save_plan"]
    )


def test_digests_of_the_example_follow_from_its_tables() -> None:
    assert PLAN.source.tensors == tensors_digest(PLAN.tensors)
    assert PLAN.source.structure == structure_digest(PLAN.groups)
