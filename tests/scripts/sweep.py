"""The zoo sweep: compiles, applies and verifies real models, each with random weights and nothing
given but the model and an input.

    python -m tests.scripts.sweep [MODEL ...] [--zoo torchvision] [--ratio 0.5] [--jobs 2]

Without names it takes the zoo of torchvision, all 109 models, or every zoo that ``--zoo`` names;
``--all`` takes all zoos. A model of another zoo is called ``timm:NAME``. Each model has a process
of its own. For each ratio a line (with ``--quiet`` only of a failure) says: groups, units, the
share of parameters that are pinned, parameters and MACs before and after, the largest relative
error against the rewritten graph and against the masked original (``*``: of a plan for the
rewritten graph that leaves mixing groups whole, since the module's plan has pruned some; a star
alone: all groups mix), then seconds of building the model, trace, analyze, score and select, apply,
verify, the time of ``copy.deepcopy`` for comparison, and peak MiB of each above what the process
held before. Exits with 1 if any model fails (:mod:`tests.zoo.check`).
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from tests.support.measure import forked
from tests.zoo.check import STAGES, TOLERANCE, ZOOS, check, zoo

_HEAVY = {"torchvision:regnet_y_128gf", "torchvision:vit_h_14"}  # 2.5 GB of weights each
_LIMIT = 900.0  # seconds for one model
_PRELOAD = ["tests.zoo.check", "torch.utils.flop_counter", "planc.verify", "planc.compile"]


def main() -> int:
    """Runs the sweep and returns the exit code."""
    options = _options()
    zoos = ZOOS if options.all else options.zoo or ["torchvision"]
    keys = [name if ":" in name else f"torchvision:{name}" for name in options.models]
    keys = keys or [f"{source}:{name}" for source in zoos for name in zoo(source).names()]
    ratios = options.ratio or [0.5]
    calls = {key: (key, ratios, options.dtype, options.seed, options.threads) for key in keys}
    preload = _PRELOAD + sorted({key.partition(":")[0] for key in keys})
    if not options.quiet:
        print(_HEADER, flush=True)
    begin, failures, cpu = time.perf_counter(), 0, 0.0
    for key, answer in forked(check, calls, preload, _HEAVY, options.jobs, _LIMIT):
        cpu += answer.get("cpu", 0.0)
        for row in answer.get("rows", [answer]):
            failures += "failed" in row
            if "failed" in row or not options.quiet:
                print(_line(key.removeprefix("torchvision:"), row), flush=True)
    minutes = (time.perf_counter() - begin) / 60
    taken = f"{minutes:.1f} minutes, {cpu / 60:.1f} of CPU time"
    print(f"\n{len(keys)} models, {failures} failures, {taken}")
    return int(failures > 0)


_COLUMNS = (
    *(("model", 40), ("ratio", 5), ("groups", 6), ("units", 6), ("pinned", 6)),
    *(("params M", 9), ("after", 9), ("MACs G", 9), ("after", 9), ("graph", 6), ("masked", 7)),
    *((f"{name} s", 9) for name in STAGES),
    ("copy s", 6),
    *((f"{name} MiB", 11) for name in STAGES[1:]),
)
_HEADER = " ".join(f"{name:>{width}}" for name, width in _COLUMNS)


def _line(name: str, row: dict[str, Any]) -> str:
    """One row of the table, as far as the model came."""
    cells = [name, str(row.get("ratio", ""))]
    if "groups" in row:
        cells += [str(row["groups"]), str(row["units"]), f"{row['pinned']:.1%}"]
        cells += [f"{value / 1e6:.3f}" for value in row["params"]]
        cells += [f"{value / 1e9:.4f}" for value in row["macs"]]
    if "graph" in row:
        masked = f"{row['error']:.0e}" if row.get("error") is not None else ""
        cells += [f"{row['graph']:.0e}", masked + "*" * row["whole"]]
        cells += [f"{row['stages'][stage_name]['seconds']:.3f}" for stage_name in STAGES]
        cells += [f"{row['copy']:.3f}"]
        cells += [f"{row['stages'][stage_name]['peak']:.0f}" for stage_name in STAGES[1:]]
    text = " ".join(f"{cell:>{width}}" for cell, (_, width) in zip(cells, _COLUMNS, strict=False))
    return text + (f"  FAILED: {row['failed']}" if "failed" in row else "")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.scripts.sweep",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("models", nargs="*", help="default: all of the zoos")
    parser.add_argument("--zoo", action="append", choices=ZOOS, help="default: torchvision")
    parser.add_argument("--all", action="store_true", help="all zoos")
    parser.add_argument("--ratio", type=float, action="append", help="default: 0.5")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--threads", type=int, default=1, help="threads of each process")
    parser.add_argument("--dtype", choices=sorted(TOLERANCE), default="float32")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quiet", action="store_true", help="print failures alone")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
