"""A compiler for immutable pruning plans of PyTorch models.

    plan = planc.compile(model, images, ratio=0.5)  # trace, analyze, score, select
    smaller = planc.apply(plan, model)  # a new module of the same class
    planc.verify(plan, model, smaller, images)  # raises VerificationError

By task::

    make a plan      compile, or its steps trace, analyze, score, select; lossless, edit
                     Budget, Schedule, Step, next_step, compose; calibrate, measure_latency
    of other tools   from_masks, from_history, recover
    review a plan    print(plan), diff, report, planc.plot; explain
    carry it out     apply, restore, mask, bake, fold; on files: apply_files, restore_files, job
    prove it         verify
    plans on disk    save_plan, load_plan; save_masks, load_masks; the same with latency, statistics
    models on disk   save, load, load_optimizer, inspect, StoredWeights
    operators        rule

Policies are in :mod:`planc.policy`, criteria in :mod:`planc.criteria`, element-wise plans in
:mod:`planc.masks`, training penalties in :mod:`planc.penalties`, labels for rules of your own in
:mod:`planc.labels`. All other packages below are planc's own and may change; its README shows them.

Each public name is imported on first use, so ``import planc`` imports neither torch nor NumPy.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from planc.analysis import analyze as analyze
    from planc.apply import apply as apply
    from planc.apply import mask as mask
    from planc.apply import restore as restore
    from planc.cli.report.html import report as report
    from planc.compile import compile as compile
    from planc.compile.edit import edit as edit
    from planc.compile.explain import explain as explain
    from planc.compile.history import from_history as from_history
    from planc.compile.lossless import fold as fold
    from planc.compile.lossless import lossless as lossless
    from planc.compile.recover import recover as recover
    from planc.compile.schedule import Schedule as Schedule
    from planc.compile.schedule import Step as Step
    from planc.compile.schedule import next_step as next_step
    from planc.compile.select import select as select
    from planc.criteria import score as score
    from planc.criteria.calibration import calibrate as calibrate
    from planc.errors import AlreadyApplied as AlreadyApplied
    from planc.errors import AnalysisError as AnalysisError
    from planc.errors import CalibrationError as CalibrationError
    from planc.errors import FileError as FileError
    from planc.errors import InfeasibleBudget as InfeasibleBudget
    from planc.errors import PlancError as PlancError
    from planc.errors import PolicyError as PolicyError
    from planc.errors import ShardMismatch as ShardMismatch
    from planc.errors import StaleError as StaleError
    from planc.errors import StalePlan as StalePlan
    from planc.errors import TraceError as TraceError
    from planc.errors import VerificationError as VerificationError
    from planc.files.checkpoint.load import load as load
    from planc.files.checkpoint.load import load_optimizer as load_optimizer
    from planc.files.checkpoint.save import save as save
    from planc.files.checkpoint.statistics import load_statistics as load_statistics
    from planc.files.checkpoint.statistics import save_statistics as save_statistics
    from planc.files.checkpoint.stored import StoredWeights as StoredWeights
    from planc.files.cut import apply_files as apply_files
    from planc.files.cut import restore_files as restore_files
    from planc.files.cut.job import job as job
    from planc.files.disk.limits import Limits as Limits
    from planc.files.formats import load_plan as load_plan
    from planc.files.formats import save_plan as save_plan
    from planc.files.formats.latency import load_latency as load_latency
    from planc.files.formats.latency import save_latency as save_latency
    from planc.files.formats.masks import load_masks as load_masks
    from planc.files.formats.masks import save_masks as save_masks
    from planc.files.tensors.opened import inspect as inspect
    from planc.masks import bake as bake
    from planc.masks import from_masks as from_masks
    from planc.plan.compose import compose as compose
    from planc.plan.diff import diff as diff
    from planc.plan.latency import LatencyTable as LatencyTable
    from planc.plan.masks import MaskPlan as MaskPlan
    from planc.plan.plan import Plan as Plan
    from planc.policy.budget import Budget as Budget
    from planc.policy.latency.measure import measure_latency as measure_latency
    from planc.rules import rule as rule
    from planc.trace import trace as trace
    from planc.verify import verify as verify

__version__ = "0.1.0"

_HOMES = {
    name: f"planc.{home}"
    for home, names in {
        "analysis": "analyze",
        "apply": "apply mask restore",
        "cli.report.html": "report",
        "compile": "compile",
        "compile.edit": "edit",
        "compile.explain": "explain",
        "compile.history": "from_history",
        "compile.lossless": "fold lossless",
        "compile.recover": "recover",
        "compile.schedule": "Schedule Step next_step",
        "compile.select": "select",
        "criteria": "score",
        "criteria.calibration": "calibrate",
        "errors": "AlreadyApplied AnalysisError CalibrationError FileError InfeasibleBudget "
        "PlancError PolicyError ShardMismatch StaleError StalePlan TraceError VerificationError",
        "files.checkpoint": "StoredWeights load load_optimizer save",
        "files.checkpoint.statistics": "load_statistics save_statistics",
        "files.cut": "apply_files restore_files",
        "files.cut.job": "job",
        "files.disk.limits": "Limits",
        "files.formats": "load_plan save_plan",
        "files.formats.latency": "load_latency save_latency",
        "files.formats.masks": "load_masks save_masks",
        "files.tensors.opened": "inspect",
        "masks": "bake from_masks",
        "plan.compose": "compose",
        "plan.diff": "diff",
        "plan.latency": "LatencyTable",
        "plan.masks": "MaskPlan",
        "plan.plan": "Plan",
        "policy.budget": "Budget",
        "policy.latency.measure": "measure_latency",
        "rules": "rule",
        "trace": "trace",
        "verify": "verify",
    }.items()
    for name in names.split()
}
"""The module of each public name."""

__all__ = sorted(_HOMES)

_MODULES = {
    "criteria": "planc.criteria",
    "masks": "planc.masks",
    "penalties": "planc.penalties",
    "plot": "planc.plan.plot",
    "policy": "planc.policy",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value: Any = import_module(_MODULES[name])
    elif name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'planc' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *_MODULES, *(name for name in globals() if name.startswith("__"))})


class _Package(ModuleType):
    """Keep functions such as ``planc.trace`` bound when their namesake module is imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _HOMES and isinstance(value, ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
