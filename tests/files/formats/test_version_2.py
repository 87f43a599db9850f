"""The fields of format version 2: what a plan was computed from, scores, decisions and outputs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgpack
import numpy as np
import pytest

import planc
from planc.cli.report.plain import plan_from_json, plan_json
from planc.errors import FileError, LimitExceeded
from planc.files.disk.limits import DEFAULT, Limits
from planc.files.formats import decode_plan, encode_plan
from planc.files.formats.conversion import to_body
from planc.files.formats.envelope import seal
from planc.plan.plan import Latency, OutputChange, Plan
from tests.support.strategies import example_plan, full_plan

PLAN = example_plan()
KIND = b"planc/plan"


FULL = full_plan()


def refusal(plan: Plan) -> str:
    with pytest.raises(FileError) as caught:
        encode_plan(plan)
    return str(caught.value)


def body_of(plan: Plan) -> dict[str, Any]:
    body: dict[str, Any] = msgpack.unpackb(to_body(plan))
    return body


def test_every_field_is_read_as_it_was_written() -> None:
    read = decode_plan(encode_plan(FULL))
    assert read == FULL
    assert encode_plan(read) == encode_plan(FULL)
    assert read.groups[0].unit_scores is not None
    assert read.groups[0].unit_scores.tolist() == [0, 1, 2, 3, 4, 5]
    assert read.groups[1].unit_scores is None
    assert list(read.outputs[0].kept) == [0, 2, 3, 5]


def test_the_text_form_has_every_field_and_is_read_back() -> None:
    text = plan_json(FULL)
    assert text["outputs"][0] == {"name": "", "dim": 1, "size": 6, "kept": [0, 2, 3, 5]}
    assert text["provenance"][0]["weights"] == (b"w" * 32).hex()
    assert plan_from_json(text) == FULL


def test_a_text_of_version_1_has_none_of_the_fields_and_is_read() -> None:
    text = plan_json(PLAN)
    del text["outputs"]
    for group in text["groups"]:
        del group["scores"]
    for entry in text["provenance"]:
        for name in ("weights", "origin", "statistics", "decisions"):
            del entry[name]
    assert plan_from_json(text) == PLAN


@pytest.mark.parametrize("field", ["weights", "origin", "statistics", "decisions"])
def test_a_body_without_a_field_of_its_provenance_is_refused(field: str) -> None:
    body = body_of(FULL)
    del body["provenance"][0][field]
    with pytest.raises(FileError, match="canonical"):
        decode_plan(seal(KIND, msgpack.packb(body)))


def test_fields_of_version_2_in_a_file_of_version_1_are_refused() -> None:
    sealed = seal(KIND, to_body(FULL))
    with pytest.raises(FileError):
        decode_plan(sealed[:12] + b"\x01" + sealed[13:])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"origin": "disk"}, "origin: 'disk'"),
        ({"weights": b"short"}, "weights"),
        ({"statistics": b"x" * 33}, "statistics"),
        ({"decisions": ("keep\x1b[2J",)}, "cannot be seen"),
        ({"decisions": ("k" * 65_537,)}, "65537 exceeds the limit of 65536 decision"),
        ({"decisions": (3,)}, "decisions"),
    ],
)
def test_a_provenance_that_cannot_be_is_refused(change: dict[str, Any], message: str) -> None:
    entry = replace(FULL.provenance[0], **change)
    assert message in refusal(FULL.replace(provenance=(entry,)))


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (b"", "0 bytes, 6 units need 24"),
        (bytes(23), "23 bytes, 6 units need 24"),
        (bytes(28), "28 bytes, 6 units need 24"),
        (np.array([0, 1, np.nan, 3, 4, np.inf], "<f4").tobytes(), "unit 2 is not finite"),
        (np.array([0, 1, 2, 3, 4, -np.inf], "<f4").tobytes(), "unit 5 is not finite"),
    ],
)
def test_scores_that_are_not_one_finite_number_for_each_unit_are_refused(
    scores: bytes, message: str
) -> None:
    groups = (replace(FULL.groups[0], scores=scores), *FULL.groups[1:])
    assert message in refusal(FULL.replace(groups=groups))


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (OutputChange("y", 0, 4, ()), "0 indices kept of 4"),
        (OutputChange("y", 0, 4, (0, 1, 2, 3)), "4 indices kept of 4"),
        (OutputChange("y", 0, 4, (4,)), "IndexError"),
        (OutputChange("y", 0, 4, (2, 1)), "cannot"),
        (OutputChange("y", 0, 4, (1, 1)), "cannot"),
        (OutputChange("y", 0, 0, ()), "size"),
        (OutputChange("y", 32, 4, (1,)), "33 exceeds the limit of 32 rank"),
        (OutputChange("y\u202e", 0, 4, (1,)), "cannot be seen"),
        (OutputChange("", 1, 6, (1,)), "is there twice"),
    ],
)
def test_outputs_that_cannot_be_are_refused(output: OutputChange, message: str) -> None:
    assert message in refusal(FULL.replace(outputs=(*FULL.outputs, output)))


def test_the_sizes_and_the_number_of_outputs_are_bounded() -> None:
    for limits in (Limits(outputs=1), Limits(units=14)):
        with pytest.raises(LimitExceeded, match="outputs: "):
            decode_plan(encode_plan(FULL), limits=limits)


def test_a_bitmap_of_an_output_has_the_length_of_its_size() -> None:
    body = body_of(FULL)
    body["outputs"][1]["size"] = 1 << 20
    with pytest.raises(FileError, match=r"outputs\[1\].kept: 2 bytes"):
        decode_plan(seal(KIND, msgpack.packb(body)))


LATENCY = Latency(after=700, before=1_000, machine="abacus")


def test_a_latency_is_read_as_it_was_written_and_takes_no_room_where_there_is_none() -> None:
    timed = FULL.replace(latency=LATENCY)
    read = decode_plan(encode_plan(timed))
    assert read == timed != FULL
    assert encode_plan(read) == encode_plan(timed)
    assert plan_from_json(plan_json(timed)) == timed
    assert "latency" not in body_of(FULL)
    assert decode_plan(encode_plan(FULL)).latency is None


@pytest.mark.parametrize(
    "latency",
    [
        None,
        {},
        {"after": 700, "before": 1_000},
        {"after": 700, "before": -1, "machine": "abacus"},
        {"after": 0.5, "before": 1, "machine": "abacus"},
        {"after": 700, "before": 1_000, "machine": "abacus", "name": ""},
        {"after": 700, "before": 1_000, "machine": "aba\u202ecus"},
        {"after": 700, "before": 1_000, "machine": "a" * (DEFAULT.string + 1)},
    ],
)
def test_a_latency_that_cannot_be_is_refused(latency: Any) -> None:
    body = body_of(FULL) | {"latency": latency}
    with pytest.raises(FileError, match=r"latency|canonical"):
        decode_plan(seal(KIND, msgpack.packb(dict(sorted(body.items())))))


def test_scores_outputs_and_provenance_are_not_part_of_what_a_plan_does() -> None:
    assert (FULL.source, FULL.result, FULL.fingerprint) == (
        PLAN.source,
        PLAN.result,
        PLAN.fingerprint,
    )
    assert FULL.cuts.keys() == PLAN.cuts.keys()


def test_a_diff_names_scores_and_outputs() -> None:
    found = planc.diff(PLAN, FULL)
    assert [(g.name, g.described) for g in found.groups] == [
        ("a.weight:0", ("scores",)),
        ("c.weight:0", ("scores",)),
    ]
    assert found.others == ("outputs",)
