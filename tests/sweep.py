"""The zoo sweep: compiles, applies and verifies torchvision's float models: the 80 classifiers, and
with ``--all`` the 29 models for segmentation, detection, video and optical flow as well.

    python -m tests.sweep [MODEL ...] [--all] [--ratio 0.5] [--jobs 2] [--dtype float32]

Each model has a process of its own. For each ratio a line says: groups, units, the share of
parameters that are pinned, parameters and MACs before and after, the largest relative error against
the rewritten graph and against the masked original (``*``: of a plan for the rewritten graph that
leaves mixing groups whole, since the module's plan has pruned some), then seconds and peak MiB of
trace, analyze, score and select, apply, verify, above what the process held before each, and the
time of ``copy.deepcopy`` for comparison. A small model comes first and pays for one-time imports.
Exits with 1 if any model fails:

* a step raises, or the output is not finite or has another shape or the class changes,
* the counted MACs or parameters, before or after, are not exactly those of the plan (MACs after
  pruning are not compared where they depend on the values of the inputs, as in detectors),
* the error is above 1e-4 in float32 or 1e-9 in float64,
* the original's state is not bit for bit what it was.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import math
import sys
import time
from dataclasses import asdict
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

import planc
from planc.criteria import named
from planc.plan import Plan
from planc.policy import Uniform
from planc.trace.nesting import leaves, map_leaves
from tests.measure import Stage, children, macs, stage
from tests.zoo import torchvision as zoo

HEAVY = {"regnet_y_128gf", "vit_h_14"}  # 2.5 GB of weights each
TOLERANCE = {"float32": 1e-4, "float64": 1e-9}
STAGES = ("trace", "analyze", "select", "apply", "verify")
LIMIT = 900.0  # seconds for one model


def main() -> int:
    """Runs the sweep and returns the exit code."""
    options = _options()
    if options.child:
        torch.set_num_threads(options.threads)
        print(json.dumps(measure(options.models[0], options.ratio, options.dtype, options.seed)))
        return 0
    common = [f"--dtype={options.dtype}", f"--seed={options.seed}", "--child"]
    names = options.models or zoo.classification_models()
    if options.all:
        names = [*names, *(name for name in zoo.other_models() if name not in names)]
    others = set(zoo.other_models())
    calls = {}
    for name in names:
        ratios = options.ratio or ([0.5] if name in others else [0.5, 0.75])
        of_ratio = [f"--ratio={ratio}" for ratio in ratios]
        calls[name] = [name, f"--threads={options.threads}", *common, *of_ratio]
    print(_HEADER, flush=True)
    begin, failures = time.perf_counter(), 0
    for name, answer in children("tests.sweep", calls, HEAVY, options.jobs, LIMIT):
        for row in answer.get("rows", [answer]):
            failures += "failed" in row
            print(_line(name, row), flush=True)
    minutes = (time.perf_counter() - begin) / 60
    print(f"\n{len(names)} models, {failures} failures, {minutes:.1f} minutes")
    return int(failures > 0)


def measure(name: str, ratios: list[float], dtype: str, seed: int) -> dict[str, Any]:
    """The rows of one model, measured in this process."""
    _warm_up()
    model = zoo.build(name, seed, getattr(torch, dtype))
    images = zoo.example_inputs(name, seed=seed + 1)
    inputs = map_leaves(lambda image: image.to(getattr(torch, dtype)), images)
    before = _digest(model)
    counted = macs(model, *inputs)
    stages = {stage_name: Stage() for stage_name in STAGES}
    with stage() as stages["trace"]:
        graph = planc.trace(model, inputs)
    with stage() as stages["analyze"]:
        analysis = planc.analyze(graph)
    begin = time.perf_counter()
    copied = copy.deepcopy(model)
    copying = time.perf_counter() - begin
    del copied
    rows = []
    for ratio in ratios:
        row: dict[str, Any] = {"ratio": ratio, "copy": copying}
        try:
            plan = _checked(row, stages, model, analysis, inputs, ratio, TOLERANCE[dtype])
            _require(plan.cost_before.macs, counted, "MACs of the original")
            _require(_digest(model), before, "digest of the original's state")
        except Exception as error:
            row["failed"] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        row["stages"] = {stage_name: asdict(taken) for stage_name, taken in stages.items()}
        rows.append(row)
    return {"rows": rows}


def _checked(
    row: dict[str, Any],
    stages: dict[str, Stage],
    model: nn.Module,
    analysis: Any,
    inputs: tuple[Any, ...],
    ratio: float,
    tolerance: float,
) -> Plan:
    """Compiles, applies and verifies one plan; fills in the row."""
    with stage() as stages["select"]:
        scores = planc.score(analysis, model, named("l2"))
        plan = planc.select(analysis, scores, Uniform(ratio))
    row |= {
        "groups": len(plan.groups),
        "units": sum(group.size for group in plan.groups),
        "pinned": _pinned_share(plan),
        "params": (plan.cost_before.params, plan.cost_after.params),
        "macs": (plan.cost_before.macs, plan.cost_after.macs),
    }
    with stage() as stages["apply"]:
        smaller = planc.apply(plan, model)
    with stage() as stages["verify"]:
        report = planc.verify(plan, model, smaller, inputs)
    row |= {"graph": report.graph_error, "error": report.error, "whole": report.error is None}
    by_values = analysis.graph.data_dependent
    with torch.no_grad():
        expected, outputs = (list(leaves(net(*inputs))) for net in (model, smaller))
    finite = all(bool(output.isfinite().all()) for output in outputs)
    assert finite, "the smaller model's output is not finite"
    fixed = slice(1, None) if by_values else slice(None)  # how many boxes there are is not
    of = [[tuple(output.shape)[fixed] for output in some] for some in (outputs, expected)]
    _require(of[0], of[1], "output shapes")
    _require(type(smaller), type(model), "class")
    _require(sum(p.numel() for p in model.parameters()), row["params"][0], "parameters before")
    _require(sum(p.numel() for p in smaller.parameters()), row["params"][1], "parameters after")
    if not by_values:
        _require(macs(smaller, *inputs), row["macs"][1], "MACs after")
    if row["whole"]:
        target: Any = "module" if by_values else "graph"
        row["error"] = _error_with_mixing_groups_whole(plan, model, inputs, ratio, target)
    assert row["error"] <= tolerance, f"error {row['error']:.1e} is above {tolerance:.0e}"
    return plan


def _error_with_mixing_groups_whole(
    plan: Plan,
    model: nn.Module,
    inputs: tuple[Any, ...],
    ratio: float,
    target: Literal["module", "graph"],
) -> float:
    """The error of what is exact in a model whose plan is not: heads, widths of MLPs, ..."""
    mixing = tuple(group.name for group in plan.groups if group.mixing)
    exact = planc.compile(model, inputs, ratio=ratio, keep=mixing, target=target)
    report = planc.verify(exact, model, planc.apply(exact, model), inputs)
    assert report.error is not None, "a plan without mixing groups was not compared"
    return float(report.error)


def _pinned_share(plan: Plan) -> float:
    """Share of the parameters' elements that no group can remove, through any dimension."""
    free = {
        (tensor.name, dim): np.zeros(size, dtype=bool)
        for tensor in plan.tensors
        for dim, size in enumerate(tensor.shape)
    }
    for group in plan.groups:
        for member in group.members:
            free[member.tensor, member.dim][member.expand()[1]] = True
    pinned = total = 0
    for tensor in plan.tensors:
        if tensor.kind == "parameter":
            dims = range(len(tensor.shape))
            pinned += math.prod(int((~free[tensor.name, dim]).sum()) for dim in dims)
            total += math.prod(tensor.shape)
    return pinned / total


def _digest(model: nn.Module) -> str:
    """SHA-256 over names and bytes of the state."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.contiguous().view(-1).numpy())
    return digest.hexdigest()


def _require(found: object, expected: object, what: str) -> None:
    assert found == expected, f"{what}: {found} is not {expected}"


def _warm_up() -> None:
    """Pays for the imports that the first compilation of a process triggers."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3)
    ).eval()
    inputs = (torch.randn(1, 3, 8, 8),)
    plan = planc.compile(model, inputs, ratio=0.5)
    planc.verify(plan, model, planc.apply(plan, model), inputs)


_COLUMNS = (
    *(("model", 37), ("ratio", 5), ("groups", 6), ("units", 6), ("pinned", 6)),
    *(("params M", 9), ("after", 9), ("MACs G", 9), ("after", 9), ("graph", 6), ("masked", 7)),
    *((f"{name} s", 9) for name in STAGES),
    ("copy s", 6),
    *((f"{name} MiB", 11) for name in STAGES),
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
        masked = "" if row["error"] is None else f"{row['error']:.0e}"
        cells += [f"{row['graph']:.0e}", masked + "*" * row["whole"]]
        cells += [f"{row['stages'][stage_name]['seconds']:.3f}" for stage_name in STAGES]
        cells += [f"{row['copy']:.3f}"]
        cells += [f"{row['stages'][stage_name]['peak']:.0f}" for stage_name in STAGES]
    text = " ".join(f"{cell:>{width}}" for cell, (_, width) in zip(cells, _COLUMNS, strict=False))
    return text + (f"  FAILED: {row['failed']}" if "failed" in row else "")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.sweep",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("models", nargs="*", help="default: the 80 classifiers")
    parser.add_argument("--all", action="store_true", help="the 29 other models, too")
    parser.add_argument(
        "--ratio", type=float, action="append", help="default: 0.5 and 0.75; 0.5 for the 29 others"
    )
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--threads", type=int, default=1, help="threads of each process")
    parser.add_argument("--dtype", choices=sorted(TOLERANCE), default="float32")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
