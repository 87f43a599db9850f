"""The limits of FILES.md, to the last unit."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

import planc
from planc.errors import (
    FileError,
    LimitExceeded,
    MalformedFile,
    NotAPlancFile,
    TrailingData,
    TruncatedFile,
)
from planc.files.disk.limits import DEFAULT, Limits
from planc.files.formats import decode_plan, encode_plan
from planc.files.formats.coverage import count, repeated
from planc.files.formats.envelope import KINDS, seal, unseal
from planc.files.formats.kinds import load_any
from planc.files.formats.masks import encode_masks, save_masks
from planc.ir.groups import Member, Run
from planc.plan.masks import mask_plan
from planc.plan.plan import AttributeChange, ModuleSpec, Plan, PlanGroup, TensorSpec
from tests.support.strategies import complete, example_plan

PLAN = example_plan()
MIB = 1 << 20


def test_limits_are_those_that_are_promised() -> None:
    assert asdict(DEFAULT) == {
        "file": 64 * MIB,
        "header": 16 * MIB,
        "index": 64 * MIB,
        "shards": 65_536,
        "record": 9 * MIB,
        "groups": 65_536,
        "members": 65_536,
        "constraints": 65_536,
        "units": 4 * MIB,
        "modules": MIB,
        "tensors": MIB,
        "string": 1024,
        "attribute_bytes": 32 * MIB,
        "decision": 65_536,
        "outputs": 65_536,
        "leaves": 1024,
        "inputs": 32_768,
        "rank": 32,
        "dimension": 281_474_976_710_655,
        "elements": 4_611_686_018_427_387_903,
        "indices": 32 * MIB,
        "marks": MIB,
    }


def test_a_digest_that_is_wrong_is_shown_beside_the_right_one() -> None:
    wrong = PLAN.replace(source=replace(PLAN.source, tensors=bytes(range(32))))
    with pytest.raises(MalformedFile) as caught:
        encode_plan(wrong)
    assert str(caught.value) == (
        "this plan cannot be saved: source.tensors: the digest is 0001020304050607..., its table "
        f"has {PLAN.source.tensors.hex()[:16]}...; compile the plan again"
    )


def test_an_attribute_of_more_than_integers_need_not_be_in_the_table_of_modules() -> None:
    """The table lists integers, booleans, strings and tuples of them, all of them."""
    for before, after, fits in (
        ((1, 0.5), (1, 0.25), True),
        ((1, None), (2, None), True),
        ((1, "a"), (2, "a"), False),
        ((), (), False),
    ):
        change = AttributeChange("a", "extra", before, after)
        plan = complete(PLAN.tensors, PLAN.modules, PLAN.groups, (change,))
        if fits:
            assert decode_plan(encode_plan(plan)) == plan
        else:
            with pytest.raises(MalformedFile, match="'a' has no attribute 'extra' in the table of"):
                encode_plan(plan)
    dotted = AttributeChange("a", "config.width", 1, 2)
    plan = complete(PLAN.tensors, PLAN.modules, PLAN.groups, (dotted,))
    assert decode_plan(encode_plan(plan)) == plan


def test_limits_show_the_bounds_that_were_changed() -> None:
    assert repr(DEFAULT) == "Limits()"
    assert repr(Limits(groups=3, file=10)) == "Limits(file=10, groups=3)"
    assert planc.Limits is Limits


def test_a_limit_is_the_most_that_is_accepted() -> None:
    limits = Limits(groups=3)
    limits.check("groups", 3, "here")
    with pytest.raises(LimitExceeded) as caught:
        limits.check("groups", 4, "here")
    assert str(caught.value) == (
        "here: 4 exceeds the limit of 3 groups; if you trust the file, pass limits=Limits(groups=4)"
    )


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("file", len(encode_plan(PLAN))),
        ("groups", 3),
        ("members", 4),
        ("constraints", 2),
        ("units", 14),
        ("modules", 3),
        ("tensors", 5),
        ("string", 25),
        ("leaves", 3),
        ("rank", 4),
        ("dimension", 12),
        ("elements", 192),
    ],
)
def test_a_plan_is_read_up_to_each_limit_and_not_beyond(name: str, most: int) -> None:
    content = encode_plan(PLAN)
    assert decode_plan(content, limits=Limits(**{name: most})) == PLAN
    where = {"file": "file", "units": "groups", "string": "text"}.get(name, "")
    with pytest.raises(LimitExceeded, match=rf": .*{where}.*: \d+ exceeds .* {most - 1} {name};"):
        decode_plan(content, limits=Limits(**{name: most - 1}))


def test_a_limit_on_a_table_names_the_table() -> None:
    for name, most in (("tensors", 4), ("modules", 2), ("groups", 2), ("constraints", 1)):
        with pytest.raises(LimitExceeded) as caught:
            decode_plan(encode_plan(PLAN), limits=Limits(**{name: most}))
        said = f"the plan: {name}: {most + 1} exceeds the limit of {most} {name}; if you trust"
        assert str(caught.value).startswith(said)


def test_units_of_all_groups_are_counted_together() -> None:
    with pytest.raises(LimitExceeded, match=r"^the plan: groups: 14 exceeds the limit of 13 units"):
        decode_plan(encode_plan(PLAN), limits=Limits(units=13))


def test_attributes_are_counted_for_each_module_that_has_them() -> None:
    rows = sum(len(msgpack.packb(module.attributes)) for module in PLAN.modules)
    content = encode_plan(PLAN)
    assert decode_plan(content, limits=Limits(attribute_bytes=rows)) == PLAN
    with pytest.raises(LimitExceeded, match=f"modules: {rows} exceeds the limit of {rows - 1}"):
        decode_plan(content, limits=Limits(attribute_bytes=rows - 1))


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (PLAN.replace(inputs=object()), "TypeError: "),
        (PLAN.replace(tensors=PLAN.tensors[1:]), "KeyError: 'a.weight'"),
        (PLAN.replace(groups=(replace(PLAN.groups[0], removed=(6,)),)), "IndexError: "),
        (PLAN.replace(groups=(replace(PLAN.groups[0], rows=4),)), "ValueError: "),
        (PLAN.replace(cost_after=replace(PLAN.cost_after, macs=1 << 70)), "OverflowError: "),
        (PLAN.replace(requires=[]), "it holds something that a file cannot, as a list or an array"),
    ],
)
def test_what_cannot_be_packed_is_refused_with_what_packing_said(plan: Plan, words: str) -> None:
    with pytest.raises(MalformedFile) as caught:
        encode_plan(plan)
    assert str(caught.value).startswith(f"this plan cannot be saved: {words}")


def nested(depth: int) -> Any:
    return 1 if depth == 0 else (nested(depth - 1),)


def test_values_nest_as_deep_as_their_types_do() -> None:
    def with_attribute(depth: int) -> Plan:
        modules = (ModuleSpec("a", (("n", nested(depth)),)),)
        return complete(PLAN.tensors, modules, PLAN.groups, ())

    def with_inputs(depth: int) -> Plan:
        value: Any = ("value", 1)
        for _ in range(depth - 1):
            value = ("tuple", value)
        return PLAN.replace(inputs=value)

    for plan in (with_attribute(4), with_inputs(32)):
        assert decode_plan(encode_plan(plan)) == plan
    refused = ((with_attribute(5), r"\$\.structural"), (with_inputs(33), "saved: inputs: Expected"))
    for plan, where in refused:
        with pytest.raises(MalformedFile, match=where):
            encode_plan(plan)


def test_a_file_of_the_wrong_length_says_where_it_ends_and_should() -> None:
    content = encode_plan(PLAN)
    size = len(content)
    for length, expected in (
        (12, 47),
        (13, 47),
        (46, 47),
        (47, 48),
        (48, 50),
        (49, 50),
        (50, size),
    ):
        with pytest.raises(TruncatedFile) as caught:
            decode_plan(content[:length])
        assert str(caught.value) == (
            f"the plan: byte {length}: the file ends here, it should go on to byte {expected} at "
            "least; copy it again"
        )
    with pytest.raises(TrailingData) as trailing:
        decode_plan(content + b"xy")
    assert str(trailing.value) == (
        f"the plan: byte {size}: the file should end here and goes on to byte {size + 2}; copy it "
        "again"
    )


def test_what_is_no_envelope_is_shown() -> None:
    content = encode_plan(PLAN)
    for changed, said in (
        (content[:13] + b"\xc5\x20" + content[15:], "byte 13: c5 20 where c4 20 begins the digest"),
        (content[:13] + b"\xc4\x21" + content[15:], "byte 13: c4 21 where c4 20 begins the digest"),
        (
            content[:47] + b"\xc7" + content[48:],
            "byte 47: c7 where a bin header (c4, c5 or c6) beg",
        ),
        (
            content[:47] + b"\xc6" + (len(content) - 50).to_bytes(4, "big") + content[50:],
            f"byte 47: the body's length {len(content) - 50} is written as c6 00 00 ",
        ),
    ):
        with pytest.raises(MalformedFile) as caught:
            decode_plan(changed)
        assert said in str(caught.value)


def test_strings_are_measured_in_bytes_of_utf_8() -> None:
    for text, size in (
        ("é" * 512, 1024),
        ("é" * 512 + "a", 1025),
        ("\U0001f600" * 256, 1024),
        ("\U0001f600" * 257, 1028),
    ):
        tensors = (*PLAN.tensors[:-1], TensorSpec((text,), (), "buffer"))
        plan = complete(tensors, PLAN.modules, PLAN.groups, PLAN.attributes)
        if size <= 1024:
            assert decode_plan(encode_plan(plan)) == plan
        else:
            with pytest.raises(LimitExceeded, match=f"{size} exceeds the limit of 1024 string"):
                encode_plan(plan)


def steps_of(plan: Plan) -> int:
    """The least budget of indices with which a plan is read."""
    content, low, high = encode_plan(plan), 0, 1 << 20
    while high - low > 1:
        middle = (low + high) // 2
        try:
            decode_plan(content, limits=Limits(indices=middle))
        except LimitExceeded:
            low = middle
        else:
            high = middle
    return high


def cut(*members: Member, removed: tuple[int, ...] = (0,), **sizes: int) -> Plan:
    group = PlanGroup("g", "channels", 4, 1, members, "", removed)
    tensors = tuple(TensorSpec((name,), (size,), "parameter") for name, size in sizes.items())
    return complete(tensors, (), (group,), ())


def test_steps_are_counted_for_what_is_written_out() -> None:
    """Each cut dimension once, each removed run's length, and 64 for each run that is compared."""
    first = Member("a", 0, (Run(0, 4, 0, 1),))
    assert steps_of(cut(first, a=10)) == 10 + 4 + 64
    assert steps_of(cut(first, a=10, removed=())) == 1
    halves = Member("a", 0, (Run(0, 2, 0, 1), Run(2, 2, 2, 1)))
    assert steps_of(cut(halves, a=10)) == 10 + 4 + 2 * 64
    assert steps_of(cut(first, Member("b", 0, (Run(0, 4, 0, 5, 5),)), a=4, b=30)) == (
        4 + 4 + 30 + 20 + 2 * 64
    )
    tail = Member("a", 0, (Run(0, 4, 4, 1),))  # of a dimension that is cut already
    assert steps_of(cut(first, tail, a=10)) == 10 + 4 + 4 + 2 * 64
    # runs that interleave are marked one by one, too
    woven = Member("a", 0, (Run(0, 2, 0, 2), Run(2, 2, 1, 2)))
    assert steps_of(cut(woven, a=10)) == 10 + 4 + 4 + 2 * 64
    assert steps_of(cut(woven, a=10, removed=())) == 4


def test_a_bitmap_is_as_long_as_what_the_runs_reach() -> None:
    runs = (Run(0, 2, 10, 4), Run(2, 2, 12, 4))  # 10, 14 and 12, 16
    every = np.ones(4, dtype=bool)
    chosen = [(run, every) for run in runs]
    for marks in (7, 8):
        assert count(chosen, "here", Limits(marks=marks)) == 4
        assert repeated(runs, "here", Limits(marks=marks)) == ""
    for attempt in (
        lambda: count(chosen, "here", Limits(marks=6)),
        lambda: repeated(runs, "here", Limits(marks=6)),
    ):
        with pytest.raises(LimitExceeded, match="here: 7 exceeds the limit of 6 marks"):
            attempt()


@pytest.mark.parametrize("leap", [1 << 8, (1 << 8) + 1])
def test_a_leap_to_a_part_that_is_not_there_is_no_larger_than_a_dimension(leap: int) -> None:
    limits = Limits(dimension=1 << 8)
    for first in (Run(0, 1, 0, leap), Run(0, 1, 0, -leap), Run(0, 1, 0, 1, 1, 1, leap)):
        plan = cut(Member("a", 0, (first, Run(1, 3, 1, 1))), a=4)
        if leap <= limits.dimension:
            assert decode_plan(encode_plan(plan, limits=limits)) == plan
        else:
            with pytest.raises(MalformedFile, match="leaps further than any index"):
                encode_plan(plan, limits=limits)


MASKS = mask_plan((TensorSpec(("w",), (3,), "parameter"),), {"w": np.array([True, False, True])})


def test_files_of_any_kind_are_read_within_the_limits(tmp_path: Path) -> None:
    save_masks(MASKS, tmp_path / "m")
    (tmp_path / "p").write_bytes(encode_plan(PLAN))
    assert load_any(tmp_path / "m", limits=Limits(tensors=1)) == MASKS
    assert load_any(tmp_path / "p", limits=Limits(tensors=5)) == PLAN
    for name in ("m", "p"):
        with pytest.raises(LimitExceeded, match=f"^{tmp_path / name}: "):
            load_any(tmp_path / name, limits=Limits(tensors=0))
        with pytest.raises(LimitExceeded, match=f"^{tmp_path / name}: "):
            load_any(tmp_path / name, limits=Limits(file=1))


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_another_kind_says_what_it_is(kind: bytes) -> None:
    said = {
        b"planc/plan": "is a plan, ",
        b"planc/mask": "is a mask plan, ",
        b"planc/ckpt": "is the record of a checkpoint, ",
        b"planc/part": "is the record of one shard of a checkpoint, ",
        b"planc/time": "is a latency table, ",
    }
    for other in KINDS:
        if other == kind:
            assert unseal(kind, seal(kind, b"body")) == b"body"
            continue
        with pytest.raises(NotAPlancFile) as caught:
            unseal(kind, seal(other, b"body"))
        message = str(caught.value)
        assert said[other] in message
        assert f"{said[kind][3:-2]} begins with 94 aa {kind.hex(' ')}" in message
    writer = {
        b"planc/plan": "planc.save_plan",
        b"planc/mask": "planc.save_masks",
        b"planc/time": "planc.save_latency",
    }.get(kind, "planc")
    for start, shown in ((b"", "nothing"), (b"{}", "7b 7d"), (b"x" * 20, " ".join(["78"] * 12))):
        with pytest.raises(NotAPlancFile) as caught:
            unseal(kind, start)
        message = str(caught.value)
        assert f"byte 0: the file begins with {shown}, {said[kind][3:-2]} begins with" in message
        assert message.endswith(f"name a file that {writer} wrote")


def test_a_mask_plan_is_no_plan() -> None:
    with pytest.raises(FileError, match="a file: byte 0: the file is a mask plan"):
        decode_plan(encode_masks(MASKS), name="a file")
