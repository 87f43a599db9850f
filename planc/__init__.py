"""A compiler for immutable pruning plans of PyTorch models.

    plan = planc.compile(model, images, ratio=0.5)  # trace, analyze, score, select
    smaller = planc.apply(plan, model)  # a new module of the same class
    planc.verify(plan, model, smaller, images)  # raises VerificationError

By task::

    make a plan      compile, or its steps trace, analyze, score, select; lossless, edit
                     Budget, Schedule, Step, next_step, compose; calibrate, measure_latency
    of other tools   from_masks, from_history, recover
    review a plan    print(plan), diff, report, planc.plot
    carry it out     apply, restore, mask, bake, fold; on files: apply_files, restore_files, job
    prove it         verify
    plans on disk    save_plan, load_plan; save_masks, load_masks; save_latency, load_latency
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
    from planc.analysis import analyze
    from planc.apply import apply, mask, restore
    from planc.cli.report.html import report
    from planc.compile import compile
    from planc.compile.edit import edit
    from planc.compile.history import from_history
    from planc.compile.lossless import fold, lossless
    from planc.compile.recover import recover
    from planc.compile.schedule import Schedule, Step, next_step
    from planc.compile.select import select
    from planc.criteria import score
    from planc.criteria.calibration import calibrate
    from planc.errors import (
        AlreadyApplied,
        AnalysisError,
        CalibrationError,
        FileError,
        InfeasibleBudget,
        PlancError,
        PolicyError,
        ShardMismatch,
        StaleError,
        StalePlan,
        TraceError,
        VerificationError,
    )
    from planc.files.checkpoint.load import load, load_optimizer
    from planc.files.checkpoint.save import save
    from planc.files.checkpoint.statistics import load_statistics, save_statistics
    from planc.files.checkpoint.stored import StoredWeights
    from planc.files.cut import apply_files, restore_files
    from planc.files.cut.job import job
    from planc.files.disk.limits import Limits
    from planc.files.formats import load_plan, save_plan
    from planc.files.formats.masks import load_masks, save_masks
    from planc.files.tensors.opened import inspect
    from planc.masks import bake, from_masks
    from planc.plan.compose import compose
    from planc.plan.diff import diff
    from planc.plan.latency import LatencyTable
    from planc.plan.masks import MaskPlan
    from planc.plan.plan import Plan
    from planc.policy.budget import Budget
    from planc.policy.latency.measure import measure_latency
    from planc.rules import rule
    from planc.trace import trace
    from planc.verify import verify

__version__ = "0.1.0"

__all__ = [
    "AlreadyApplied",
    "AnalysisError",
    "Budget",
    "CalibrationError",
    "FileError",
    "InfeasibleBudget",
    "LatencyTable",
    "Limits",
    "MaskPlan",
    "Plan",
    "PlancError",
    "PolicyError",
    "Schedule",
    "ShardMismatch",
    "StaleError",
    "StalePlan",
    "Step",
    "StoredWeights",
    "TraceError",
    "VerificationError",
    "analyze",
    "apply",
    "apply_files",
    "bake",
    "calibrate",
    "compile",
    "compose",
    "diff",
    "edit",
    "fold",
    "from_history",
    "from_masks",
    "inspect",
    "job",
    "load",
    "load_latency",
    "load_masks",
    "load_optimizer",
    "load_plan",
    "load_statistics",
    "lossless",
    "mask",
    "measure_latency",
    "next_step",
    "recover",
    "report",
    "restore",
    "restore_files",
    "rule",
    "save",
    "save_latency",
    "save_masks",
    "save_plan",
    "save_statistics",
    "score",
    "select",
    "trace",
    "verify",
]

_HOMES = {
    "StoredWeights": "planc.files.checkpoint",
    "Budget": "planc.policy.budget",
    "LatencyTable": "planc.plan.latency",
    "Limits": "planc.files.disk.limits",
    "MaskPlan": "planc.plan.masks",
    "Plan": "planc.plan.plan",
    "Schedule": "planc.compile.schedule",
    "Step": "planc.compile.schedule",
    "analyze": "planc.analysis",
    "apply": "planc.apply",
    "apply_files": "planc.files.cut",
    "bake": "planc.masks",
    "calibrate": "planc.criteria.calibration",
    "compile": "planc.compile",
    "compose": "planc.plan.compose",
    "diff": "planc.plan.diff",
    "edit": "planc.compile.edit",
    "fold": "planc.compile.lossless",
    "from_history": "planc.compile.history",
    "from_masks": "planc.masks",
    "inspect": "planc.files.tensors.opened",
    "job": "planc.files.cut.job",
    "load": "planc.files.checkpoint",
    "load_masks": "planc.files.formats.masks",
    "load_optimizer": "planc.files.checkpoint",
    "load_latency": "planc.files.formats.latency",
    "load_plan": "planc.files.formats",
    "load_statistics": "planc.files.checkpoint.statistics",
    "lossless": "planc.compile.lossless",
    "mask": "planc.apply",
    "measure_latency": "planc.policy.latency.measure",
    "next_step": "planc.compile.schedule",
    "recover": "planc.compile.recover",
    "report": "planc.cli.report.html",
    "restore": "planc.apply",
    "restore_files": "planc.files.cut",
    "rule": "planc.rules",
    "save": "planc.files.checkpoint",
    "save_masks": "planc.files.formats.masks",
    "save_latency": "planc.files.formats.latency",
    "save_plan": "planc.files.formats",
    "save_statistics": "planc.files.checkpoint.statistics",
    "score": "planc.criteria",
    "select": "planc.compile.select",
    "trace": "planc.trace",
    "verify": "planc.verify",
}


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
    elif name in __all__:
        value = getattr(import_module(_HOMES.get(name, "planc.errors")), name)
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
