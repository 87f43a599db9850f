"""The digest of weights depends on names, dtypes, shapes and values, and on nothing else."""

from __future__ import annotations

import struct
import warnings
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from planc.errors import PlancWarning
from planc.plan.plan import TensorSpec
from planc.plan.weights import Row, values_digest, warn_if_different, weights_digest, with_origin
from tests.support.strategies import example_plan

SPECS = (
    TensorSpec(("a", "tied"), (2,), "parameter"),
    TensorSpec(("b",), (3,), "parameter"),
    TensorSpec(("steps",), (), "buffer"),
)
ROWS: dict[str, Row] = {"a": ("float32", (2,), b"a" * 32), "b": ("float32", (3,), b"b" * 32)}
DIGEST = weights_digest(SPECS, ROWS)
PLAN = example_plan()


VALUES = np.random.default_rng(0).integers(0, 256, 5 * 65_536 + 24, dtype=np.uint8)


def digested(values: NDArray[np.uint8], piece: int = 1 << 20) -> bytes:
    pieces = [values[start : start + piece] for start in range(0, len(values), piece)]
    return values_digest(pieces, len(values))


def slowly(values: NDArray[np.uint8]) -> bytes:
    """The digest as its text says it, word by word."""
    padded = values.tobytes() + bytes(-len(values) % 65_536)
    words, row = struct.unpack(f"<{len(padded) // 8}Q", padded), [0] * 8192
    for at, word in enumerate(words):
        mixed = (row[at % 8192] ^ word) * 0x9E3779B97F4A7C15 % (1 << 64)
        row[at % 8192] = mixed ^ mixed >> 32
    return sha256(struct.pack("<8192Q", *row)).digest()


@pytest.mark.parametrize("length", [65_536, 65_537, 131_071, len(VALUES)])
def test_large_tensors_are_mixed_by_words_of_64_bits(length: int) -> None:
    assert digested(VALUES[:length]) == slowly(VALUES[:length])


@pytest.mark.parametrize("length", [0, 1, 65_535])
def test_small_tensors_have_their_sha_256(length: int) -> None:
    assert digested(VALUES[:length], 4096) == sha256(VALUES[:length].tobytes()).digest()


@pytest.mark.parametrize("piece", [65_536, 131_072, 1 << 20])
def test_the_pieces_of_a_tensor_do_not_matter(piece: int) -> None:
    assert digested(VALUES, piece) == digested(VALUES)


@given(st.sets(st.integers(0, 8 * len(VALUES) - 1), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_any_flipped_bits_change_the_digest(bits: set[int]) -> None:
    values = VALUES.copy()
    for bit in bits:
        values[bit // 8] ^= 1 << bit % 8
    assert digested(values) != digested(VALUES)


@pytest.mark.parametrize("bit", [0, 31, 62, 63])
def test_equal_changes_of_one_lane_do_not_cancel(bit: int) -> None:
    found = set()
    for rows in ((), (0, 1), (0, 2), (1, 4), (0, 1, 2, 3)):
        values = VALUES[: 5 * 65_536].copy()
        words = values.view("<u8").reshape(5, 8192)
        for row in rows:
            words[row, 7] ^= np.uint64(1 << bit)
        found.add(digested(values))
    values.view("<u8").reshape(5, 8192)[[0, 3]] = values.view("<u8").reshape(5, 8192)[[3, 0]]
    assert len(found | {digested(values)}) == 6


def planned(*weights: bytes | None) -> object:
    return PLAN.replace(
        provenance=tuple(replace(PLAN.provenance[0], weights=digest) for digest in weights)
    )


def test_the_order_of_tensors_and_names_and_buffers_do_not_matter() -> None:
    tied = TensorSpec(("tied", "a"), (2,), "parameter")
    assert weights_digest((SPECS[1], tied), {"b": ROWS["b"], "tied": ROWS["a"]}) == DIGEST
    assert weights_digest(SPECS, {**ROWS, "steps": ("int64", (), bytes(32))}) == DIGEST


@pytest.mark.parametrize(
    "row",
    [("float16", (3,), b"b" * 32), ("float32", (1, 3), b"b" * 32), ("float32", (3,), b"c" * 32)],
)
def test_a_dtype_a_shape_or_a_value_changes_the_digest(row: Row) -> None:
    assert weights_digest(SPECS, ROWS | {"b": row}) not in (DIGEST, None)


def test_a_name_changes_the_digest() -> None:
    other = (SPECS[0], TensorSpec(("c",), (3,), "parameter"))
    assert weights_digest(other, {"a": ROWS["a"], "c": ROWS["b"]}) not in (DIGEST, None)


def test_there_is_no_digest_without_all_parameters() -> None:
    assert weights_digest(SPECS, {"a": ROWS["a"]}) is None


def test_other_weights_are_warned_about_with_both_digests() -> None:
    plan = planned(b"p" * 32, b"q" * 32)
    with pytest.warns(PlancWarning, match=r"model.pt: the weights differ.*6666.*7070") as caught:
        warn_if_different(plan, b"f" * 32, "model.pt")  # type: ignore[arg-type]
    assert "compile the plan again" in str(caught[0].message)


@pytest.mark.parametrize(
    ("weights", "found"),
    [((b"p" * 32, b"q" * 32), b"p" * 32), ((None,), b"p" * 32), ((b"p" * 32,), None), ((), b"p")],
)
def test_equal_or_unknown_weights_are_not_warned_about(
    weights: tuple[bytes | None, ...], found: bytes | None
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_different(planned(*weights), found, "apply")  # type: ignore[arg-type]


def test_the_origin_of_the_last_part_is_set() -> None:
    plan = PLAN.replace(provenance=PLAN.provenance * 2)
    assert [entry.origin for entry in with_origin(plan, "file").provenance] == ["", "file"]
