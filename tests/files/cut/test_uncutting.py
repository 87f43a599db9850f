"""Claims of the other half of a cut: what is removed comes in the order of the tensor, whichever
pieces it is read in, and together with what stayed it makes the tensor again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from planc.files.cut.cutting import Memory, cut_into
from planc.files.cut.uncutting import CutRemoval
from planc.files.disk import stream
from planc.files.disk.stream import Bytes
from planc.files.tensors.header import Entry, place
from planc.plan.plan import Cut, Ragged
from tests.files.cut.test_cutting import Held, of

SHAPE = (4, 6, 5)
CUTS = {
    "rows": Cut((of(1, 3), None, None), (), (2, 6, 5)),
    "inside": Cut((None, of(1, 2, 5), None), (), (4, 3, 5)),
    "rows and last": Cut((of(0, 3), None, of(0, 2, 3)), (), (2, 6, 3)),
    "all": Cut((of(0, 1, 3), of(0, 4, 5), of(1, 4)), (), (3, 3, 2)),
    "nothing": Cut((None, None, None), (), SHAPE),
    "ragged over the first": Cut(
        (None, None, None), ((1, 0, (Ragged(0, 2, of(0, 5)), Ragged(2, 4, of(2, 3)))),), (4, 2, 5)
    ),
    "ragged over some": Cut(
        (None, of(0, 2, 3, 5), None),
        ((2, 1, (Ragged(0, 3, of(0, 4)), Ragged(3, 6, of(1, 2)))),),
        (4, 4, 2),
    ),
    "ragged over the last": Cut(
        (of(1, 2), None, of(0, 1, 4)),
        ((1, 2, (Ragged(0, 1, of(0, 3)), Ragged(1, 5, of(2, 5)))),),
        (2, 2, 3),
    ),
}


def stays(cut: Cut, at: tuple[int, ...]) -> bool:
    """Whether an element of the whole is in what a cut leaves, by the words of :class:`Cut`."""
    ragged = {
        dim: next(part.kept for part in parts if part.start <= at[over] < part.stop)
        for dim, over, parts in cut.ragged
    }
    return all(
        kept is None or at[dim] in kept
        for dim, kept in enumerate(ragged.get(dim, kept) for dim, kept in enumerate(cut.kept))
    )


def spaces(into: list[Bytes]) -> Any:
    def space(size: int) -> Bytes:
        into.append(np.empty(size, dtype=np.uint8))
        return into[-1]

    return space


def entry_of(array: NDArray[Any]) -> Entry:
    return place([("w", {2: "I16", 4: "I32"}[array.itemsize], array.shape)])[0]


# pieces of a few values, of rows inside one of the first dimension, of four of that, of all
@pytest.mark.parametrize("buffer", [64, 96, 480, 1 << 20])
@pytest.mark.parametrize("dtype", ["i2", "i4"])
@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
def test_what_a_cut_removes_comes_in_order_and_makes_the_tensor_again(
    cut: Cut, dtype: str, buffer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "BLOCK", buffer)
    whole = np.arange(1, 1 + 4 * 6 * 5, dtype=dtype).reshape(SHAPE)
    stay = np.array([stays(cut, at) for at in np.ndindex(SHAPE)]).reshape(SHAPE)
    gone, small = whole[~stay], whole[stay].reshape(cut.shape)
    file: Any = Held(whole)
    removal, found, seen = CutRemoval(cut), list[bytes](), list[bytes]()
    assert removal.split(SHAPE) == (cut.shape, len(gone))
    for values, mask in removal.whole(file, entry_of(whole), Memory()):
        found.append(values[mask].tobytes())
        seen.append(values.tobytes())
    assert b"".join(found) == gone.tobytes()
    assert b"".join(seen) == whole.tobytes()
    assert max(map(len, seen)) <= buffer
    file, again, at = Held(small), list[Bytes](), 0
    for values, mask in removal.kept(file, entry_of(small), SHAPE, spaces(again), Memory()):
        values[mask] = gone.view(values.dtype)[at : at + mask.sum()]
        at += mask.sum()
    assert b"".join(map(bytes, again)) == whole.tobytes()
    assert at == len(gone)


@pytest.mark.parametrize("buffer", [64, 96, 480, 1 << 20])
@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
def test_what_a_cut_leaves_comes_in_order(
    cut: Cut, buffer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "BLOCK", buffer)
    whole = np.arange(4 * 6 * 5, dtype="i4").reshape(SHAPE)
    file: Any = Held(whole)
    found: list[Bytes] = []
    cut_into(file, entry_of(whole), cut, spaces(found), Memory())
    stay = np.array([stays(cut, at) for at in np.ndindex(SHAPE)]).reshape(SHAPE)
    assert b"".join(map(bytes, found)) == whole[stay].tobytes()
    assert max(map(len, found)) <= buffer


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_a_tensor_without_values_has_no_pieces(shape: tuple[int, ...]) -> None:
    cut = Cut((None, None), (), shape)
    whole, found = np.empty(shape, dtype="i4"), list[Bytes]()
    file: Any = Held(whole)
    removal = CutRemoval(cut)
    assert not [*removal.whole(file, entry_of(whole), Memory())]
    assert not [*removal.kept(file, entry_of(whole), shape, spaces(found), Memory())]
    cut_into(file, entry_of(whole), cut, spaces(found), Memory())
    assert found == []


def test_a_tensor_of_one_value_has_one_piece() -> None:
    cut = Cut((None,), (), (1,))
    whole = np.array([7], dtype="i4")
    file: Any = Held(whole)
    [(values, gone)] = CutRemoval(cut).whole(file, entry_of(whole), Memory())
    assert (values.tobytes(), gone.tolist()) == (whole.tobytes(), [False])
    for call in (
        lambda space: [*CutRemoval(cut).kept(file, entry_of(whole), (1,), space, Memory())],
        lambda space: cut_into(file, entry_of(whole), cut, space, Memory()),
    ):
        pieces: list[Bytes] = []
        call(spaces(pieces))
        assert b"".join(map(bytes, pieces)) == whole.tobytes()
