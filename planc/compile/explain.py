"""Explanation of a model: reasons for couplings and pins, as text and as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from planc.analysis import analyze
from planc.analysis.answers import Explanation, explanation
from planc.plan.arguments import a_text, optional, takes
from planc.trace import trace


@takes(name=optional(a_text))
def explain(
    model: nn.Module | torch.export.ExportedProgram,
    args: Any = None,
    name: str | None = None,
    kwargs: Mapping[str, Any] | None = None,
) -> Explanation:
    """Explain why units of a model are removed together, and why others are never removed.

    Args:
        model: the model.
        args: example inputs, a tensor or a tuple, as for :func:`planc.compile`.
        name: a tensor, one of its dimensions ("conv1.weight:0"), a group, a module, or a pattern
            such as "layer4.*". None for all pins and all constraints on widths, the unusual first.
        kwargs: example keyword arguments.

    Returns:
        The answers; ``print`` shows them, ``entries`` are plain data.

    Raises:
        AnalysisError: nothing has this name; names the nearest.
        TraceError: the model cannot be traced.

    >>> model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> print(explain(model, torch.zeros(1, 3), "2.weight:0"))
    2.weight:0
      2 indices of 2.weight:0 are pinned:
        because of an output of the model
      to free it: name it in free_outputs (--free-outputs), or prune the layer before it
    """
    return explanation(analyze(trace(model, args, kwargs)), name)
