"""Predicted latency beside the clock's: what a table says of pruned models, and what they take.

    python -m tests.bench.latency [MODEL ...] [--share 0.75] [--batch 1] [--rounds 30]

For each model a table is measured, plans are made that may take 0.75 and 0.5 of the latency, and
applied. Then the original and all its results run in turn, round by round, one thread, and the
quickest run of each counts (by the processor's clock, for a machine with other work to do). Printed
are the share of the original's time that the table says a plan takes, the one that the clock found,
and by how much the second is above the first. The last line has the worst of both directions.
``--out`` keeps the tables.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import planc
from planc.plan.latency import LatencyTable
from planc.plan.plan import Plan
from tests.zoo import torchvision as zoo

MODELS = ("resnet18", "resnet50", "mobilenet_v2", "vit_b_16")
_HEADER = (
    f"{'model':<16} {'budget':>6} {'table s':>7} {'ms':>8} {'said':>7} {'found':>7} {'off':>7}"
)


def main() -> int:
    """Prints the table."""
    options = _options()
    torch.set_num_threads(1)
    shares = options.share or [0.75, 0.5]
    print(_HEADER, flush=True)
    apart: list[tuple[float, str]] = []
    for name in options.models or MODELS:
        model, args = zoo.build(name), zoo.example_inputs(name, options.batch)
        analysis = planc.analyze(planc.trace(model, args))
        begin = time.perf_counter()
        table = planc.measure_latency(analysis, lambda model=model, args=args: model(*args))
        seconds = time.perf_counter() - begin
        if options.out is not None:
            planc.save_latency(table, options.out / f"{name}.latency")
        plans = [planc.compile(model, args, latency=share, latency_table=table) for share in shares]
        smaller = [planc.apply(plan, model, validate=False) for plan in plans]
        whole, *taken = quickest(
            [lambda m=m, args=args: m(*args) for m in (model, *smaller)], options.rounds
        )
        for share, plan, least in zip(shares, plans, taken, strict=True):
            said, found = predicted(plan, table, analysis), least / whole
            apart.append((found - said, f"{name} at {share}"))
            print(
                f"{name:<16} {share:>6} {seconds:>7.1f} {whole / 1e6:>8.1f} {said:>7.3f} "
                f"{found:>7.3f} {found - said:>+7.3f}",
                flush=True,
            )
    low, high = min(apart), max(apart)
    print(
        f"\nslower than predicted by at most {high[0]:+.3f} of the original ({high[1]}), quicker "
        f"by at most {low[0]:+.3f} ({low[1]})"
    )
    return 0


def predicted(plan: Plan, table: LatencyTable, analysis: planc.analysis.Analysis) -> float:
    """The share of the original's latency that a plan leaves, by the table."""
    predict = table.prediction(analysis)
    kept = np.array([group.kept // group.rows for group in plan.groups])
    return predict(kept) / predict(np.array([group.cells for group in plan.groups]))


def quickest(calls: Sequence[Callable[[], Any]], rounds: int) -> list[int]:
    """The least nanoseconds of the processor that each call takes, all of them in each round."""
    least = [0] * len(calls)
    with torch.no_grad():
        for number in range(rounds + 2):
            for i, call in enumerate(calls):
                begin = time.process_time_ns()
                call()
                taken = time.process_time_ns() - begin
                if number >= 2:  # the first rounds warm up
                    least[i] = min(least[i] or taken, taken)
    return least


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.latency",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("models", nargs="*", help=f"default: {' '.join(MODELS)}")
    parser.add_argument("--share", type=float, action="append", help="default: 0.75 and 0.5")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--out", type=Path, help="a folder to keep the tables in")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
