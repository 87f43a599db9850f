"""planc beside Torch-Pruning on scikit-learn's digits: accuracy at equal MACs, measured in one run.

    python -m tests.bench.digits [--seeds 3]

The small ResNet of ``examples/iterative.py`` is trained for each seed and pruned by both tools with
the L2 magnitude of groups and one ratio for all of them, to a half and to a quarter of its MACs, in
one shot and in steps with fine-tuning in between; both get the same epochs of it in all. MACs are
counted by torch's ``FlopCounterMode``. Torch-Pruning is given the ratio that comes closest from
below; planc's budget is what Torch-Pruning reached. Printed are means over the seeds, of the
accuracy on unseen digits before the last fine-tuning and after it.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from statistics import mean

import torch
import torch_pruning
from torch import nn

import planc
from examples.iterative import EPOCHS, IMAGES, RATE, accuracy, train, trained
from tests.measure import macs

Rows = dict[tuple[float, str, str], list[tuple[float, float, float]]]
STEPS = 4


def main() -> None:
    """Prints the table."""
    options = _options()
    torch.set_num_threads(1)
    rows: Rows = {}
    originals = []
    for seed in range(options.seeds):
        original = trained(seed)
        originals.append(accuracy(original))
        full = macs(original, IMAGES[:1])
        for share in (0.5, 0.25):
            for how, steps in (("one shot", 1), (f"{STEPS} steps", STEPS)):
                theirs, reached = _torch_pruning(original, share, steps, seed)
                rows.setdefault((share, how, "torch-pruning"), []).append(theirs)
                budget = round(reached * full)
                ours = _planc(original, budget, steps, seed)
                rows.setdefault((share, how, "planc"), []).append(ours)
    print(f"original: accuracy {mean(originals):.2%}, mean of {options.seeds} seeds\n")
    print("| MACs at most | how | tool | MACs left | pruned | fine-tuned |")
    print("| ---: | --- | --- | ---: | ---: | ---: |")
    for (share, how, tool), found in rows.items():
        left, before, after = (mean(column) for column in zip(*found, strict=True))
        print(f"| {share:.0%} | {how} | {tool} | {left:.2%} | {before:.2%} | {after:.2%} |")


def _planc(original: nn.Module, budget: int, steps: int, seed: int) -> tuple[float, float, float]:
    """MACs left, accuracy before the last fine-tuning and after it."""
    model, done, before = original, None, 0.0
    schedule = planc.Schedule(macs=budget, steps=steps)
    while step := planc.next_step(schedule, model, IMAGES[:1], done):
        model, done = planc.apply(step.plan, model), step.total
        before = accuracy(model)
        train(model, EPOCHS * STEPS // steps, RATE, seed)
    left = macs(model, IMAGES[:1]) / macs(original, IMAGES[:1])
    return left, before, accuracy(model)


def _torch_pruning(
    original: nn.Module, share: float, steps: int, seed: int
) -> tuple[tuple[float, float, float], float]:
    """The same, and the share of the MACs that was reached."""
    full = macs(original, IMAGES[:1])

    def left(ratio: float) -> float:
        model, pruner = _pruner(original, ratio, steps)
        for _ in range(steps):
            pruner.step()
        return macs(model, IMAGES[:1]) / full

    ratio = _smallest(lambda ratio: left(ratio) <= share)
    model, pruner = _pruner(original, ratio, steps)
    before = 0.0
    for _ in range(steps):
        pruner.step()
        before = accuracy(model)
        train(model, EPOCHS * STEPS // steps, RATE, seed)
    reached = macs(model, IMAGES[:1]) / full
    return (reached, before, accuracy(model)), reached


def _pruner(original: nn.Module, ratio: float, steps: int) -> tuple[nn.Module, object]:
    model = copy.deepcopy(original)
    pruner = torch_pruning.pruner.BasePruner(
        model,
        IMAGES[:1],
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=ratio,
        iterative_steps=steps,
        ignored_layers=[model[-1]],
    )
    return model, pruner


def _smallest(fits: Callable[[float], bool]) -> float:
    """The smallest ratio that fits, to a thousandth."""
    low, high = 0, 1000
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle / 1000) else (middle, high)
    return high / 1000


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.digits",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
