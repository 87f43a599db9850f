"""Processes working on one result: exchange of their results, and of their first failure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TypeVar

from planc.errors import PlancError

_T = TypeVar("_T")


class Ranks:
    """One of ``size`` processes, number ``rank``; by default the only one."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @property
    def first(self) -> bool:
        """True for rank 0, the process doing the common work."""
        return self.rank == 0

    def gather(self, mine: _T) -> list[_T]:
        """Return the values of all processes, in order of rank, on each of them.

        Raises:
            PlancError: one of them has ended.
        """
        return [mine]

    def agree(self, work: Callable[[], _T]) -> _T:
        """Do the work; return its result after all processes are done.

        Raises:
            Exception: the error of the work on this process.
            PlancError: the work failed on another one; names the rank and the cause.
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
        """Do the work; return the results of all processes. Raises as :meth:`agree` does."""
        return self.gather(self.agree(work))

    def once(self, work: Callable[[], object]) -> None:
        """Let the first process do the work, and wait for it. Raises as :meth:`agree` does."""
        self.agree(work if self.first else lambda: None)


def shares(sizes: list[int], count: int) -> list[list[int]]:
    """Split jobs of these sizes into ``count`` shares of similar size; return their numbers."""
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
