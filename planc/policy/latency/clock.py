"""Clocks: the time of single function calls, in nanoseconds.

Functions are called in turn, round by round, and the quickest call of each counts: other load on
the machine affects all functions alike, and slows most calls but rarely every one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

_BETWEEN = 16 << 20  # bytes written between two calls, more than the caches of a core
_ROUNDS = 5

Timer = Callable[[Sequence[Callable[[], Any]]], list[int]]
"""Returns the nanoseconds of one call of each function."""


def timer(device: str = "cpu", seconds: float = 0.03) -> Timer:
    """A timer of at least five rounds, and of about ``seconds`` seconds for each function.

    With one thread it reads the processor's clock, stopped while other processes run.
    """
    wait = getattr(torch, device.partition(":")[0]).synchronize if device != "cpu" else None
    alone = wait is None and torch.get_num_threads() == 1
    clock = time.process_time_ns if alone else time.perf_counter_ns
    other = torch.zeros(_BETWEEN // 4, device=device)

    def one(call: Callable[[], Any]) -> int:
        other.add_(1)
        if wait is not None:
            wait()
        begin = clock()
        call()
        if wait is not None:
            wait()
        return clock() - begin

    def timed(calls: Sequence[Callable[[], Any]]) -> list[int]:
        for call in calls:
            call()
        rounds: list[list[int]] = []
        until = time.perf_counter() + seconds * len(calls)
        while len(rounds) < _ROUNDS or time.perf_counter() < until:
            rounds.append([one(call) for call in calls])
        return [min(taken) for taken in zip(*rounds, strict=True)]

    return timed
