"""Boxes of cuts, sources that change while they are read, workers that die, systems without locks:
what plans on files do where little is left to chance.
"""

from __future__ import annotations

import signal
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

import planc
from planc.errors import PlancError, ShardMismatch
from planc.files.cut import apply, cutting, workers
from planc.files.cut.cutting import (
    Memory,
    Rows,
    Take,
    _stretches,
    boxes,
    chunked,
    copy_into,
    cut_into,
    taking,
)
from planc.files.cut.layout import Layout
from planc.files.disk import stream
from planc.files.disk.stream import Bytes
from planc.files.tensors.header import Entry, place
from planc.ir.groups import Indices, Member, Run
from planc.plan.plan import Cut, PlanGroup, Ragged, TensorSpec
from tests.files.cut.test_besides import WHOLE, plan_of
from tests.support.strategies import complete


def of(*indices: int) -> Indices:
    return np.array(indices, dtype=np.int64)


@pytest.mark.parametrize(
    ("rows", "first", "second", "count"),
    [
        (None, ((0, 2), (2, 4)), ((0, 1), (1, 4)), 3),
        (None, ((0, 2), (2, 4)), ((0, 2), (2, 4)), 2),
        (of(0, 2, 3), ((0, 2), (2, 4)), ((0, 3), (3, 4)), 3),
        (of(1, 3), ((0, 2), (2, 4)), ((0, 1), (1, 4)), 2),
    ],
)
def test_a_tensor_may_be_ragged_twice_over_the_same_rows(
    rows: Indices | None, first: Any, second: Any, count: int
) -> None:
    whole = np.arange(4 * 6 * 5).reshape(4, 6, 5)
    one = tuple(Ragged(*ends, of(i, i + 2, 5)) for i, ends in enumerate(first))
    two = tuple(Ragged(*ends, of(i, i + 3)) for i, ends in enumerate(second))
    kept = range(4) if rows is None else rows.tolist()
    cut = Cut((rows, None, None), ((1, 0, one), (2, 0, two)), (len(kept), 3, 2))
    found, filled = np.full(cut.shape, -1), 0
    for box in boxes(cut):
        part = whole[np.ix_(*(i for i in box.kept if i is not None))]
        found[tuple(slice(*ends) for ends in box.out)] = part
        filled += part.size
    for at, row in enumerate(kept):
        own = [next(r.kept for r in ranges if r.start <= row < r.stop) for ranges in (one, two)]
        assert found[at].tolist() == whole[row][np.ix_(*own)].tolist()
    assert (filled, len(boxes(cut))) == (found.size, count)


class Held:
    """An array as a tensor in a file, which begins at a byte; where reads begin and where to."""

    def __init__(self, whole: NDArray[Any]) -> None:
        self.bytes = whole.reshape(-1).view(np.uint8)
        self.reads: list[tuple[int, NDArray[np.uint8]]] = []

    def read_into(self, entry: Entry, start: int, into: NDArray[np.uint8]) -> None:
        self.reads.append((start, into))
        into[:] = self.bytes[start : start + len(into)]

    @property
    def spans(self) -> list[tuple[int, int]]:
        """Begin and length of each read, in bytes."""
        return [(start, len(into)) for start, into in self.reads]


def rows_of(whole: NDArray[Any], dtype: str) -> tuple[Rows, Held]:
    file: Any = Held(whole)
    return Rows(file, place([("w", dtype, whole.shape)])[0], Memory()), file


@pytest.mark.parametrize(
    ("kept", "size", "stretches", "run"),
    [
        (of(2, 3, 6, 7), 8, [1, 3], 2),
        (of(1, 2, 3, 4), 8, [1, 2, 3, 4], 1),
        (of(0, 1, 2, 3), 6, [0, 1], 2),
        (of(4, 5, 6, 7), 12, [1], 4),
        (of(0, 1, 4, 5, 6, 7), 8, [0, 2, 3], 2),
        (of(0, 1, 2, 3, 6, 7), 8, [0, 1, 3], 2),
        (of(2, 3, 4, 5, 6, 7), 8, [1, 2, 3], 2),
        (of(0, 1, 2, 3, 8, 9, 10, 11), 12, [0, 2], 4),
        (of(0, 1, 2, 6, 7, 8), 9, [0, 2], 3),
        (of(3), 4, [3], 1),
        (of(0, 3), 4, [0, 3], 1),
    ],
)
def test_what_stays_is_taken_in_the_longest_stretches(
    kept: Indices, size: int, stretches: list[int], run: int
) -> None:
    take = taking(1, kept, size)
    assert (take.axis, take.stretches.tolist(), take.run) == (1, stretches, run)
    array = np.arange(3 * size * 2).reshape(3, size, 2)
    out = np.empty(take.shape(array.shape), dtype=array.dtype)
    take.into(out, array)
    assert out.tolist() == array[:, kept].tolist()


@pytest.mark.parametrize("kept", [of(-1, 2), of(0, 1, 9), of(0, 4), of(4), of(-1)])
def test_indices_outside_of_a_dimension_are_a_fault(kept: Indices) -> None:
    with pytest.raises(AssertionError):
        taking(0, kept, 4)


def test_taking_needs_no_memory_of_its_own() -> None:
    array = np.zeros((1 << 10, 1 << 10), dtype=np.uint8)
    take = taking(1, np.arange(0, 1 << 10, 2), 1 << 10)
    out = np.empty(take.shape(array.shape), dtype=array.dtype)
    tracemalloc.start()
    take.into(out, array)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < out.nbytes // 4


@pytest.mark.parametrize(
    ("gap", "most", "expected"),
    [
        (3, 100, [(0, 4), (4, 5)]),
        (2, 100, [(0, 2), (2, 4), (4, 5)]),
        (14, 100, [(0, 5)]),
        (13, 100, [(0, 5)]),
        (12, 100, [(0, 4), (4, 5)]),
        (14, 6, [(0, 3), (3, 4), (4, 5)]),
        (14, 1, [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]),
    ],
)
def test_rows_that_lie_close_are_read_at_once(
    gap: int, most: int, expected: list[tuple[int, int]]
) -> None:
    assert list(_stretches(of(0, 1, 5, 6, 20), gap, most)) == expected


def test_a_whole_tensor_is_copied_a_block_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "BLOCK", 8)
    file: Any = Held(np.arange(20, dtype=np.uint8))
    spaces: list[Bytes] = []

    def space(size: int) -> Bytes:
        spaces.append(np.empty(size, dtype=np.uint8))
        return spaces[-1]

    copy_into(file, place([("v", "U8", (9,)), ("w", "U8", (20,))])[1], space)
    assert [len(part) for part in spaces] == [8, 8, 4]
    assert np.concatenate(spaces).tolist() == list(range(20))


@pytest.mark.parametrize("dtype", ["U8", "I16", "I32", "I64"])
def test_rows_are_read_where_they_lie(dtype: str) -> None:
    kind = {"U8": "u1", "I16": "i2", "I32": "i4", "I64": "i8"}[dtype]
    whole = np.arange(3 * 4 * 5, dtype=kind).reshape(3, 4, 5)
    rows, file = rows_of(whole, dtype)
    width = whole.itemsize
    assert rows.read((2,), 1, 3).tolist() == whole[2, 1:3].tolist()
    assert rows.read((), 1, 2).tolist() == whole[1:2].tolist()
    assert rows.read((1, 3), 2, 5).tolist() == whole[1, 3, 2:5].tolist()
    assert file.spans == [
        (45 * width, 10 * width),
        (20 * width, 20 * width),
        (37 * width, 3 * width),
    ]
    into = np.empty((2, 5), dtype=rows.dtype)
    assert rows.read((0,), 0, 2, into) is into


def test_rows_together_are_read_to_where_they_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "_GAP", 2 * 24)
    whole = np.arange(2 * 20 * 6, dtype=np.int32).reshape(2, 20, 6)
    rows, file = rows_of(whole, "I32")
    wanted = of(3, 4, 8, 9, 12)
    into = np.empty((5, 6), dtype=rows.dtype)
    rows.gather((1,), wanted, (), into)
    assert into.tolist() == whole[1][wanted].tolist()
    assert file.spans == [(23 * 24, 2 * 24), (28 * 24, 5 * 24)]
    assert [np.shares_memory(part, into) for _, part in file.reads] == [True, False]


def test_rows_that_lie_together_are_read_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "_GAP", 24)
    whole = np.arange(40 * 6, dtype=np.int32).reshape(40, 6)
    rows, file = rows_of(whole, "I32")
    wanted = of(3, 4, 30, 31, 32)
    into = np.empty((5, 6), dtype=rows.dtype)
    rows.gather((), wanted, (), into)
    assert into.tolist() == whole[wanted].tolist()
    assert [np.shares_memory(part, into) for _, part in file.reads] == [True, True]


@pytest.mark.parametrize(("last", "reads"), [(257, 1), (258, 2)])
def test_256_kib_are_sooner_read_than_skipped(last: int, reads: int) -> None:
    whole = np.zeros((300, 1 << 10), dtype=np.uint8)
    rows, file = rows_of(whole, "U8")
    rows.gather((), of(0, last), (), np.empty((2, 1 << 10), dtype=np.uint8))
    assert len(file.reads) == reads


def test_rows_of_half_bytes_cannot_be_cut() -> None:
    with pytest.raises(PlancError, match="w: F4 has elements of 4 bits, which cannot be cut; leav"):
        rows_of(np.zeros((2, 2), dtype=np.uint8), "F4")


@pytest.mark.parametrize("together", [True, False])
def test_taking_in_turn_needs_no_more_than_two_pieces_of_memory(
    together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def apart(take: Take, out: NDArray[Any], array: NDArray[Any]) -> None:
        assert not np.shares_memory(out, array)
        real(take, out, array)

    real = Take.into
    monkeypatch.setattr(Take, "into", apart)
    monkeypatch.setattr(stream, "BLOCK", 1 << 20)
    whole = np.zeros((16, 64, 1 << 10), dtype=np.uint8)
    rows, _ = rows_of(whole, "U8")
    takes = (taking(1, np.arange(0, 64, 2), 64), taking(2, np.arange(0, 1 << 10, 2), 1 << 10))
    room = np.empty((8, 32, 512 + (not together)), dtype=np.uint8)
    tracemalloc.start()
    rows.gather((), np.arange(0, 16, 2), takes, room[..., :512])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < (2 << 20) + room.nbytes // 2


def test_rows_are_read_as_far_as_memory_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "BLOCK", 3 * 24)
    whole = np.arange(20 * 6, dtype=np.int32).reshape(20, 6)
    rows, file = rows_of(whole, "I32")
    into = np.empty((7, 6), dtype=rows.dtype)
    rows.gather((), np.arange(2, 9), (), into)
    assert into.tolist() == whole[2:9].tolist()
    assert file.spans == [(2 * 24, 3 * 24), (5 * 24, 3 * 24), (8 * 24, 24)]


@pytest.mark.parametrize("wanted", [of(1, 2, 3, 7, 8, 9), np.arange(4, 10)])
@pytest.mark.parametrize("inner", [0, 1, 2])
@pytest.mark.parametrize("together", [True, False])
def test_all_that_is_taken_is_taken_in_turn(
    wanted: Indices, inner: int, together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[int] = []

    def noted(*arguments: Any) -> Take:
        runs.append(taking(*arguments).run)
        return taking(*arguments)

    monkeypatch.setattr(cutting, "taking", noted)
    whole = np.arange(10 * 4 * 6, dtype=np.int16).reshape(10, 4, 6)
    rows, _ = rows_of(whole, "I16")
    takes = (taking(1, of(0, 3), 4), taking(2, of(0, 1, 4, 5), 6))[:inner]
    expected = whole[wanted]
    for take, kept in zip(takes, (of(0, 3), of(0, 1, 4, 5)), strict=False):
        expected = np.take(expected, kept, axis=take.axis)
    room = np.full((*expected.shape[:2], expected.shape[2] + (not together)), 9999, rows.dtype)
    into = room[..., : expected.shape[2]]
    assert into.flags.c_contiguous == together
    rows.gather((), wanted, takes, into)
    assert into.tolist() == expected.tolist()
    assert runs == ([] if wanted[0] == 4 else [3])


@pytest.mark.parametrize("buffer", [64, 480, 1 << 20])  # pieces of values, of four rows, of all
def test_a_piece_is_filled_from_the_boxes_that_lie_in_it(
    monkeypatch: pytest.MonkeyPatch, buffer: int
) -> None:
    monkeypatch.setattr(stream, "BLOCK", buffer)
    whole = np.arange(16 * 6 * 5, dtype=np.int32).reshape(16, 6, 5)
    kept = (of(0, 5), of(2, 3))
    ranges = (Ragged(0, 8, kept[0]), Ragged(8, 16, kept[1]))
    cut = Cut((None, None, None), ((1, 0, ranges),), (16, 2, 5))
    file: Any = Held(whole)
    pieces: list[Bytes] = []

    def space(size: int) -> Bytes:
        pieces.append(np.empty(size, dtype=np.uint8))
        return pieces[-1]

    cut_into(file, place([("w", "I32", whole.shape)])[0], cut, space, Memory())
    found = np.concatenate(pieces).view(np.int32).reshape(cut.shape)
    assert found.tolist() == [whole[row][kept[row // 8]].tolist() for row in range(16)]


def test_tensors_without_values_are_cut_and_come_back(tmp_path: Path) -> None:
    source, target = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    member = Member("w", 0, (Run(0, 4, 0, 1),))
    group = PlanGroup("w:0", "channels", 4, 1, (member,), "", (1, 2))
    plan = complete((TensorSpec(("w",), (4, 0), "parameter"),), (), (group,), ())
    save_file({"w": np.empty((4, 0), np.int32)}, source)
    planc.apply_files(plan, source, target, keep_removed=tmp_path / "kept")
    assert load_file(target)["w"].shape == (2, 0)
    assert planc.restore_files(target, tmp_path / "kept", tmp_path / "c.safetensors")
    assert (tmp_path / "c.safetensors").read_bytes() == source.read_bytes()


@pytest.mark.parametrize(
    ("shape", "buffer", "expected"),
    [
        ((8,), 64, (0, 16)),
        ((8, 3), 64, (0, 5)),
        ((8, 4), 64, (0, 4)),
        ((8, 5), 64, (1, 16)),  # fewer than four rows would fit
        ((2, 8, 5), 64, (2, 16)),
    ],
)
def test_rows_are_of_the_first_dimension_of_which_four_fit(
    shape: tuple[int, ...], buffer: int, expected: tuple[int, int]
) -> None:
    assert chunked(shape, 4, buffer) == expected


@pytest.mark.parametrize("target", ["b.safetensors", "b"])
def test_a_source_that_changes_after_it_was_looked_at_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    source, real = tmp_path / "a.safetensors", apply.lay_out
    save_file(WHOLE, source)

    def changing(*arguments: Any) -> Layout:
        layout = real(*arguments)
        save_file({name: array.astype(np.int8) for name, array in WHOLE.items()}, source)
        return layout

    monkeypatch.setattr(apply, "lay_out", changing)
    with pytest.raises(ShardMismatch, match=r"a\.safetensors: was changed while it was read; run"):
        planc.apply_files(plan_of(), source, tmp_path / target)
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


class Deadly:
    """What kills the process that unpickles it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return signal.raise_signal, (signal.SIGKILL,)


def test_a_worker_that_dies_is_said_with_what_to_do(tmp_path: Path) -> None:
    jobs: Any = [Deadly(), Deadly()]
    with pytest.raises(PlancError, match=r"a worker died; guard the calling script.*workers=1"):
        workers._cut(jobs, 2, tmp_path)
