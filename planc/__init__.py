"""planc: a compiler for immutable pruning plans of PyTorch models. The public names, nothing else.

Each name is imported when it is first used, so that ``import planc`` costs nothing.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from planc.analysis import analyze
    from planc.apply import apply, mask, restore
    from planc.calibrate import calibrate, load_statistics, save_statistics
    from planc.checkpoint.load import load, load_optimizer
    from planc.checkpoint.save import save
    from planc.checkpoint.stored import StoredWeights
    from planc.codec import load_plan, save_plan
    from planc.codec.masks import load_masks, save_masks
    from planc.compile import compile
    from planc.compose import compose
    from planc.criteria import score
    from planc.diff import diff
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
    from planc.iteration import Schedule, Step, next_step
    from planc.job import job
    from planc.latency.measure import measure_latency
    from planc.latency.table import LatencyTable
    from planc.lossless import fold, lossless
    from planc.maskplan import MaskPlan
    from planc.masks import bake, from_masks
    from planc.plan import Plan
    from planc.policy.budget import Budget
    from planc.rules import rule
    from planc.select import select
    from planc.streaming import apply_files, restore_files
    from planc.tensorfiles.checkpoint import inspect
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
    "fold",
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
    "StoredWeights": "planc.checkpoint",
    "Budget": "planc.policy.budget",
    "LatencyTable": "planc.latency.table",
    "MaskPlan": "planc.maskplan",
    "Plan": "planc.plan",
    "Schedule": "planc.iteration",
    "Step": "planc.iteration",
    "analyze": "planc.analysis",
    "apply": "planc.apply",
    "apply_files": "planc.streaming",
    "bake": "planc.masks",
    "calibrate": "planc.calibrate",
    "compile": "planc.compile",
    "compose": "planc.compose",
    "diff": "planc.diff",
    "fold": "planc.lossless",
    "from_masks": "planc.masks",
    "inspect": "planc.tensorfiles.checkpoint",
    "job": "planc.job",
    "load": "planc.checkpoint",
    "load_masks": "planc.codec.masks",
    "load_optimizer": "planc.checkpoint",
    "load_latency": "planc.codec.latency",
    "load_plan": "planc.codec",
    "load_statistics": "planc.calibrate",
    "lossless": "planc.lossless",
    "mask": "planc.apply",
    "measure_latency": "planc.latency.measure",
    "next_step": "planc.iteration",
    "restore": "planc.apply",
    "restore_files": "planc.streaming",
    "rule": "planc.rules",
    "save": "planc.checkpoint",
    "save_masks": "planc.codec.masks",
    "save_latency": "planc.codec.latency",
    "save_plan": "planc.codec",
    "save_statistics": "planc.calibrate",
    "score": "planc.criteria",
    "select": "planc.select",
    "trace": "planc.trace",
    "verify": "planc.verify",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'planc' has no attribute {name!r}")
    value = getattr(import_module(_HOMES.get(name, "planc.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Importing ``planc.trace`` would bind that module over the function of the same name."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _HOMES and isinstance(value, ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
