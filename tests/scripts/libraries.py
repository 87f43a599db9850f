"""The table of other libraries: compiles, applies and verifies 60 and more small random models.

    python -m tests.scripts.libraries [MODEL ...] [--ratio 0.5] [--jobs 2]

``pip install -e '.[libraries]'`` brings the libraries. Each model has a process of its own. A line
says: groups, units, the share of parameters that are pinned, parameters before and after, the share
removed, the largest relative error against the rewritten graph and against the masked original
(``mixes``: removing is not zeroing in some group), and ok, or the reason of a failure. Where less
than 60 % of the parameters go at 0.5, the reason that pins the most follows. Exits with 1 if any
model fails.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import sys
import time
from collections import Counter
from importlib.util import find_spec
from typing import Any

import torch

import planc
from planc.analysis import Analysis
from tests.support.measure import forked
from tests.zoo.check import pinned_share
from tests.zoo.libraries import TABLE
from tests.zoo.others import OTHERS

ENTRIES = TABLE | OTHERS
_LIMIT = 600.0  # seconds for one model
_FEW = 0.6  # of the parameters: below, the reason is shown
_NO_REASONS = ("the other operand", "a kernel dimension")  # another pin's consequence; no channels
_COLUMNS = (
    *(("model", 48), ("groups", 6), ("units", 6), ("pinned", 6), ("params", 9), ("after", 9)),
    *(("removed", 7), ("graph", 6), ("masked", 6), ("s", 6)),
)


def main() -> int:
    """Prints the table and returns the exit code."""
    options = _options()
    names = options.models or [n for n in ENTRIES if find_spec(n.partition(":")[0])]
    calls = {name: (name, options.ratio) for name in names}
    print(_line(dict(_COLUMNS), [name for name, _ in _COLUMNS]), flush=True)
    failures = 0
    for name, row in forked(row_of, calls, ["planc.verify"], set(), options.jobs, _LIMIT):
        failures += "failed" in row
        print(_line(dict(_COLUMNS), [name, *row.get("cells", [])]) + _ending(row), flush=True)
    print(f"\n{len(names)} models, {failures} failures")
    return int(failures > 0)


def _line(widths: dict[str, int], cells: list[str]) -> str:
    return " ".join(f"{cell:>{w}}" for cell, w in zip(cells, widths.values(), strict=False))


def _ending(row: dict[str, Any]) -> str:
    return f"  FAILED: {row['failed']}" if "failed" in row else f"  ok{row['why']}"


def row_of(name: str, ratio: float) -> dict[str, Any]:
    """The row of one model; a failure has its reason in ``failed``."""
    torch.set_num_threads(1)
    begin = time.perf_counter()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return _row(name, ratio, begin)
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"}


def _row(name: str, ratio: float, begin: float) -> dict[str, Any]:
    entry = ENTRIES[name]
    torch.manual_seed(0)
    model = entry.make().train(entry.train)
    args, kwargs = entry.call(2)
    plan = planc.compile(model, args, kwargs, ratio=ratio)
    smaller = planc.apply(plan, model, args=args, kwargs=kwargs)
    report = planc.verify(plan, model, smaller, args, kwargs)
    before, after = plan.cost_before.params, plan.cost_after.params
    removed = 1 - after / before
    masked = "mixes" if report.error is None else f"{report.error:.0e}"
    cells = [str(len(plan.groups)), str(sum(group.size for group in plan.groups))]
    cells += [f"{pinned_share(plan):.1%}", str(before), str(after), f"{removed:.1%}"]
    cells += [f"{report.graph_error:.0e}", masked, f"{time.perf_counter() - begin:.0f}"]
    why = ""
    if removed < _FEW:
        analysis = planc.analyze(planc.trace(model, args, kwargs))
        why = f": {_reason(analysis)}"
    return {"cells": cells, "why": why}


def _reason(analysis: Analysis) -> str:
    """The reason why most elements of parameters stay, with the first tensor."""
    sizes = {t.name: math.prod(t.shape) for t in analysis.graph.tensors}
    weights: Counter[str] = Counter()
    first: dict[str, str] = {}
    for pin in analysis.pins:
        reason = pin.reason.partition(" (")[0]  # without file and line
        first.setdefault(reason, pin.tensor)
        if not reason.startswith(_NO_REASONS):
            weights[reason] += sizes[pin.tensor] * pin.count // max(1, pin.size)
    if not weights:
        return "nothing is pinned: widths that one operator alone reads lose half"
    reason = weights.most_common(1)[0][0]
    return f"{first[reason]} {reason}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.scripts.libraries",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("models", nargs="*", help="default: all that are installed")
    parser.add_argument("--ratio", type=float, default=0.5)
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
