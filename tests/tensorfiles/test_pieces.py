"""Claims of pieces that are put together: what lies outside, ends early, changes meanwhile or is of
another kind is refused by name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from planc.codec.limits import DEFAULT, Limits
from planc.errors import FileError, LimitExceeded, MalformedFile, ShardMismatch, TruncatedFile
from planc.tensorfiles.distributed import KEY, find_pieces
from planc.tensorfiles.pieces import Piece, Whole, join, open_joined


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "a").write_bytes(bytes(range(64)))
    return tmp_path / "a"


def test_a_piece_in_another_order_is_read_in_c_order(path: Path) -> None:
    joined = join({"w": Whole("U8", (4, 6), (Piece(path, 8, (4, 6), (0, 0), (1, 4)),))}, DEFAULT)
    into = np.empty(10, dtype=np.uint8)
    with open_joined(joined) as file:
        for start in (3, 14):
            file.read_into(file.header.entries[0], start, into)
            expected = np.arange(8, 32, dtype=np.uint8).reshape(6, 4).T.reshape(-1)
            assert np.array_equal(into, expected[start : start + 10])


WRONG: list[tuple[Any, type[FileError] | type[ShardMismatch], str]] = [
    ([(0, (4,), (0,)), (4, (4,), (5,))], ShardMismatch, r"has \(4,\) of it at \(5,\)"),
    ([(0, (4,), (-1,))], ShardMismatch, "it is of shape"),
    ([(60, (8,), (0,))], TruncatedFile, "the file ends here, w goes on to byte 68"),
    ([(-1, (8,), (0,))], TruncatedFile, "copy it again"),
    ([(0, (5,), (0,)), (4, (4,), (4,))], ShardMismatch, "both have part of it"),
    ([(0, (3,), (0,)), (4, (4,), (4,))], ShardMismatch, "hold 7 of the 8 values"),
]


@pytest.mark.parametrize(("pieces", "kind", "words"), WRONG)
def test_pieces_that_do_not_make_a_tensor_are_refused(
    path: Path, pieces: Any, kind: type[Exception], words: str
) -> None:
    whole = Whole("U8", (8,), tuple(Piece(path, *piece) for piece in pieces))
    with pytest.raises(kind, match=words):
        join({"w": whole}, DEFAULT)


def test_pieces_of_half_bytes_are_refused(path: Path) -> None:
    with pytest.raises(MalformedFile, match="pieces of F4 cannot be joined"):
        join({"w": Whole("F4", (8,), (Piece(path, 0, (8,), (0,)),))}, DEFAULT)


def test_pieces_in_a_file_that_is_missing_are_refused(path: Path) -> None:
    with pytest.raises(ShardMismatch, match="this file of the checkpoint is missing"):
        join({"w": Whole("U8", (8,), (Piece(path.with_name("b"), 0, (8,), (0,)),))}, DEFAULT)


def test_a_header_beyond_the_limit_is_refused(path: Path) -> None:
    tensors = {f"w{i}": Whole("U8", (8,), (Piece(path, 0, (8,), (0,)),)) for i in range(9)}
    with pytest.raises(LimitExceeded, match="8 tensors"):
        join(tensors, Limits(tensors=8))
    with pytest.raises(LimitExceeded, match="100 header"):
        join(tensors, Limits(header=100))


def test_a_file_that_was_changed_since_is_refused(path: Path) -> None:
    joined = join({"w": Whole("U8", (8,), (Piece(path, 0, (8,), (0,)),))}, DEFAULT)
    path.write_bytes(bytes(65))
    with pytest.raises(ShardMismatch, match="was changed while it was read"), open_joined(joined):
        pass


def test_pieces_of_several_kinds_are_refused(tmp_path: Path) -> None:
    info = '{"w": {"saved_offsets": [0]}}'
    save_file({"w": np.zeros(4, "f4")}, tmp_path / "1.safetensors", {KEY: info})
    save_file({"w": np.zeros(4, "f8")}, tmp_path / "2.safetensors", {KEY: info.replace("0", "4")})
    with pytest.raises(ShardMismatch, match=r"w: is of F64 and 1 dimensions in .*, of F32 and 1"):
        find_pieces(sorted(tmp_path.iterdir()))


@pytest.mark.parametrize(
    "listed",
    [
        "",
        "3",
        "{}",
        '{"v": {"saved_offsets": [0]}}',
        '{"w": 3}',
        '{"w": {}}',
        '{"w": {"saved_offsets": 0}}',
        '{"w": {"saved_offsets": []}}',
        '{"w": {"saved_offsets": [0, 0]}}',
        '{"w": {"saved_offsets": [0.0]}}',
        '{"w": {"saved_offsets": [true]}}',
        '{"w": {"saved_offsets": ["0"]}}',
    ],
)
def test_a_piece_whose_place_is_not_said_is_refused(tmp_path: Path, listed: str) -> None:
    save_file({"w": np.zeros(4, "f4")}, tmp_path / "1.safetensors", {KEY: listed})
    with pytest.raises(MalformedFile, match=rf"1\.safetensors: {KEY}(:| has .* for w of)"):
        find_pieces([tmp_path / "1.safetensors"])
