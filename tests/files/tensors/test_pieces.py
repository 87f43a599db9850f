"""Claims of pieces that are put together: they are the whole, whichever part of it is read and
wherever it was cut; what lies outside, ends early, changes meanwhile or is of
another kind is refused by name.
"""

from __future__ import annotations

import itertools
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from planc.errors import FileError, LimitExceeded, MalformedFile, ShardMismatch, TruncatedFile
from planc.files.disk.limits import DEFAULT, Limits
from planc.files.tensors import reader, shards
from planc.files.tensors.distributed import KEY, find_pieces, is_distributed
from planc.files.tensors.pieces import JoinedFile, Piece, Whole, _near, join, open_joined
from planc.files.tensors.shards import find_shards, open_shard
from planc.files.tensors.writer import TensorWriter


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


class Noting:
    """A file of which is noted what is read."""

    def __init__(self, content: bytes) -> None:
        self.content, self.read_at = content, list[tuple[int, int]]()

    def read(self, at: int, into: np.ndarray[Any, Any]) -> None:
        self.read_at.append((at, into.nbytes))
        into[:] = np.frombuffer(self.content[at : at + into.nbytes], into.dtype)


def read_from(path: Path, whole: Whole) -> tuple[JoinedFile, Noting]:
    noting: Any = Noting(path.read_bytes())
    return JoinedFile(join({"w": whole}, DEFAULT), {path: noting}), noting


def all_of(file: JoinedFile) -> list[int]:
    [entry] = file.header.entries
    into = np.empty(entry.stop - entry.start, dtype=np.uint8)
    file.read_into(entry, 0, into)
    found: list[int] = into.tolist()
    return found


def test_what_lies_together_is_read_at_once(path: Path) -> None:
    file, noting = read_from(path, Whole("U8", (4, 6), (Piece(path, 8, (4, 6), (0, 0)),)))
    assert all_of(file) == [*range(8, 32)]
    assert noting.read_at == [(8, 24)]
    rows = (Piece(path, 8, (1, 6), (0, 0)), Piece(path, 20, (3, 6), (1, 0)))
    file, noting = read_from(path, Whole("U8", (4, 6), rows))
    assert all_of(file) == [*range(8, 14), *range(20, 38)]
    assert noting.read_at == [(8, 6), (20, 18)]
    columns = (Piece(path, 0, (2, 2, 3), (0, 0, 0)), Piece(path, 12, (2, 1, 3), (0, 2, 0)))
    file, noting = read_from(path, Whole("U8", (2, 3, 3), columns))
    assert noting.read_at == []
    all_of(file)
    assert noting.read_at == [(0, 6), (12, 3), (6, 6), (15, 3)]


def test_a_piece_in_another_order_is_read_once_and_alone(path: Path) -> None:
    rows = (Piece(path, 8, (2, 6), (0, 0), (1, 2)), Piece(path, 20, (2, 6), (2, 0), (1, 2)))
    file, noting = read_from(path, Whole("U8", (4, 6), rows))
    [entry] = file.header.entries
    for start in range(0, 24, 5):
        file.read_into(entry, start, np.empty(min(5, 24 - start), dtype=np.uint8))
    assert noting.read_at == [(8, 12), (20, 12)]


def test_one_piece_in_another_order_is_held_at_a_time(tmp_path: Path) -> None:
    size = 1 << 20
    (tmp_path / "a").write_bytes(bytes(2 * size))
    whole = Whole(
        "U8",
        (2, 1024, 1024),
        tuple(
            Piece(tmp_path / "a", i * size, (1, 1024, 1024), (i, 0, 0), (0, 1, 1024))
            for i in (0, 1)
        ),
    )
    with open_joined(join({"w": whole}, DEFAULT)) as file:
        tracemalloc.start()
        for start in (0, size):
            file.read_into(file.header.entries[0], start, np.empty(1, dtype=np.uint8))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 2.5 * size


def test_a_piece_is_looked_for_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Any] = []
    real = Piece.holds
    monkeypatch.setattr(Piece, "holds", lambda *args: looked.append(args) or real(*args))
    columns = (Piece(path, 0, (9, 1), (0, 0)), Piece(path, 9, (9, 1), (0, 1)))
    file, _ = read_from(path, Whole("U8", (9, 2), columns))
    assert all_of(file) == [n for row in range(9) for n in (row, 9 + row)]
    assert len(looked) == 3  # the first is looked at for both


@pytest.mark.parametrize("dim", [0, 1])
def test_pieces_that_lie_apart_are_not_compared(path: Path, dim: int) -> None:
    def piece(i: int) -> Piece:
        return Piece(path, 0, (4, 2)[:: 1 if dim else -1], (0, 2 * i)[:: 1 if dim else -1])

    whole = Whole("U8", (4, 8)[:: 1 if dim else -1], tuple(map(piece, (2, 0, 3, 1))))
    assert list(_near(whole)) == []
    again = Whole(whole.dtype, whole.shape, (*whole.pieces, piece(3)))
    assert list(_near(again)) == [(piece(3), piece(3))]


def test_files_are_closed_when_pieces_were_read(path: Path) -> None:
    joined = join({"w": Whole("U8", (8,), (Piece(path, 0, (8,), (0,)),))}, DEFAULT)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with open_joined(joined):
        assert len(list(Path("/proc/self/fd").iterdir())) == before + 1
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_files_of_pieces_are_read_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a long file that was not in the system's cache, nothing stays there."""
    monkeypatch.setattr(reader, "_LONG", 0)
    monkeypatch.setattr(reader, "_is_cached", lambda *_: False)
    forgotten: list[tuple[int, int]] = []
    monkeypatch.setattr(
        reader.os, "posix_fadvise", lambda _, at, length, __: forgotten.append((at, length))
    )
    with open_joined(join({"w": Whole("U8", (8,), (Piece(path, 5, (8,), (0,)),))}, DEFAULT)) as f:
        all_of(f)
    assert forgotten == [(0, 13)]


def test_files_of_pieces_hold_as_much_as_those_of_other_tools(tmp_path: Path) -> None:
    """5 GiB; the files are without content, and take no room."""
    half = 5 << 29
    for more, expected in ((0, [["u", "v"]]), (1, [["u"], ["v"]])):
        os.truncate(_touched(tmp_path / "a"), 2 * half + more)
        pieces = {
            name: Whole("U8", (size,), (Piece(tmp_path / "a", start, (size,), (0,)),))
            for name, start, size in (("u", 0, half), ("v", half, half + more))
        }
        found = shards.joined_set(tmp_path, join(pieces, DEFAULT))
        assert [[e.name for e in shard.header.entries] for shard in found.shards] == expected
    assert found.index is not None
    assert found.index.rest == {"metadata": {"total_size": 2 * half + 1}}


def _touched(path: Path) -> Path:
    path.touch()
    return path


@st.composite
def cut_arrays(draw: st.DrawFn) -> tuple[np.ndarray[Any, Any], list[tuple[slice, ...]]]:
    """An array, and boxes that cover it: cut along all dimensions, or one box in two again."""
    shape = tuple(draw(st.lists(st.integers(0, 5), max_size=3)))
    bounds = [sorted({0, n, *draw(st.lists(st.integers(0, n), max_size=2))}) for n in shape]
    sides = [[slice(*pair) for pair in itertools.pairwise(b)] or [slice(0, 0)] for b in bounds]
    boxes = draw(st.permutations(list(itertools.product(*sides))))
    if shape and boxes[0][-1].stop - boxes[0][-1].start > 1:
        start, stop = boxes[0][-1].start, boxes[0][-1].stop
        ends = ((start, start + 1), (start + 1, stop))
        boxes = [*boxes[1:], *((*boxes[0][:-1], slice(*end)) for end in ends)]
    array = np.arange(
        np.prod(shape, dtype=int), dtype=draw(st.sampled_from(["u1", "<i2", "<f4", "<i8"]))
    )
    return array.reshape(shape), boxes


@given(cut=cut_arrays(), found=st.data())
@settings(max_examples=80, deadline=None)
def test_any_part_of_a_tensor_is_read_wherever_it_was_cut(
    tmp_path_factory: pytest.TempPathFactory, cut: Any, found: st.DataObject
) -> None:
    array, boxes = cut
    directory, pieces = tmp_path_factory.mktemp("pieces"), []
    for i, box in enumerate(boxes):
        part = array[box]
        transposed = found.draw(st.booleans())  # its values lie in Fortran's order
        strides = tuple(s // array.itemsize for s in np.empty_like(part, order="F").strides)
        (directory / str(i)).write_bytes(b"x" * 3 + part.tobytes("F" if transposed else "C"))
        offsets = tuple(side.start for side in box)
        pieces.append(
            Piece(directory / str(i), 3, part.shape, offsets, strides if transposed else None)
        )
    kind = {"u1": "U8", "i2": "I16", "f4": "F32", "i8": "I64"}[array.dtype.str[1:]]
    start = found.draw(st.integers(0, array.nbytes))
    into = np.empty(found.draw(st.integers(0, array.nbytes - start)), dtype=np.uint8)
    with open_joined(join({"w": Whole(kind, array.shape, tuple(pieces))}, DEFAULT)) as file:
        file.read_into(file.header.entries[0], start, into)
    assert into.tobytes() == array.tobytes()[start : start + len(into)]


@pytest.mark.parametrize(("most", "files"), [(64, 1), (63, 2), (32, 2), (31, 4), (1, 4)])
def test_pieces_in_a_directory_become_files_of_at_most_a_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, files: int
) -> None:
    """A tensor that is larger than the most has a file of its own."""
    monkeypatch.setattr(shards, "SHARD_SIZE", most)
    (tmp_path / "in").mkdir()
    whole = {name: np.arange(4, dtype="f4") + i for i, name in enumerate("uvwx")}
    for rank in (0, 1):
        held = {name: array[2 * rank : 2 * rank + 2] for name, array in whole.items()}
        listed = ", ".join(f'"{name}": {{"saved_offsets": [{2 * rank}]}}' for name in held)
        save_file(held, tmp_path / "in" / f"{rank}.safetensors", {KEY: "{" + listed + "}"})
    found = find_shards(tmp_path / "in")
    assert len(found.shards) == files
    assert (found.index is None) == (files == 1)
    assert found.index is None or found.index.rest == {"metadata": {"total_size": 64}}
    read: dict[str, Any] = {}
    for shard in found.shards:
        assert shard.header.metadata == {"format": "pt"}
        assert sorted(path.name for path in shard.files) == ["0.safetensors", "1.safetensors"]
        with (
            open_shard(shard) as file,
            (tmp_path / shard.name).open("wb") as out,
            TensorWriter(out.fileno(), shard.header.entries, shard.header.metadata) as writer,
        ):
            for entry in shard.header.entries:
                writer.add(entry, file.chunks(entry, 5))
            writer.finish()
        held = load_file(tmp_path / shard.name)
        assert sum(array.nbytes for array in held.values()) <= max(most, 16)
        assert found.index is None or {found.index.shards[name] for name in held} == {shard.name}
        read |= held
    assert read.keys() == whole.keys()
    assert all(np.array_equal(read[name], whole[name]) for name in whole)


WRONG: list[tuple[Any, type[FileError] | type[ShardMismatch], str]] = [
    ([(0, (4,), (0,)), (4, (4,), (5,))], ShardMismatch, r"has \(4,\) of it at \(5,\)"),
    ([(0, (4,), (-1,))], ShardMismatch, "it is of shape"),
    ([(60, (8,), (0,))], TruncatedFile, "byte 64: the file ends here, w goes on to byte 68"),
    ([(-1, (8,), (0,))], TruncatedFile, "copy it again"),
    ([(0, (5,), (0,)), (4, (4,), (4,))], ShardMismatch, "both have part of it"),
    ([(0, (3,), (0,)), (4, (4,), (4,))], ShardMismatch, "hold 7 of the 8 values"),
    ([(0, (0,), (3,)), (0, (7,), (0,))], ShardMismatch, "hold 7 of the 8 values"),
    ([], ShardMismatch, "hold 0 of the 8 values"),
]


@pytest.mark.parametrize(("pieces", "kind", "words"), WRONG)
def test_pieces_that_do_not_make_a_tensor_are_refused(
    path: Path, pieces: Any, kind: type[Exception], words: str
) -> None:
    whole = Whole("U8", (8,), tuple(Piece(path, *piece) for piece in pieces))
    with pytest.raises(kind, match=words):
        join({"w": whole}, DEFAULT)


def test_a_scalar_that_two_files_have_is_refused(path: Path) -> None:
    piece = Piece(path, 0, (), ())
    join({"w": Whole("U8", (), (piece,))}, DEFAULT)
    with pytest.raises(ShardMismatch, match=r"w: .* both have part of it"):
        join({"w": Whole("U8", (), (piece, piece))}, DEFAULT)


@pytest.mark.parametrize("dtype", ["F4", "F99"])
def test_pieces_of_half_bytes_or_an_unknown_kind_are_refused(path: Path, dtype: str) -> None:
    with pytest.raises(MalformedFile, match=f"pieces of {dtype} cannot be joined"):
        join({"w": Whole(dtype, (8,), (Piece(path, 0, (8,), (0,)),))}, DEFAULT)


def test_a_piece_of_nothing_may_lie_anywhere(path: Path) -> None:
    pieces = (Piece(path, 0, (8,), (0,)), Piece(path, 0, (0,), (3,)), Piece(path, 9, (0,), (8,)))
    joined = join({"w": Whole("U8", (8,), pieces)}, DEFAULT)
    into = np.empty(8, dtype=np.uint8)
    with open_joined(joined) as file:
        file.read_into(file.header.entries[0], 0, into)
    assert into.tobytes() == bytes(range(8))


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
        None,
    ],
)
def test_a_piece_whose_place_is_not_said_is_refused(tmp_path: Path, listed: str | None) -> None:
    metadata = {} if listed is None else {KEY: listed}
    save_file({"w": np.zeros(4, "f4")}, tmp_path / "1.safetensors", metadata)
    with pytest.raises(MalformedFile, match=rf"1\.safetensors: {KEY}(:| has .* for w of)"):
        find_pieces([tmp_path / "1.safetensors"])


def test_what_is_listed_for_a_piece_is_quoted_in_part(tmp_path: Path) -> None:
    path = tmp_path / "1.safetensors"
    save_file({"w": np.zeros((4, 2), "f4")}, path, {KEY: f'{{"w": "{"x" * 99}"}}'})
    with pytest.raises(MalformedFile) as caught:
        find_pieces([path])
    assert str(caught.value) == (
        f"{path}: {KEY} has {'x' * 60} for w of shape (4, 2); save the checkpoint again"
    )


def test_all_places_of_a_piece_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "1.safetensors"
    save_file({"w": np.zeros((4, 2), "f4")}, path, {KEY: '{"w": {"saved_offsets": [0, true]}}'})
    with pytest.raises(MalformedFile, match=r"has {'saved_offsets': \[0, True\]} for w of shape"):
        find_pieces([path])


def test_pieces_that_do_not_say_where_they_lie_are_named(tmp_path: Path) -> None:
    save_file({"w": np.zeros(4, "f4")}, tmp_path / "1.safetensors")
    with pytest.raises(MalformedFile, match=f"{KEY} has None for w of shape"):
        find_pieces([tmp_path / "1.safetensors"])


def test_files_are_pieces_if_all_say_so(tmp_path: Path) -> None:
    for name, metadata in (("1", {KEY: "{}"}), ("2", {KEY: "{}"}), ("3", {"format": "pt"})):
        save_file({"w": np.zeros(4, "f4")}, tmp_path / name, metadata)
    one, two, other = (tmp_path / name for name in "123")
    assert is_distributed([one, two])
    assert not is_distributed([one, two, other])
    assert not is_distributed([other])
    assert not is_distributed([])
