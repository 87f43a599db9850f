"""Boxes of cuts, sources that change while they are read, workers that die, systems without locks:
what plans on files do where little is left to chance.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

import planc
from planc.errors import PlancError, ShardMismatch
from planc.groups import Indices, Member, Run
from planc.plan import Cut, PlanGroup, Ragged, TensorSpec
from planc.streaming import apply, workers
from planc.streaming.cutting import Memory, boxes, chunked, cut_into
from planc.streaming.layout import Layout
from planc.tensorfiles import stream
from planc.tensorfiles.header import Entry, place
from planc.tensorfiles.reader import Bytes
from tests.strategies import complete
from tests.streaming.test_besides import WHOLE, plan_of


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
    """An array as a tensor in a file."""

    def __init__(self, whole: NDArray[Any]) -> None:
        self.bytes = whole.reshape(-1).view(np.uint8)

    def read_into(self, entry: Entry, start: int, into: NDArray[np.uint8]) -> None:
        into[:] = self.bytes[start : start + len(into)]


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
