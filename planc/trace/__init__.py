"""Tracing: a model and example inputs in, the frozen :class:`planc.ir.Graph` out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from planc.collection import paused_collection
from planc.errors import TraceError
from planc.ir import Graph
from planc.trace.decisions import Replay
from planc.trace.record import record

__all__ = ["trace"]


def trace(
    model: nn.Module,
    args: Any,
    kwargs: Mapping[str, Any] | None = None,
    *,
    replay: Replay | None = None,
) -> Graph:
    """Traces one run of ``model(*args, **kwargs)`` into a frozen graph.

    The model is neither run nor changed: a clone without weights runs on fake tensors, or, where
    control flow depends on values, on the real ones; ``graph.frontend`` says which.

    Args:
        model: any ``nn.Module``, on any device (the meta device too), in train or eval mode.
        args: the positional arguments: a tuple, or a single tensor.
        kwargs: the keyword arguments.
        replay: decisions of another run of a model whose control flow depends on values.

    Raises:
        TraceError: the run failed; names the module, the source line and the reason.
    """
    if not isinstance(model, nn.Module):
        raise TraceError(
            f"expected an nn.Module, got {type(model).__name__}: build the model first"
        )
    if not isinstance(args, tuple):
        args = tuple(args) if isinstance(args, list) else (args,)
    with paused_collection():
        return record(model, args, dict(kwargs or {}), replay)
