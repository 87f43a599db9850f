"""Sets of units as bitmaps: a sequence of integers at the cost of one bit per unit of the group.

Plan files are read into this form, so a small file cannot take much memory. It equals the tuple of
its units, with the same hash and the same text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Units(Sequence[int]):
    """The units out of ``size`` with a set bit, in ascending order.

    Bit ``i % 8`` of byte ``i // 8`` of ``bitmap`` stands for unit ``i``; bits after the last are
    zero.
    """

    bitmap: bytes
    size: int

    def marks(self) -> NDArray[np.bool_]:
        """Boolean mask of length ``size``, True at each unit."""
        octets = np.frombuffer(self.bitmap, dtype=np.uint8)
        return np.unpackbits(octets, count=self.size, bitorder="little").view(np.bool_)

    def __len__(self) -> int:
        return int.from_bytes(self.bitmap, "little").bit_count()

    def __bool__(self) -> bool:
        return any(self.bitmap)

    def __iter__(self) -> Iterator[int]:
        return iter(np.flatnonzero(self.marks()).tolist())

    def __reversed__(self) -> Iterator[int]:
        return reversed(tuple(self))

    def __contains__(self, unit: object) -> bool:
        if not isinstance(unit, int) or not 0 <= unit < self.size:
            return False
        return bool(self.bitmap[unit // 8] >> unit % 8 & 1)

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[int, ...]: ...
    def __getitem__(self, index: int | slice) -> int | tuple[int, ...]:
        return tuple(self)[index]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Units):
            return self.bitmap.rstrip(b"\0") == other.bitmap.rstrip(b"\0")
        return tuple(self) == other if isinstance(other, tuple) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(tuple(self))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        units = np.flatnonzero(self.marks())
        return units if dtype is None else units.astype(dtype, copy=False)


def marked(units: Sequence[int], size: int) -> NDArray[np.bool_]:
    """Boolean mask of length ``size``, True at each of ``units``.

    Raises:
        IndexError: a unit is not below ``size``.
    """
    if isinstance(units, Units) and units.size == size:
        return units.marks()
    marks = np.zeros(size, dtype=np.bool_)
    marks[list(units)] = True
    return marks
