"""Time to score and to select, beside that of reading every parameter once.

    python -m tests.bench.scoring [MODEL ...] [--criterion l2] [--ratio 0.5] [--rounds 20]

``read`` is ``torch.linalg.vector_norm`` of each parameter of the model, ``score`` and ``select``
are planc's two calls, on an analysis that has been used before (what it derives from the graph
alone, it keeps). Processor time of one thread; the least of the rounds, in which the three take
turns. ``again`` is (score + select) / read; ``first`` the same for the first score and select of a
new analysis.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from time import process_time

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
    print("| model | parameters M | read ms | score ms | select ms | again | first |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |", flush=True)
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

    read()
    first = seconds(score)
    scores = planc.score(analysis, model, scorer)

    def select() -> None:
        planc.select(analysis, scores, policy)

    first += seconds(select)
    turns = [(seconds(read), seconds(score), seconds(select)) for _ in range(rounds)]
    reading, scoring, selecting = (min(turn[i] for turn in turns) for i in range(3))
    million = sum(parameter.numel() for parameter in parameters) / 1e6
    return (
        f"| {name} | {million:.1f} | {reading * 1e3:.1f} | {scoring * 1e3:.1f} | "
        f"{selecting * 1e3:.1f} | {(scoring + selecting) / reading:.2f} | {first / reading:.2f} |"
    )


def seconds(action: Callable[[], None]) -> float:
    """How long it takes."""
    start = process_time()
    action()
    return process_time() - start


if __name__ == "__main__":
    sys.exit(main())
