"""The digest of weights depends on names, dtypes, shapes and values, and on nothing else."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest

from planc.errors import PlancWarning
from planc.plan.plan import TensorSpec
from planc.plan.weights import Row, warn_if_different, weights_digest, with_origin
from tests.support.strategies import example_plan

SPECS = (
    TensorSpec(("a", "tied"), (2,), "parameter"),
    TensorSpec(("b",), (3,), "parameter"),
    TensorSpec(("steps",), (), "buffer"),
)
ROWS: dict[str, Row] = {"a": ("float32", (2,), b"a" * 32), "b": ("float32", (3,), b"b" * 32)}
DIGEST = weights_digest(SPECS, ROWS)
PLAN = example_plan()


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
