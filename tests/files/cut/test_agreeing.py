"""Claims of processes that work on one result: what all did all get, or the first failure."""

from __future__ import annotations

from typing import Any, TypeVar

import pytest

from planc.errors import PlancError
from planc.files.cut.ranks import Ranks, shares

_T = TypeVar("_T")


class One(Ranks):
    """One of several processes; what the others give is known before."""

    def __init__(self, rank: int, others: dict[int, Any]) -> None:
        super().__init__(rank, len(others) + 1)
        self.others, self.given = others, list[Any]()

    def gather(self, mine: _T) -> list[_T]:
        self.given.append(mine)
        return [self.others.get(rank, mine) for rank in range(self.size)]


def raising(error: BaseException) -> Any:
    def work() -> None:
        raise error

    return work


def test_a_process_alone_does_all_itself() -> None:
    ranks, done = Ranks(), list[int]()
    assert (ranks.rank, ranks.size, ranks.first) == (0, 1, True)
    assert ranks.gather(3) == [3]
    assert ranks.agree(lambda: 4) == 4
    assert ranks.results(lambda: 5) == [5]
    ranks.once(lambda: done.append(6))
    assert done == [6]
    error = ValueError("as it is")
    with pytest.raises(ValueError, match="as it is") as caught:
        ranks.agree(raising(error))
    assert caught.value is error


def test_one_that_is_alone_asks_nobody() -> None:
    ranks = One(0, {})
    assert ranks.agree(lambda: 4) == 4
    assert ranks.given == []


def test_two_ask_each_other() -> None:
    ranks = One(1, {0: ""})
    assert ranks.agree(lambda: 4) == 4
    assert ranks.given == [""]


def test_what_all_have_done_everyone_gets() -> None:
    ranks = One(1, {0: "", 2: ""})
    assert ranks.agree(lambda: 4) == 4
    assert ranks.given == [""]
    assert not ranks.first
    numbers = One(1, {0: "", 2: ""})
    assert numbers.results(lambda: 5) == ["", 5, ""]
    assert numbers.given == ["", 5]


@pytest.mark.parametrize(("rank", "expected"), [(0, [1]), (1, [])])
def test_what_is_done_once_the_first_does(rank: int, expected: list[int]) -> None:
    done: list[int] = []
    One(rank, {1 - rank: ""}).once(lambda: done.append(1))
    assert done == expected


def test_a_failure_elsewhere_is_raised_with_its_rank() -> None:
    ranks = One(0, {1: "", 2: "no space", 3: "later"})
    with pytest.raises(PlancError, match=r"^rank 2: no space$"):
        ranks.agree(lambda: 4)
    with pytest.raises(PlancError, match=r"^rank 2: no space$"):
        ranks.results(lambda: 4)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PlancError("a plan"), "a plan"),
        (OSError(28, "No space left"), "[Errno 28] No space left"),
        (ValueError("a bug"), "ValueError: a bug"),
        (PlancError(), "PlancError"),
        (KeyError(), "KeyError: KeyError"),
    ],
)
def test_a_failure_here_is_raised_as_it_is_and_said_to_the_others(
    error: Exception, said: str
) -> None:
    ranks = One(1, {0: "also", 2: ""})
    with pytest.raises(type(error)) as caught:
        ranks.agree(raising(error))
    assert caught.value is error
    assert ranks.given == [said]


def test_an_interruption_waits_for_nobody() -> None:
    ranks = One(1, {0: ""})
    with pytest.raises(KeyboardInterrupt):
        ranks.agree(raising(KeyboardInterrupt()))
    assert ranks.given == []


@pytest.mark.parametrize(
    ("sizes", "count", "expected"),
    [
        ([5, 4, 3, 3, 1], 2, [[0, 3], [1, 2, 4]]),
        ([1, 1, 1, 1], 2, [[0, 2], [1, 3]]),
        ([1, 2, 3], 2, [[2], [0, 1]]),
        ([7], 3, [[0], [], []]),
        ([], 1, [[]]),
    ],
)
def test_the_largest_jobs_are_shared_first_with_whom_has_least(
    sizes: list[int], count: int, expected: list[list[int]]
) -> None:
    assert shares(sizes, count) == expected
