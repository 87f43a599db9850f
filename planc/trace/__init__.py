"""Tracing: record one run of a model on example inputs as a :class:`planc.ir.graph.Graph`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from planc.ir.collection import paused_collection
from planc.ir.graph import Graph
from planc.modules.given import as_module, example_inputs
from planc.modules.inputs import as_call
from planc.plan.arguments import instance, optional, takes
from planc.trace.attempts import record
from planc.trace.decisions import Replay

__all__ = ["trace"]


@takes(replay=optional(instance("a Replay", Replay, advice="leave it out")))
def trace(
    model: nn.Module | torch.export.ExportedProgram,
    args: Any = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    replay: Replay | None = None,
) -> Graph:
    """Trace one run of ``model(*args, **kwargs)`` into a frozen graph.

    The model is neither run nor changed: a clone without weights runs on fake tensors, or on real
    ones if control flow depends on values. ``graph.frontend`` names the kind of tensors. During the
    run, functions of ``math`` and cached functions reached by the model are replaced for the whole
    process; traces in several threads wait for one another.

    Args:
        model: any ``nn.Module``, on any device (including meta), in train or eval mode, including a
            ``torch.fx.GraphModule``; or a ``torch.export.ExportedProgram``, traced as its
            ``.module()``. Sizes held as literals by a given graph stay fixed for
            ``target="module"``, and are no obstacle to ``target="graph"``.
        args: the positional arguments: a tuple, or a single tensor. Defaults to the example inputs
            of an exported program.
        kwargs: the keyword arguments.
        replay: decisions of another run, for a model with value-dependent control flow.

    Raises:
        TraceError: the run failed; the message names the module, the source line and the reason.
    """
    if args is None and not kwargs and isinstance(model, torch.export.ExportedProgram):
        args, kwargs = example_inputs(model)
    model = as_module(model)
    args, kwargs = as_call(args, kwargs)
    with paused_collection():
        return record(model, args, kwargs, replay)
