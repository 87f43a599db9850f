"""Tracing: a model and example inputs in, the frozen :class:`planc.ir.Graph` out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import nn

from planc.errors import TraceError
from planc.ir.collection import paused_collection
from planc.ir.graph import Graph
from planc.modules.given import as_module, example_inputs
from planc.modules.inputs import as_call
from planc.plan.arguments import instance, optional, options, takes
from planc.trace.attempts import record
from planc.trace.decisions import Replay
from planc.trace.export import export

__all__ = ["Frontend", "trace"]

Frontend = Literal["record", "export"]


@takes(
    frontend=options("record", "export", error=TraceError),
    replay=optional(instance("a Replay", Replay, advice="leave it out")),
)
def trace(
    model: nn.Module | torch.export.ExportedProgram,
    args: Any = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    frontend: Frontend = "record",
    replay: Replay | None = None,
) -> Graph:
    """Traces one run of ``model(*args, **kwargs)`` into a frozen graph.

    The model is neither run nor changed: a clone without weights runs on fake tensors, or, where
    control flow depends on values, on the real ones; ``graph.frontend`` says which.

    Args:
        model: any ``nn.Module``, on any device (the meta device too), in train or eval mode, a
            ``torch.fx.GraphModule`` among them; or a ``torch.export.ExportedProgram``, which is
            traced as its ``.module()``. Sizes that a given graph holds as literals stay what they
            are for ``target="module"``, and are no obstacle to ``target="graph"``.
        args: the positional arguments: a tuple, or a single tensor. An exported program has
            example inputs of its own, which are taken where none are given.
        kwargs: the keyword arguments.
        frontend: "record" runs the model and notes every operator, and is the cheaper one;
            "export" converts what ``torch.export`` makes of it. Both lead to the same groups, but
            export does not say where numbers came from: plans need the recorder.
        replay: decisions of another run of a model whose control flow depends on values.

    Raises:
        TraceError: the run failed; names the module, the source line and the reason.
    """
    if args is None and not kwargs and isinstance(model, torch.export.ExportedProgram):
        args, kwargs = example_inputs(model)
    model = as_module(model)
    args, kwargs = as_call(args, kwargs)
    with paused_collection():
        if frontend == "export":
            return export(model, args, kwargs)
        return record(model, args, kwargs, replay)
