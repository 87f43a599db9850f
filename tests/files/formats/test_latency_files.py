"""Latency files by hand: every field against the others, without a model to measure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from planc.errors import CorruptFile, FileError, LimitExceeded
from planc.files.disk.limits import DEFAULT, Limits
from planc.files.formats.kinds import load_any
from planc.files.formats.latency import LATENCIES, from_body, load_latency, save_latency, to_body
from planc.plan.latency import Grid, LatencyTable, Use

TABLE = LatencyTable(
    b"s" * 32,
    ("tuple", ("tensor", (1, 3, 16, 16), "float32")),
    "a machine",
    1,
    70,
    (
        Grid("aten.conv2d", ((1, 8), (2, 4, 16)), (1, 2, 3, 4, 5, 6), (1, 4)),
        Grid("aten.relu", (), (9,)),
        Grid("aten.linear", ((3,),), (7,)),
    ),
    (Use(0, (((0, 1),), ((1, 2), (0, 1)))), Use(1, ()), Use(2, (((2, 1),),))),
    ("aten.sort",),
)


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    save_latency(TABLE, tmp_path / "t")
    assert load_latency(tmp_path / "t") == TABLE
    assert load_any(tmp_path / "t") == TABLE
    assert from_body(to_body(TABLE), DEFAULT) == TABLE
    with pytest.raises(CorruptFile, match="was asked for"):
        load_latency(tmp_path / "t", sha256="0" * 64)
    with pytest.raises(CorruptFile, match=f"^{tmp_path / 't'}: .* was asked for"):
        load_any(tmp_path / "t", sha256="0" * 64)
    with pytest.raises(LimitExceeded, match=r"limit of 9 inputs"):
        load_any(tmp_path / "t", limits=Limits(inputs=9))
    with pytest.raises(LimitExceeded, match="exceeds the limit of 10;"):
        load_latency(tmp_path / "t", limits=Limits(file=10))
    with pytest.raises(LimitExceeded, match=r"the latency table: .* limit of 10 file"):
        save_latency(TABLE, tmp_path / "t", limits=Limits(file=10))


def grid(*axes: tuple[int, ...], times: int = 1) -> dict[str, Any]:
    return {"grids": (Grid("op", axes, (1,) * times), *TABLE.grids[1:])}


def blocks(*numbers: int) -> dict[str, Any]:
    return {"grids": (replace(TABLE.grids[0], blocks=numbers), *TABLE.grids[1:])}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"structure": b"s" * 31}, "structure: 31 bytes, a SHA-256 has 32"),
        ({"structure": b"s" * 33}, "structure: 33 bytes, a SHA-256 has 32"),
        (grid((), (1, 2), times=0), "grids[0].axes: () does not rise"),
        (grid((1, 2), (2, 2), times=4), "grids[0].axes: (2, 2) does not rise"),
        (grid((2, 1), (1, 2), times=4), "grids[0].axes: (2, 1) does not rise"),
        (grid((1, 2), (1, 2), times=3), "grids[0].nanoseconds: 3 times for 4 combinations"),
        (grid((1, 2), (1, 2), times=5), "grids[0].nanoseconds: 5 times for 4 combinations"),
        (blocks(1), "grids[0].blocks: (1,) for 2 axes: one number above 0 for each"),
        (blocks(1, 2, 3), "grids[0].blocks: (1, 2, 3) for 2 axes: one number above 0 for each"),
        (blocks(1, 0), "grids[0].blocks: (1, 0) for 2 axes: one number above 0 for each"),
        ({"inputs": ("tensor", (-1,), "float32")}, "inputs: ('tensor', (-1,), 'float32') does not"),
        ({"uses": (Use(3, ()),)}, "uses[0].grid: row 3 of 3 grids"),
        ({"uses": (Use(1, ()), Use(2, ()))}, "uses[1].widths: 0 widths for the 1 axes of grid 2"),
        ({"uses": (Use(1, (((0, 1),),)),)}, "uses[0].widths: 1 widths for the 0 axes of grid 1"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(FileError) as caught:
        from_body(to_body(replace(TABLE, **change)), DEFAULT)
    assert words in str(caught.value)


def test_a_table_holds_no_values_of_inputs() -> None:
    inputs = ("tuple", ("tuple", ("tensor", (1,), "int64", (3,))), ("dict",))
    with pytest.raises(FileError, match="a table of latencies holds no values"):
        save_latency(replace(TABLE, inputs=inputs), Path("never.latency"))


def test_a_digest_of_another_length_is_none() -> None:
    with pytest.raises(ValueError, match="sha256 has 64 hexadecimal digits, 'ab' has 2"):
        LATENCIES.decode(b"", sha256="ab")
