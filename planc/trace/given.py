"""What users give as a model, as the ``nn.Module`` that is traced, applied to and verified."""

from __future__ import annotations

from typing import Any, TypeVar, overload

import torch
from torch import nn

from planc.errors import TraceError

Given = TypeVar("Given")


@overload
def as_module(model: torch.export.ExportedProgram) -> nn.Module: ...


@overload
def as_module(model: Given) -> Given: ...


def as_module(model: Any) -> Any:
    """The module that ``model`` stands for: an exported program's is its ``.module()``, which
    shares the program's weights; anything else is returned as it is.
    """
    return model.module() if isinstance(model, torch.export.ExportedProgram) else model


def example_inputs(
    program: torch.export.ExportedProgram,
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The inputs that a program was exported with.

    Raises:
        TraceError: it carries none.
    """
    if program.example_inputs is None:
        raise TraceError("the exported program carries no example inputs: give args")
    args, kwargs = program.example_inputs
    return tuple(args), dict(kwargs)
