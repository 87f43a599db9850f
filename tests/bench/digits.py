"""planc beside Torch-Pruning on scikit-learn's digits: accuracy at equal MACs, measured in one run.

    python -m tests.bench.digits [--seeds 40] [--jobs 1]

The small ResNet of ``examples/iterative.py`` is trained for each seed, on a split of its own into
images to train and to test with, and pruned by both tools by the same importance and one ratio for
all groups, to a half and to a quarter of its MACs, in one shot and in steps with fine-tuning in
between. Both get the same trained model, batches, epochs and random numbers. Torch-Pruning is given
the ratio that comes closest from below; planc's budget is what Torch-Pruning reached, by torch's
``FlopCounterMode``, and it never has more.

The importances: the L2 magnitude of all that leaves with a unit (``bias=True`` there, for planc
counts biases), and those that read gradients, of the training batches at every step: the first
order Taylor expansion, of elements and of whole units (``GroupTaylorImportance`` after ``backward``
of each batch, ``multivariable=True`` for units), and the second order one
(``GroupHessianImportance``, whose ``accumulate_grad`` keeps the last batch, and planc's "obd").

Printed for each row are MACs left, and accuracy on unseen digits: right after the last pruning,
after the statistics of the batch norms were taken anew from the training images, and after
fine-tuning. Each is a mean over the seeds, Torch-Pruning's, planc's, and the mean difference of the
two with its standard error, in points. ``same`` is in how many seeds the two models were equal to
the bit, before the last fine-tuning.
"""

from __future__ import annotations

import argparse
import copy
import multiprocessing
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from itertools import product
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional
from torch_pruning import importance
from torch_pruning.pruner import BasePruner

import planc
from examples.iterative import EPOCHS, RATE, resnet
from tests.support.measure import macs

STEPS = 4
SHARES = (0.5, 0.25)
ONE = torch.zeros(1, 1, 8, 8)
CRITERIA: Mapping[str, tuple[Callable[[], Any], str]] = {
    "magnitude": (lambda: importance.GroupMagnitudeImportance(p=2, bias=True), "l2"),
    "taylor": (importance.GroupTaylorImportance, "taylor"),
    "taylor per unit": (
        lambda: importance.GroupTaylorImportance(multivariable=True),
        "taylor_unit",
    ),
    "hessian": (importance.GroupHessianImportance, "obd"),
}
Batch = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Row:
    """What is compared."""

    criterion: str
    share: float
    steps: int

    @property
    def cells(self) -> tuple[str, ...]:
        """The first cells of its line in the table."""
        how = "one shot" if self.steps == 1 else f"{self.steps} steps"
        return self.criterion, f"{self.share:.0%}", how


ROWS = [Row(*row) for row in product(CRITERIA, SHARES, (1, STEPS))]


@dataclass(frozen=True)
class Result:
    """MACs left, accuracy in the three states, and the digest of the pruned model."""

    macs: float
    accuracies: tuple[float, float, float]
    digest: bytes


class Split:
    """The digits, split into those to train and those to test with; and all training on them."""

    def __init__(self, seed: int) -> None:
        found = load_digits()
        pixels = torch.tensor(found.images, dtype=torch.float32)[:, None] / 16
        train, self.images, labels, self.labels = train_test_split(
            pixels, torch.tensor(found.target), test_size=0.6, random_state=seed
        )
        self.seed = seed
        self.batches: list[Batch] = list(zip(train.split(64), labels.split(64), strict=True))
        self._tuned: dict[bytes, Mapping[str, torch.Tensor]] = {}

    def accuracy(self, model: nn.Module) -> float:
        """The share of the test digits that the model reads right."""
        with torch.no_grad():
            return float((model(self.images).argmax(1) == self.labels).float().mean())

    def train(self, model: nn.Module, epochs: int, rate: float) -> None:
        """Trains with the rate falling to zero."""
        torch.manual_seed(self.seed)
        optimizer = torch.optim.Adam(model.parameters(), lr=rate, fused=True)
        steps = epochs * len(self.batches)
        falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        model.train()
        for _ in range(epochs):
            for i in torch.randperm(len(self.batches)).tolist():
                optimizer.zero_grad()
                loss(model, self.batches[i]).backward()
                optimizer.step()
                falling.step()
        model.eval()

    def tune(self, model: nn.Module, epochs: int) -> None:
        """Fine-tunes; what is equal to the bit becomes so once."""
        key = digest(model) + bytes([epochs])
        if key not in self._tuned:
            self.train(model, epochs, RATE)
            self._tuned[key] = copy.deepcopy(model.state_dict())
        model.load_state_dict(self._tuned[key])
        model.zero_grad()

    def anew(self, model: nn.Module) -> nn.Module:
        """A copy whose batch norms have the statistics of the training images."""
        model = copy.deepcopy(model)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
                module.momentum = None  # the mean over all batches
        model.train()
        with torch.no_grad():
            for images, _ in self.batches:
                model(images)
        return model.eval()


def loss(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Of a batch of images and labels."""
    return functional.cross_entropy(model(batch[0]), batch[1])


def digest(model: nn.Module) -> bytes:
    """Of all that a model holds."""
    return sha256(b"".join(t.numpy().tobytes() for t in model.state_dict().values())).digest()


def measured(seed: int) -> list[tuple[Result, Result]]:
    """For each of the rows what Torch-Pruning and planc make of one seed's model."""
    torch.set_num_threads(1)
    split = Split(seed)
    torch.manual_seed(seed)
    original = resnet()
    split.train(original, epochs=8, rate=5e-3)
    full = macs(original, ONE)
    found = []
    for row in ROWS:
        theirs = _followed(_torch_pruning(original, split, row), split, row, full)
        budget = round(theirs.macs * full)
        ours = _followed(_planc(original, split, row, budget), split, row, full)
        assert ours.macs <= theirs.macs, row
        found.append((theirs, ours))
    return found


def _followed(models: Iterator[nn.Module], split: Split, row: Row, full: int) -> Result:
    """Fine-tunes the model of each step, and measures the last."""
    for number, model in enumerate(models, 1):
        if number == row.steps:
            pruned = split.accuracy(model), split.accuracy(split.anew(model))
            bits, left = digest(model), macs(model, ONE) / full
        split.tune(model, EPOCHS * STEPS // row.steps)
    return Result(left, (*pruned, split.accuracy(model)), bits)


def _planc(original: nn.Module, split: Split, row: Row, budget: int) -> Iterator[nn.Module]:
    """The model after each step, to be fine-tuned before the next."""
    name = CRITERIA[row.criterion][1]
    schedule = planc.Schedule(macs=budget, steps=row.steps)
    model, done = original, None
    for _ in range(row.steps):
        statistics = None
        if name != "l2":
            statistics = planc.calibrate(model, split.batches, name, loss, progress=False)
        step = planc.next_step(schedule, model, ONE, done, criterion=name, statistics=statistics)
        assert step is not None
        model, done = planc.apply(step.plan, model), step.total
        yield model


def _torch_pruning(original: nn.Module, split: Split, row: Row) -> Iterator[nn.Module]:
    """The same."""
    measure = CRITERIA[row.criterion][0]()
    model = copy.deepcopy(original)
    pruner = _pruner(model, measure, _ratio(row.share, row.steps), row.steps)
    for _ in range(row.steps):
        if row.criterion.startswith("taylor"):
            for batch in split.batches:
                loss(model, batch).backward()
        if row.criterion == "hessian":
            for batch in split.batches:
                model.zero_grad()
                loss(model, batch).backward()
                measure.accumulate_grad(model)
        pruner.step()
        model.zero_grad()
        yield model


def _pruner(model: nn.Module, measure: Any, ratio: float, steps: int) -> BasePruner:
    return BasePruner(
        model,
        ONE,
        importance=measure,
        pruning_ratio=ratio,
        iterative_steps=steps,
        ignored_layers=[model[-1]],
    )


@cache
def _ratio(share: float, steps: int) -> float:
    """The smallest ratio, to a thousandth, that leaves no more than a share of the MACs: the same
    for all weights, as every group loses the ratio.
    """
    full = macs(resnet(), ONE)

    def fits(ratio: float) -> bool:
        model = resnet().eval()
        pruner = _pruner(model, importance.GroupMagnitudeImportance(p=2), ratio, steps)
        for _ in range(steps):
            pruner.step()
        return macs(model, ONE) <= share * full

    low, high = 0, 1000
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle / 1000) else (middle, high)
    return high / 1000


def table(found: Sequence[Sequence[tuple[Result, Result]]]) -> Iterator[str]:
    """The lines of the table, from the results of each seed."""
    states = ("pruned", "norms anew", "fine-tuned")
    yield (
        "| importance | MACs at most | how | MACs left | same | "
        + " | ".join(f"{state} | difference" for state in states)
        + " |"
    )
    yield "| --- | ---: | --- | ---: | ---: |" + " ---: | ---: |" * len(states)
    for row, pairs in zip(ROWS, zip(*found, strict=True), strict=True):
        left = (f"{np.mean([pair[i].macs for pair in pairs]):.2%}" for i in (0, 1))
        same = sum(theirs.digest == ours.digest for theirs, ours in pairs)
        cells = [*row.cells, " → ".join(left), f"{same}/{len(pairs)}"]
        both = np.array([[theirs.accuracies, ours.accuracies] for theirs, ours in pairs])
        for state in range(len(states)):
            theirs, ours = both[:, 0, state], both[:, 1, state]
            points = 100 * (ours - theirs)
            error = points.std(ddof=1) / np.sqrt(len(points)) if len(points) > 1 else np.nan
            cells.append(f"{theirs.mean():.2%} → {ours.mean():.2%}")
            cells.append(f"{points.mean():+.2f} ± {error:.2f}")
        yield f"| {' | '.join(cells)} |"


def main() -> None:
    """Prints the table."""
    options = _options()
    context = multiprocessing.get_context("spawn")
    found = []
    with ProcessPoolExecutor(options.jobs, mp_context=context) as pool:
        for own in pool.map(measured, range(options.seeds)):
            found.append(own)
            print(f"\rseed {len(found)} of {options.seeds}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    print("\n".join(table(found)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.digits",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--jobs", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
