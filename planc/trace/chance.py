"""Random numbers during a run: the same ones each time, and none taken from the caller's.

A plan is made of one run. Where other random numbers make a model run other operators, no run
stands for all, and the trace is refused.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any

import numpy as np
import torch

from planc.errors import TraceError
from planc.ir.graph import Graph

_SEEDS = (1, 2, 3, 4)
_DRAWS = re.compile(
    r"aten\.(rand|normal|bernoulli|multinomial|poisson|uniform|exponential|geometric|cauchy"
    r"|log_normal|native_dropout|alpha_dropout|feature_dropout|feature_alpha_dropout|dropout|rrelu)"
)

_READS = re.compile(r"aten\.(is_nonzero|item|_local_scalar_dense|equal)\b")


class Chance:
    """The random numbers of a run; ``drew`` says that the run took some of Python's or numpy's."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.drew = False

    @contextmanager
    def seeded(self) -> Iterator[None]:
        """Within it torch (on the CPU), Python and numpy draw by the seed; their states return."""
        python, arrays = random.getstate(), np.random.get_state()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seed)
            random.seed(self.seed)
            np.random.seed(self.seed % (1 << 32))
            begun = _states()
            try:
                yield
            finally:
                self.drew = self.drew or _states() != begun
                random.setstate(python)
                np.random.set_state(arrays)


def _states() -> tuple[Any, ...]:
    arrays: Any = np.random.get_state()
    name, keys, *rest = arrays
    return random.getstate(), name, keys.tobytes(), *rest


def check_same_path(graph: Graph, chance: Chance, again: Callable[[Chance], Graph]) -> None:
    """Returns if a model runs the same operators whatever random numbers it draws.

    Raises:
        TraceError: it does not.
    """
    ops = [node.op for node in graph.nodes]
    reads = graph.data_dependent or any(map(_READS.match, ops))
    if not (chance.drew or (reads and any(map(_DRAWS.match, ops)))):
        return
    for seed in _SEEDS:
        other = again(Chance(seed))
        at = _first_difference(ops, [node.op for node in other.nodes])
        if at:
            raise TraceError(
                f"the model runs differently each time: {at}; its control flow is random (layers "
                "skipped at random, as in stochastic depth): put the model in eval mode, or set "
                "the share of skipped layers to 0"
            )


def _first_difference(ops: list[str], others: list[str]) -> str:
    """The first operator that two runs do not share, in words; empty if there is none."""
    pairs = zip_longest(ops, others, fillvalue="missing")
    return next(
        (
            f"operator {i} is {a} with one random seed, {b} with another"
            for i, (a, b) in enumerate(pairs)
            if a != b
        ),
        "",
    )
