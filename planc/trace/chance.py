"""Random numbers during a run: reproducible, and not drawn from the caller's generators.

A plan is based on one run. A model running other operators under other random numbers is refused,
because no single run represents it.
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
    """The random numbers of a run; ``drew`` is True if it used Python's or NumPy's generator."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.drew = False

    @contextmanager
    def seeded(self) -> Iterator[None]:
        """Seed torch (on the CPU), Python and NumPy; restore their states at the end."""
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
    """Check the operators of a model to be independent of random numbers.

    Raises:
        TraceError: they depend on random numbers.
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
    """The first operator differing between two runs, in words; empty if there is none."""
    pairs = zip_longest(ops, others, fillvalue="missing")
    return next(
        (
            f"operator {i} is {a} with one random seed, {b} with another"
            for i, (a, b) in enumerate(pairs)
            if a != b
        ),
        "",
    )
