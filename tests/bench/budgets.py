"""Budgets on torchvision's classification models: how close the plans come, and how fast.

    python -m tests.bench.budgets [MODEL ...] [--budget macs=0.5] [--round-to 8] [--policy uniform]

Without ``--budget``, MACs of 0.75, 0.5 and 0.25 of the original's, each as it is and with all
dimensions multiples of 8. Models are built without weights and scored at random (seed 0), for a
budget depends on sizes alone. ``below`` is by how much of the budget the plan stays below it, and
``select s`` the CPU time from scores to the plan. A line at the end has the worst of both. Exits
with 1 if a plan is above a budget or more than 0.5 % below it, or none is found.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

import planc
from planc.analysis import Analysis
from planc.criteria import Random
from planc.errors import PlancError
from planc.plan.plan import Plan
from planc.policy import Budget, Global, Isomorphic, PerCost, Policy, Rounded, Uniform
from tests.zoo import torchvision as zoo

POLICIES = {
    "uniform": Uniform(),
    "global": Global(),
    "isomorphic": Isomorphic(),
    "per-cost": PerCost(),
}
TOLERANCE = 0.005
_HEADER = (
    f"{'model':<24} {'budget':>20} {'round to':>8} {'reached':>10} {'below':>8} {'select s':>8}"
)


def main() -> int:
    """Prints the table and returns the exit code."""
    options = _options()
    torch.set_num_threads(1)
    budgets = options.budget or [Budget(macs=share) for share in (0.75, 0.5, 0.25)]
    print(_HEADER, flush=True)
    worst, slowest, failures, rows = ("", -1.0), ("", -1.0), 0, 0
    for name in options.models or zoo.classification_models():
        analysis = analysis_of(name)
        for budget in budgets:
            for to in options.round_to or (1, 8):
                policy: Policy = POLICIES[options.policy]
                row = measure(analysis, Rounded(policy, to) if to > 1 else policy, budget)
                rows += 1
                print(f"{name:<24} {budget!s:>20} {to:>8} {_cells(row)}", flush=True)
                if "failed" in row:
                    failures += 1
                    continue
                failures += not 0 <= row["below"] <= TOLERANCE
                label = f"{name} at {budget}, multiples of {to}"
                worst = max(worst, (label, row["below"]), key=lambda entry: entry[1])
                slowest = max(slowest, (label, row["seconds"]), key=lambda entry: entry[1])
    print(
        f"\n{rows} plans, {failures} failures; furthest below: {worst[1]:.3%} ({worst[0]}); "
        f"slowest: {slowest[1]:.2f} s ({slowest[0]})"
    )
    return int(failures > 0)


def measure(analysis: Analysis, policy: Policy, budget: Budget) -> dict[str, Any]:
    """One plan: how far below the budget, and how long it took."""
    scores = planc.score(analysis, _weights(analysis), Random(0))
    begin = time.process_time()
    try:
        plan = planc.select(analysis, scores, policy, budget=budget)
    except PlancError as error:
        return {"failed": f"{type(error).__name__}: {error}"}
    seconds = time.process_time() - begin
    shares = list(_shares(plan, budget, analysis))
    return {"below": 1 - max(shares), "reached": _reached(plan, budget), "seconds": seconds}


def analysis_of(name: str) -> Analysis:
    """The analysis of a model whose weights were never there."""
    with _WithoutWeights():
        model = zoo.unweighted(name)
    image = torch.empty(zoo.example_input(name).shape, device="meta")
    analysis = planc.analyze(planc.trace(model.to("meta").eval(), (image,)))
    analysis.cost, analysis.widths, analysis.equations("module")  # computed once, not timed below
    return analysis


class _WithoutWeights(TorchFunctionMode):
    """Parameters are made on the meta device, where initialising them costs nothing."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        return function(
            *args, **(kwargs | {"device": "meta"} if function is torch.empty else kwargs)
        )


def _weights(analysis: Analysis) -> dict[str, torch.Tensor]:
    return {t.name: torch.empty(t.shape, device="meta") for t in analysis.graph.tensors}


def _shares(plan: Plan, budget: Budget, analysis: Analysis) -> Iterator[float]:
    after = asdict(plan.cost_after)
    for measure_name, limit in budget.limits(analysis).items():
        yield after[measure_name] / limit


def _reached(plan: Plan, budget: Budget) -> float:
    before, after = asdict(plan.cost_before), asdict(plan.cost_after)
    given = next(name for name, value in asdict(budget).items() if value is not None)
    return float(after[given] / before[given])


def _cells(row: dict[str, Any]) -> str:
    if "failed" in row:
        return row["failed"]
    return f"{row['reached']:>10.4%} {row['below']:>8.3%} {row['seconds']:>8.3f}"


def _budget(text: str) -> Budget:
    given = dict(part.split("=") for part in text.split(","))
    return Budget(**{name: float(value) for name, value in given.items()})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.budgets",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("models", nargs="*", help="default: the 80 classifiers")
    parser.add_argument(
        "--budget", type=_budget, action="append", metavar="macs=0.5,params=0.5", help="repeatable"
    )
    parser.add_argument("--round-to", type=int, action="append", help="default: 1 and 8")
    parser.add_argument("--policy", choices=sorted(POLICIES), default="uniform")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
