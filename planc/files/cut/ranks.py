"""Processes that work on one result: something that each does in, what all of them did out, or the
first failure on all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TypeVar

from planc.errors import PlancError

_T = TypeVar("_T")


class Ranks:
    """One of ``size`` processes, number ``rank``; of itself the only one."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @property
    def first(self) -> bool:
        """Whether this is the process that others wait for."""
        return self.rank == 0

    def gather(self, mine: _T) -> list[_T]:
        """What all processes give, in their order, on each of them.

        Raises:
            PlancError: one of them has ended.
        """
        return [mine]

    def agree(self, work: Callable[[], _T]) -> _T:
        """Does the work; returns its result when all processes are done.

        Raises:
            Exception: what the work raised here.
            PlancError: it raised elsewhere; names the rank and the cause.
        """
        if self.size == 1:
            return work()
        try:
            done = work()
        except Exception as error:
            self.gather(_said(error))
            raise
        for rank, said in enumerate(self.gather("")):
            if said:
                raise PlancError(f"rank {rank}: {said}")
        return done

    def results(self, work: Callable[[], _T]) -> list[_T]:
        """Does the work; returns the results of all processes. Raises as :meth:`agree` does."""
        return self.gather(self.agree(work))

    def once(self, work: Callable[[], object]) -> None:
        """Has the first process do the work, and waits for it. Raises as :meth:`agree` does."""
        self.agree(work if self.first else lambda: None)


def shares(sizes: list[int], count: int) -> list[list[int]]:
    """The numbers of jobs of these sizes in ``count`` shares of about the same size."""
    found: list[list[int]] = [[] for _ in range(count)]
    held = Counter[int]()
    for number in sorted(range(len(sizes)), key=lambda number: -sizes[number]):
        least = min(range(count), key=held.__getitem__)
        found[least].append(number)
        held[least] += sizes[number]
    return [sorted(numbers) for numbers in found]


def _said(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return text if isinstance(error, PlancError | OSError) else f"{type(error).__name__}: {text}"
