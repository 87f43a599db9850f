"""The record of a checkpoint by itself: what is written is read, and nothing else is."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgpack
import pytest

from planc.errors import CorruptFile, FileError, LimitExceeded, MalformedFile, NotAPlancFile
from planc.files.disk.limits import Limits
from planc.files.formats import encode_plan
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
    plan_value,
)
from planc.files.formats.envelope import seal, unseal
from tests.files.formats.test_codec import set_in
from tests.support.strategies import example_plan

PLAN = example_plan()
ATTRIBUTES = (("n", 4), ("shape", ("tuple", 1, ("list", None))))
CHECKPOINT = Checkpoint(
    plan=PLAN,
    modules=(
        StoredModule("", "net.Net", ()),
        StoredModule("a", "torch.nn.Linear", ATTRIBUTES),
        StoredModule("b", "torch.nn.Linear", ATTRIBUTES),
    ),
    tensors=(
        StoredTensor(("a.weight", "tied.weight"), "F32", (4, 1), b"a" * 32),
        StoredTensor(("b.weight",), "BF16", (6, 8), b"b" * 32),
        StoredTensor(("buffer/steps",), "I64", (), b"c" * 32, "buffer", 1),
        StoredTensor(("optimizer/state/0",), "F32", (2,), b"d" * 32, "optimizer", 1),
    ),
    shards=(
        StoredShard("model.safetensors", 1000, b"e" * 32),
        StoredShard("model-0.planc-extra", 50, b"f" * 32),
    ),
    metadata=(("epoch", 3), ("tags", ("list", "a"))),
)
PART = Part(b"p" * 32, b"", (("a.weight", b"a" * 32), ("b.weight", b"b" * 32)))


def text_of(kind: bytes, body: Any) -> dict[str, str]:
    return {KEY: base64.b64encode(seal(kind, msgpack.packb(body))).decode()}


def body_of(text: str, kind: bytes) -> dict[str, Any]:
    body: dict[str, Any] = msgpack.unpackb(unseal(kind, base64.b64decode(text)))
    return body


def refusal(read: Callable[[], object]) -> str:
    with pytest.raises(FileError) as caught:
        read()
    return f"{type(caught.value).__name__}: {caught.value}"


def test_a_record_is_read_as_it_was_written() -> None:
    text = encode_checkpoint(CHECKPOINT)
    assert decode_checkpoint({KEY: text, "format": "pt"}) == CHECKPOINT
    assert encode_checkpoint(CHECKPOINT, plan=encode_plan(PLAN)) == text
    assert encode_checkpoint(decode_checkpoint({KEY: text})) == text


def test_equal_attributes_of_modules_are_stored_once() -> None:
    rows = body_of(encode_checkpoint(CHECKPOINT), b"planc/ckpt")
    assert [module["attributes"] for module in rows["modules"]] == [0, 1, 1]
    assert len(rows["structural"]) == 2


def test_the_length_of_a_record_does_not_depend_on_digests() -> None:
    other = tuple(replace(tensor, digest=bytes(32)) for tensor in CHECKPOINT.tensors)
    assert len(encode_checkpoint(replace(CHECKPOINT, tensors=other))) == len(
        encode_checkpoint(CHECKPOINT)
    )


@pytest.mark.parametrize("source", [b"", b"s" * 32])
def test_the_record_of_a_shard_is_read_as_it_was_written(source: bytes) -> None:
    part = replace(PART, source=source)
    assert decode_part({KEY: encode_part(part)}) == part


def test_a_value_of_a_plan_says_that_it_is_a_tuple() -> None:
    assert plan_value((1, (2, "a"))) == ("tuple", 1, ("tuple", 2, "a"))
    assert plan_value(1) == 1


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (set_in("modules.1.attributes", 2), "MalformedFile: modules[1].attributes: row 2 of 2"),
        (set_in("modules.1.attributes", 1 << 40), "modules[1].attributes: row 1099511627776 of 2"),
        (set_in("modules.1.attributes", -1), "$.modules[1].attributes"),
        (set_in("modules.1.path", ""), "modules: '' is there twice"),
        (set_in("modules.0.path", "x" * 1025), "modules[0].path: 1025 exceeds the limit of 1024"),
        (set_in("modules.0.type", "x" * 1025), "modules[0].type: 1025 exceeds the limit of 1024"),
        (set_in("modules.0.extra", 1), "MalformedFile: "),
        (set_in("structural.1.1", ["n", 1]), "structural: 'n' is there twice"),
        (set_in("tensors.0.names", []), "tensors[0]: names (), role 'state', shard 0 of 2"),
        (
            lambda body: body["tensors"][1].update(role="secret", names=["b", "c", "d"]),
            "tensors[1]: names ('b', 'c'), role 'secret', shard 0 of 2; save again",
        ),
        (set_in("tensors.1.role", "s" * 30), f"role '{'s' * 20}', shard 0 of 2"),
        (set_in("tensors.1.role", "secret"), "tensors[1]: names ('b.weight',), role 'secret'"),
        (set_in("tensors.2.shard", 2), "tensors[2]: names ('buffer/steps',), role 'buffer', shard"),
        (set_in("tensors.2.shard", -1), "$.tensors[2].shard"),
        (set_in("tensors.1.names", ["tied.weight"]), "tensors: 'tied.weight' is there twice"),
        (set_in("tensors.1.names.0", "x" * 1025), "tensors[1].names: 1025 exceeds the limit"),
        (set_in("tensors.1.shape", [1] * 33), "tensors[1]: 33 exceeds the limit of 32 rank"),
        (set_in("tensors.1.shape", [1 << 31, 1 << 31]), f"{1 << 62} exceeds the limit of"),
        (set_in("tensors.1.shape", [-1]), "$.tensors[1].shape"),
        (set_in("tensors.1.sha256", b"b" * 31), "$.tensors[1].sha256"),
        (set_in("shards", []), "tensors[0]: names ('a.weight', 'tied.weight')"),
        (set_in("shards.1.name", "model.safetensors"), "shards: 'model.safetensors' is there"),
        (set_in("shards.1.size", -1), "$.shards[1].size"),
        (set_in("shards.1.header", b""), "$.shards[1].header"),
        (set_in("metadata.0", ["epoch"]), "$.metadata[0]"),
        (set_in("requires", ["quantised"]), "UnsupportedVersion: requires: the file needs"),
        (set_in("plan", b"a plan"), "NotAPlancFile: the plan in the record: byte 0"),
    ],
)
def test_a_field_of_a_record_that_contradicts_another_is_named(
    edit: Callable[[Any], None], words: str
) -> None:
    body = body_of(encode_checkpoint(CHECKPOINT), b"planc/ckpt")
    edit(body)
    for module in body["modules"]:
        if "extra" in module:  # in its place, or the form is not canonical
            module.update({key: module.pop(key) for key in sorted(module)})
    assert words in refusal(lambda: decode_checkpoint(text_of(b"planc/ckpt", body)))


def test_values_nest_as_deep_as_the_form_of_the_record_does() -> None:
    def nested(depth: int) -> Any:
        return 1 if depth == 0 else (nested(depth - 1),)

    deep = replace(CHECKPOINT, metadata=(("deep", nested(10)),))
    assert decode_checkpoint({KEY: encode_checkpoint(deep)}) == deep
    with pytest.raises(MalformedFile, match=r"\$\.metadata"):
        encode_checkpoint(replace(CHECKPOINT, metadata=(("deep", nested(11)),)))


def test_a_record_without_shards_is_refused() -> None:
    with pytest.raises(MalformedFile, match="shards: none"):
        encode_checkpoint(replace(CHECKPOINT, shards=(), tensors=()))


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (set_in("tensors.1.name", "a.weight"), "tensors: 'a.weight' is there twice"),
        (set_in("tensors.1.sha256", b""), "$.tensors[1].sha256"),
        (set_in("source", b"s" * 33), "$.source"),
        (set_in("plan", b""), "$.plan"),
        (set_in("requires", ["quantised"]), "UnsupportedVersion: requires"),
    ],
)
def test_a_field_of_a_shard_that_contradicts_another_is_named(
    edit: Callable[[Any], None], words: str
) -> None:
    body = body_of(encode_part(PART), b"planc/part")
    edit(body)
    assert words in refusal(lambda: decode_part(text_of(b"planc/part", body)))


def test_text_that_is_no_record_is_refused() -> None:
    text = encode_part(PART)
    cases = [
        ({}, MalformedFile, "the file has no metadata 'planc', so planc did not write it"),
        ({KEY: "?" + text[1:]}, MalformedFile, "metadata 'planc': .*copy the file again"),
        ({KEY: "é"}, MalformedFile, "metadata 'planc': .*copy the file again"),
        ({KEY: text[:-1]}, MalformedFile, "metadata 'planc': .*copy the file again"),
        ({KEY: ""}, NotAPlancFile, "begins with nothing"),
        ({KEY: encode_checkpoint(CHECKPOINT)}, NotAPlancFile, "is the record of a checkpoint"),
        ({KEY: "A" * (13 << 20)}, LimitExceeded, "the checkpoint's record: .* record"),
    ]
    for metadata, kind, words in cases:
        with pytest.raises(kind, match=words):
            decode_part(metadata)
    flipped = text[:60] + ("A" if text[60] != "A" else "B") + text[61:]
    with pytest.raises(CorruptFile, match="digest"):
        decode_part({KEY: flipped})


def test_another_text_of_the_same_bytes_is_refused() -> None:
    """The bits after the last byte are not looked at by most decoders."""
    text = next(
        text
        for n in range(3)
        if (text := encode_part(replace(PART, tensors=PART.tensors[:n])))[-1] == "="
    )
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = len(text.rstrip("=")) - 1
    other = text[:last] + digits[digits.index(text[last]) ^ 1] + text[last + 1 :]
    assert base64.b64decode(other) == base64.b64decode(text)
    with pytest.raises(MalformedFile, match="not in canonical form"):
        decode_part({KEY: other})


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(modules=2), "modules: 3 exceeds the limit of 2 modules"),
        (Limits(tensors=3), "tensors: 4 exceeds the limit of 3 tensors"),
        (Limits(shards=1), "shards: 2 exceeds the limit of 1 shards"),
        (Limits(rank=1), "tensors[0]: 2 exceeds the limit of 1 rank"),
        (Limits(elements=47), "tensors[1]: 48 exceeds the limit of 47 elements"),
        (Limits(string=10), "modules[1].type: 15 exceeds the limit of 10 string"),
        (Limits(attribute_bytes=20), "modules: "),
        (Limits(record=100), "the checkpoint's record"),
    ],
)
def test_limits_hold_for_records(limits: Limits, words: str) -> None:
    text = encode_checkpoint(CHECKPOINT)
    generous = replace(limits, file=1 << 20)
    for attempt in (
        lambda: decode_checkpoint({KEY: text}, limits=generous),
        lambda: encode_checkpoint(CHECKPOINT, plan=encode_plan(PLAN), limits=generous),
    ):
        assert words in refusal(attempt)


def test_a_record_is_measured_before_it_is_read() -> None:
    text = encode_part(PART)
    size = len(text) // 4 * 3
    assert decode_part({KEY: text}, limits=Limits(record=size)) == PART
    with pytest.raises(LimitExceeded, match=f"record: {size} exceeds the limit of {size - 1} rec"):
        decode_part({KEY: text}, limits=Limits(record=size - 1))
    body = len(msgpack.packb(body_of(encode_checkpoint(CHECKPOINT), b"planc/ckpt")))
    assert encode_checkpoint(CHECKPOINT, limits=Limits(record=body))
    with pytest.raises(LimitExceeded, match=f"record: {body} exceeds the limit of {body - 1} rec"):
        encode_checkpoint(CHECKPOINT, limits=Limits(record=body - 1))


def test_what_is_as_large_as_a_limit_is_read() -> None:
    text = encode_checkpoint(CHECKPOINT)
    used = 2 * len(msgpack.packb(ATTRIBUTES)) + 1
    tight = Limits(shards=2, modules=3, tensors=5, attribute_bytes=max(used, 200))
    assert decode_checkpoint({KEY: text}, limits=tight) == CHECKPOINT
    with pytest.raises(LimitExceeded, match=f"modules: {used} exceeds"):
        encode_checkpoint(
            CHECKPOINT, plan=encode_plan(PLAN), limits=Limits(attribute_bytes=used - 1)
        )
