"""Lossless pruning: removal of exactly the units without any effect on the outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from planc.analysis import analyze
from planc.apply.module import copy_module
from planc.compile import compile
from planc.compile.fold import fold_constants
from planc.compile.select import Target
from planc.criteria.dead import Dead
from planc.errors import PolicyError
from planc.modules.given import module
from planc.modules.tree import tensors_by_name
from planc.plan.arguments import options, takes
from planc.plan.plan import Plan
from planc.policy import Zeros
from planc.trace import trace


@takes(model=module)
def fold(model: nn.Module, args: Any = None, kwargs: Mapping[str, Any] | None = None) -> nn.Module:
    """A copy of a model with constants folded into biases, equal to rounding.

    A unit of the same value for all inputs, such as a channel with zero scale and nonzero shift,
    adds a constant to its consumers. The constant is moved to the bias there, or to the running
    mean of a batch norm if that alone follows, and the unit becomes zero, like all units without a
    consumer. A unit consumed by a padded convolution varies at the borders and stays. Valid for
    finite activations and the shapes of the example inputs.

    Args:
        model: the model, in eval mode; it stays unchanged.
        args, kwargs: example inputs, as for :func:`planc.compile`.

    Raises:
        PolicyError: the model is training.
        TraceError, AnalysisError: as in :func:`planc.compile`.
    """
    analysis = analyze(trace(model, args, kwargs))
    if analysis.graph.training:
        raise PolicyError("constants are those of a model that is not training: call model.eval()")
    result = copy_module(model)
    named = tensors_by_name(result)
    fold_constants(analysis, named)
    return result


@takes(model=module, target=options("module", "graph", error=PolicyError))
def lossless(
    model: nn.Module,
    args: Any = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    target: Target = "module",
) -> tuple[nn.Module, Plan]:
    """A model equal to ``model`` to rounding, and the plan removing exactly its provably
    ineffective units: outputs stay equal to rounding.

    The returned model is the result of :func:`fold`, with the structure of ``model``; the plan is
    for this model::

        ready, plan = planc.lossless(model, images)
        smaller = planc.apply(plan, ready)

    Args:
        model: the model, in eval mode; it stays unchanged.
        args, kwargs: example inputs, as for :func:`planc.compile`.
        target: "module" or "graph", as for :func:`planc.compile`.

    Raises:
        PolicyError: the model is training.
        TraceError, AnalysisError: as in :func:`planc.compile`.
    """
    ready = fold(model, args, kwargs)
    return ready, compile(
        ready, args, kwargs, criterion=Dead(target), policy=Zeros(), target=target
    )
