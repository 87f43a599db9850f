"""One model of a zoo compiled, applied and verified, with nothing given but the model and an input,
and every stage of it measured.
"""

from __future__ import annotations

import copy
import hashlib
import importlib
import math
import time
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

import planc
from planc.analysis import Analysis
from planc.criteria import Scores, named
from planc.modules.nesting import leaves, map_leaves
from planc.plan.plan import Plan
from planc.policy import Keep, Uniform
from tests.support.measure import Stage, counted_run, stage

ZOOS = ("torchvision", "timm", "transformers")
STAGES = ("build", "trace", "analyze", "select", "apply", "verify")
_LARGE = 2_000_000_000  # MACs of a run; larger models are not verified at other sizes
TOLERANCE = {"float32": 1e-4, "float64": 1e-9}


def zoo(name: str) -> Any:
    """The module of a zoo: ``names()``, ``build(name, seed, dtype)``, ``example_inputs(name, batch,
    seed)``.
    """
    return importlib.import_module(f"tests.zoo.{name}")


@dataclass(frozen=True)
class Case:
    """A model with the arguments of a call, its analysis and scores, and what one run gives."""

    model: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    analysis: Analysis
    scores: Scores
    macs: int
    outputs: list[torch.Tensor]


def check(
    key: str, ratios: list[float], dtype: str = "float32", seed: int = 0, threads: int = 1
) -> dict[str, Any]:
    """Checks ``key``, ``zoo:model``, at each ratio; a row of measurements for each of them, with
    ``failed`` where something is wrong:

    * a step raises, or the output is not finite or has another shape or the class changes,
    * the counted MACs or parameters, before or after, are not exactly those of the plan (MACs after
      pruning are not compared where they depend on the values of the inputs, as in detectors),
    * the error is above :data:`TOLERANCE`,
    * the original's state is not bit for bit what it was.
    """
    torch.set_num_threads(threads)
    _warm_up()
    stages = {name: Stage() for name in STAGES}
    source, _, name = key.partition(":")
    with stage() as stages["build"]:
        model = zoo(source).build(name, seed, getattr(torch, dtype))
        args, kwargs = _call(zoo(source).example_inputs(name, seed=seed + 1), getattr(torch, dtype))
    before = _digest(model)
    counted, result = counted_run(model, args, kwargs)
    with stage() as stages["trace"]:
        graph = planc.trace(model, args, kwargs)
    with stage() as stages["analyze"]:
        analysis = planc.analyze(graph)
    begin = time.perf_counter()
    copied = copy.deepcopy(model)
    copying = time.perf_counter() - begin
    del copied
    with stage() as scoring:
        scores = planc.score(analysis, model, named("l2"))
    case = Case(model, args, kwargs, analysis, scores, counted, _tensors(result))
    rows = []
    for ratio in ratios:
        row: dict[str, Any] = {"ratio": ratio, "copy": copying}
        try:
            _check(row, stages, case, ratio, TOLERANCE[dtype])
            _require(_digest(model), before, "digest of the original's state")
        except Exception as error:
            row["failed"] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        stages["select"].seconds += scoring.seconds
        row["stages"] = {stage_name: asdict(taken) for stage_name, taken in stages.items()}
        rows.append(row)
    return {"rows": rows, "cpu": time.process_time()}


def _check(
    row: dict[str, Any], stages: dict[str, Stage], case: Case, ratio: float, tolerance: float
) -> None:
    """Compiles, applies and verifies one plan; fills in the row."""
    with stage() as stages["select"]:
        plan = planc.select(case.analysis, case.scores, Uniform(ratio))
    row |= {
        "groups": len(plan.groups),
        "units": sum(group.size for group in plan.groups),
        "pinned": pinned_share(plan),
        "params": (plan.cost_before.params, plan.cost_after.params),
        "macs": (plan.cost_before.macs, plan.cost_after.macs),
    }
    with stage() as stages["apply"]:
        smaller = planc.apply(plan, case.model, args=case.args, kwargs=case.kwargs)
    with stage() as stages["verify"]:
        others = case.macs < _LARGE
        report = planc.verify(plan, case.model, smaller, case.args, case.kwargs, other_sizes=others)
    row |= {"graph": report.graph_error, "error": report.error, "whole": report.error is None}
    by_values = case.analysis.graph.data_dependent
    counted, result = counted_run(smaller, case.args, case.kwargs)
    outputs = _tensors(result)
    finite = all(bool(output.isfinite().all()) for output in outputs)
    assert finite, "the smaller model's output is not finite"
    fixed = slice(1, None) if by_values else slice(None)  # how many boxes there are is not
    of = [[tuple(output.shape)[fixed] for output in some] for some in (outputs, case.outputs)]
    _require(of[0], of[1], "output shapes")
    _require(type(smaller), type(case.model), "class")
    _require(_parameters(case.model), row["params"][0], "parameters before")
    _require(_parameters(smaller), row["params"][1], "parameters after")
    _require(plan.cost_before.macs, case.macs, "MACs of the original")
    if not by_values:
        _require(counted, row["macs"][1], "MACs after")
    if row["whole"]:
        target: Literal["module", "graph"] = "module" if by_values else "graph"
        row["error"] = _error_with_mixing_groups_whole(case, ratio, target, others)
    errors = [error for error in (row["graph"], row["error"]) if error is not None]
    assert max(errors) <= tolerance, f"error {max(errors):.1e} is above {tolerance:.0e}"


def _error_with_mixing_groups_whole(
    case: Case, ratio: float, target: Literal["module", "graph"], other_sizes: bool
) -> float | None:
    """The error of what is exact in a model whose plan is not: heads, widths of MLPs, ...; None
    where all groups mix.
    """
    mixing = {
        group.name
        for g, group in enumerate(case.analysis.groups)
        if case.analysis.mixing(g, target)
    }
    policy = Keep(Uniform(ratio), tuple(sorted(mixing)))
    exact = planc.select(case.analysis, case.scores, policy, target)
    if not any(group.removed for group in exact.groups):
        return None
    call = {"args": case.args, "kwargs": case.kwargs}
    smaller = planc.apply(exact, case.model, **call, validate=False)  # verification does it
    inputs = (case.args, case.kwargs)
    report = planc.verify(exact, case.model, smaller, *inputs, other_sizes=other_sizes)
    assert report.error is not None, "a plan without mixing groups was not compared"
    return float(report.error)


def _call(inputs: Any, dtype: torch.dtype) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Example inputs as the arguments of a call: a tuple of them, a dict of named ones, or both."""

    def converted(leaf: Any) -> Any:
        floating = isinstance(leaf, torch.Tensor) and leaf.is_floating_point()
        return leaf.to(dtype) if floating else leaf

    inputs = map_leaves(converted, inputs)
    if isinstance(inputs, dict):
        return (), inputs
    if len(inputs) == 2 and isinstance(inputs[0], tuple) and isinstance(inputs[1], dict):
        return inputs
    return inputs, {}


def _tensors(result: Any) -> list[torch.Tensor]:
    return [leaf for leaf in leaves(result) if isinstance(leaf, torch.Tensor)]


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def pinned_share(plan: Plan) -> float:
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
