"""The memory of a run's values, to find the origin of unknown tensors.

A tensor made from a DLPack capsule or an array shares the memory of the value given out.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

import torch


class Memory:
    """The memory ranges of the values of a run on real tensors."""

    def __init__(self) -> None:
        self._ends: dict[int, int] = {}  # by the first address
        self._values: dict[int, list[int]] = {}
        self._starts: list[int] = []

    def add(self, tensor: torch.Tensor, value: int) -> None:
        """Note the location of a value."""
        start, end = _range(tensor)
        if end > start:
            self._ends[start] = max(end, self._ends.get(start, 0))
            self._values.setdefault(start, []).append(value)

    def sharing(self, tensor: torch.Tensor) -> Iterator[int]:
        """The values located in the memory of ``tensor``."""
        start, end = _range(tensor)
        if len(self._starts) != len(self._ends):
            self._starts = sorted(self._ends)
        at = bisect_right(self._starts, start)
        if at and start < self._ends[self._starts[at - 1]] and end > start:
            yield from self._values[self._starts[at - 1]]


def _range(tensor: torch.Tensor) -> tuple[int, int]:
    """The start and end address of a tensor's storage; equal if it has no memory."""
    try:
        with torch._C.DisableTorchFunction():
            storage = tensor.untyped_storage()
            start = storage.data_ptr()
            return start, start + storage.nbytes()
    except (NotImplementedError, RuntimeError):  # layouts without a storage
        return 0, 0
