"""Lossless pruning: what changes nothing goes, and nothing else."""

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
from planc.plan.arguments import options, takes
from planc.plan.plan import Plan
from planc.policy import Zeros
from planc.trace import trace


@takes(model=module)
def fold(model: nn.Module, args: Any = None, kwargs: Mapping[str, Any] | None = None) -> nn.Module:
    """A copy of a model in which constants have been folded into biases, equal to rounding.

    A unit whose value is the same for all inputs, as a channel is whose scale is zero and whose
    shift is not, adds a constant to what takes it in: to the bias there, or to the running mean of
    the batch norm that alone follows, and the unit becomes zero, like all others on which nothing
    depends. One that a padded convolution takes in is another at the borders and stays. For
    activations that are finite, and the shapes of the example inputs.

    Raises:
        PolicyError: the model is training.
        TraceError, AnalysisError: as :func:`planc.compile`.
    """
    analysis = analyze(trace(model, args, kwargs))
    if analysis.graph.training:
        raise PolicyError("constants are those of a model that is not training: call model.eval()")
    result = copy_module(model)
    named = {
        **dict(result.named_parameters(remove_duplicate=False)),
        **dict(result.named_buffers(remove_duplicate=False)),
    }
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
    """A model equal to ``model`` to rounding, and the plan that removes from it exactly the units
    that provably change nothing: outputs stay equal to rounding.

    The model returned is what :func:`fold` makes, of the same structure as ``model``; the plan is
    applied to it::

        ready, plan = planc.lossless(model, images)
        smaller = planc.apply(plan, ready)

    Raises:
        PolicyError: the model is training.
        TraceError, AnalysisError: as :func:`planc.compile`.
    """
    ready = fold(model, args, kwargs)
    return ready, compile(
        ready, args, kwargs, criterion=Dead(target), policy=Zeros(), target=target
    )
