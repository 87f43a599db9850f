"""Ranks that are threads of one process, with what one of them gives to the others."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from planc.files.cut.ranks import Ranks
from tests.support.ranks import HANGS

_T = TypeVar("_T")


class Meeting:
    """Where threads exchange what they give."""

    def __init__(self, size: int) -> None:
        self.barrier = threading.Barrier(size, timeout=HANGS)
        self.given: list[Any] = [None] * size


class Thread(Ranks):
    """One of several threads."""

    def __init__(self, rank: int, meeting: Meeting) -> None:
        super().__init__(rank, len(meeting.given))
        self.meeting = meeting

    def gather(self, mine: _T) -> list[_T]:
        self.meeting.given[self.rank] = mine
        self.meeting.barrier.wait()
        found = list(self.meeting.given)
        self.meeting.barrier.wait()
        return found


def in_threads(size: int, work: Callable[[Ranks], Any]) -> list[Any]:
    """What the work returned or raised in each of the threads."""
    meeting = Meeting(size)
    found: list[Any] = [None] * size

    def one(rank: int) -> None:
        try:
            found[rank] = work(Thread(rank, meeting))
        except Exception as error:
            found[rank] = error

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found
