"""The laws of mask files, as for plan files: what is written is read again, and nothing else is."""

from __future__ import annotations

import random
import tracemalloc
from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given

import planc
from planc.errors import CorruptFile, FileError, NotAPlancFile, TruncatedFile
from planc.files.formats import Limits, encode_plan
from planc.files.formats.envelope import seal, unseal
from planc.files.formats.kinds import load_any
from planc.files.formats.masks import decode_masks, encode_masks, load_masks, save_masks
from planc.plan.masks import MaskPlan, TensorMask, mask_plan
from planc.plan.plan import Provenance, TensorSpec
from tests.files.formats.test_codec import set_in
from tests.fuzz.mutants import Mutants
from tests.masks.drawn import mask_plans
from tests.support.strategies import example_plan

KIND = b"planc/mask"
MUTANTS = 20_000
TABLE = (
    TensorSpec(("a.weight", "tied"), (3, 5), "parameter"),
    TensorSpec(("a.bias",), (3,), "parameter"),
    TensorSpec(("a.table",), (2, 2, 4), "buffer"),
)
MASKS = mask_plan(
    TABLE,
    {"a.weight": np.arange(15).reshape(3, 5) % 3 == 0, "a.table": np.ones((2, 2, 4), dtype=bool)},
    (Provenance("magnitude", "unstructured(0.5)", 3, (("planc", "0.1.0"),)),),
)
FILE = encode_masks(MASKS)


def body() -> Any:
    return msgpack.unpackb(unseal(KIND, FILE))


def refusal(content: Any) -> str:
    with pytest.raises(FileError) as caught:
        decode_masks(seal(KIND, msgpack.packb(content)))
    return f"{type(caught.value).__name__}: {caught.value}"


@given(mask_plans())
def test_a_saved_mask_plan_loads_equal(masks: MaskPlan) -> None:
    content = encode_masks(masks)
    assert decode_masks(content) == masks
    assert encode_masks(decode_masks(content)) == content


def test_files_of_each_kind_are_told_apart(tmp_path: Path) -> None:
    save_masks(MASKS, tmp_path / "m")
    planc.save_plan(example_plan(), tmp_path / "p")
    assert load_masks(tmp_path / "m") == load_any(tmp_path / "m") == MASKS
    assert load_any(tmp_path / "p") == example_plan()
    digest = sha256(FILE).hexdigest()
    assert load_masks(tmp_path / "m", sha256=digest) == MASKS
    with pytest.raises(CorruptFile, match=digest):
        load_masks(tmp_path / "m", sha256="0" * 64)
    with pytest.raises(NotAPlancFile, match="is a mask plan, not a plan; planc show prints it"):
        planc.load_plan(tmp_path / "m")
    with pytest.raises(NotAPlancFile, match="is a plan, not a mask plan"):
        load_masks(tmp_path / "p")


def test_an_element_costs_a_bit() -> None:
    table = (TensorSpec(("w",), (1000, 800), "parameter"),)
    chosen = np.random.default_rng(0).random((1000, 800)) < 0.5
    assert len(encode_masks(mask_plan(table, {"w": chosen}))) < 100_000 + 200


def test_every_truncation_and_every_flipped_bit_is_refused() -> None:
    for length in range(len(FILE)):
        with pytest.raises((TruncatedFile, NotAPlancFile)):
            decode_masks(FILE[:length])
    content = bytearray(FILE)
    for bit in range(8 * len(FILE)):
        content[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FileError):
            decode_masks(bytes(content))
        content[bit // 8] ^= 1 << bit % 8


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (set_in("masks.0.tensor", 3), "masks[0].tensor: row 3 after row -1 of 3"),
        (set_in("masks.1.tensor", 0), "masks[1].tensor: row 0 after row 0"),
        (set_in("masks.0.tensor", -1), "$.masks[0].tensor"),
        (set_in("masks.0.removed", b"\x01"), "1 bytes, the 15 elements of a.weight need 2"),
        (set_in("masks.0.removed", b"\x01\x80"), "padding after element 15"),
        (set_in("masks.0.removed", b"\x00\x00"), "a.weight loses nothing"),
        (set_in("masks.0.removed", "ab"), "$.masks[0].removed"),
        (set_in("masks.0", {"removed": b"\x01\x00", "tensor": 0, "zz": 0}), "`$.masks[0]`"),
        (set_in("tensors.0.shape", [1 << 40, 1 << 40]), "LimitExceeded"),
        (set_in("tensors.0.shape", [1 << 40]), "2 bytes, the 1099511627776 elements"),
        (set_in("tensors.1.names", ["tied"]), "'tied' is there twice"),
        (set_in("tensors.1.names", []), "a tensor without a name"),
        (set_in("tensors.1.kind", "weight"), "tensors[1].kind: 'weight'"),
        (set_in("provenance.0.seed", 1 << 63), "seed"),
        (set_in("provenance.0.policy", "x" * 2000), "1024 string"),
        (set_in("requires", ["quantised"]), "UnsupportedVersion"),
    ],
)
def test_a_field_that_contradicts_another_is_named(edit: Callable[[Any], None], words: str) -> None:
    content = body()
    edit(content)
    assert words in refusal(content)


@pytest.mark.parametrize("size", range(1, 19))
def test_bits_up_to_the_last_element_are_free_and_those_after_it_zero(size: int) -> None:
    masks = mask_plan(
        (TensorSpec(("w",), (size,), "parameter"),), {"w": np.arange(size) == size - 1}
    )
    content = encode_masks(masks)
    assert decode_masks(content) == masks
    changed = msgpack.unpackb(unseal(KIND, content))
    last = changed["masks"][0]["removed"]
    for bit in range(size % 8 or 8, 8):
        changed["masks"][0]["removed"] = last[:-1] + bytes([last[-1] | 1 << bit])
        assert f"masks[0].removed: padding after element {size} is not zero" in refusal(changed)


def test_unsorted_keys_are_refused() -> None:
    assert "canonical" in refusal(dict(reversed(body().items())))


def test_what_no_file_can_hold_is_refused_when_it_is_saved(tmp_path: Path) -> None:
    for bad in (
        MaskPlan(TABLE, (TensorMask("zz", b"\x01"),)),
        MaskPlan(TABLE, (TensorMask("tied", b"\x01\x00"),)),
        MaskPlan(TABLE, (TensorMask("a.bias", b"\x08"),)),
        MaskPlan(TABLE, tuple(reversed(MASKS.masks))),
        MaskPlan(list(TABLE), MASKS.masks),  # type: ignore[arg-type]
        MaskPlan(TABLE, MASKS.masks, requires=("magic",)),
    ):
        with pytest.raises(FileError, match="this mask plan cannot be saved"):
            save_masks(bad, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_limits_hold() -> None:
    with pytest.raises(FileError, match="limit of 2 tensors"):
        decode_masks(FILE, limits=Limits(tensors=2))
    with pytest.raises(FileError, match="file"):
        encode_masks(MASKS, limits=Limits(file=10))


def test_a_small_file_cannot_claim_a_large_mask() -> None:
    content = body()
    content["tensors"][0]["shape"] = [1 << 46]
    tracemalloc.start()
    refusal(content)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_mutants_with_a_right_digest_are_refused_or_harmless() -> None:
    mutants, outcomes = Mutants(unseal(KIND, FILE), random.Random(11)), Counter[str]()
    for mutant in mutants.some(MUTANTS):
        sealed = seal(KIND, mutant)
        try:
            masks = decode_masks(sealed)
        except FileError as error:
            outcomes[type(error).__name__] += 1
            continue
        assert encode_masks(masks) == sealed
        assert all(masks.elements(mask.tensor).sum() == mask.count > 0 for mask in masks.masks)
        outcomes["accepted"] += 1
    assert outcomes["MalformedFile"] > MUTANTS // 2
    assert {"accepted", "LimitExceeded"} <= set(outcomes)


def test_a_plan_file_is_no_mask_file_whatever_its_kind_says() -> None:
    with pytest.raises(FileError):
        decode_masks(seal(KIND, unseal(b"planc/plan", encode_plan(example_plan()))))
