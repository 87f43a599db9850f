"""Time to score and to select, beside that of reading every parameter once.

    python -m tests.bench.scoring [MODEL ...] [--criterion l2] [--ratio 0.5] [--rounds 20]

``read`` is ``torch.linalg.vector_norm`` of each parameter of the model, ``score`` and ``select``
are planc's two calls, on an analysis that has been used before (what it derives from the graph
alone, it keeps). Processor time of one thread; the least of the rounds, in which the three take
turns. ``again`` is (score + select) / read; ``first`` the same for the first score and select of a
new analysis. ``sums`` is what magnitudes cannot do without, as NumPy does it: the squares of every
matrix summed over its rows and over its columns, for its outputs leave with one group and its
inputs with another; ``floor`` is sums / read.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from time import process_time

import numpy as np
import torch

import planc
from planc.criteria import named
from planc.policy import Uniform
from tests.zoo import torchvision as zoo


def main() -> int:
    """Runs the benchmark and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="*", default=["resnet152", "vit_b_16"])
    parser.add_argument("--criterion", default="l2")
    parser.add_argument("--ratio", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    heads = (
        "parameters M",
        "read ms",
        "sums ms",
        "score ms",
        "select ms",
        "floor",
        "again",
        "first",
    )
    print(f"| model | {' | '.join(heads)} |")
    print(f"| --- |{' ---: |' * len(heads)}", flush=True)
    for name in options.models:
        print(row(name, options.criterion, options.ratio, options.rounds), flush=True)
    return 0


def row(name: str, criterion: str, ratio: float, rounds: int) -> str:
    """One line of the table."""
    model, policy, scorer = zoo.build(name), Uniform(ratio), named(criterion)
    parameters = [parameter.detach() for parameter in model.parameters()]
    analysis = planc.analyze(planc.trace(model, zoo.example_input(name, seed=1)))

    def read() -> None:
        for parameter in parameters:
            torch.linalg.vector_norm(parameter)

    def score() -> None:
        planc.score(analysis, model, scorer)

    matrices = [parameter.flatten(1).numpy() for parameter in parameters if parameter.dim() > 1]

    def sums() -> None:
        for matrix in matrices:
            np.einsum("ij,ij->j", matrix, matrix)
            np.vecdot(matrix, matrix)

    read()
    first = seconds(score)
    scores = planc.score(analysis, model, scorer)

    def select() -> None:
        planc.select(analysis, scores, policy)

    first += seconds(select)
    jobs = (read, sums, score, select)
    turns = [[seconds(job) for job in jobs] for _ in range(rounds)]
    reading, summing, scoring, selecting = (min(times) for times in zip(*turns, strict=True))
    million = sum(parameter.numel() for parameter in parameters) / 1e6
    times = [million, *(1e3 * time for time in (reading, summing, scoring, selecting))]
    ratios = [time / reading for time in (summing, scoring + selecting, first)]
    cells = [name, *(f"{time:.1f}" for time in times), *(f"{ratio:.2f}" for ratio in ratios)]
    return f"| {' | '.join(cells)} |"


def seconds(action: Callable[[], None]) -> float:
    """How long it takes."""
    start = process_time()
    action()
    return process_time() - start


if __name__ == "__main__":
    sys.exit(main())
