"""Lines of the user's code, outside torch and planc."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from torch import nn

OURS = str(Path(__file__).parent.parent) + os.sep
HIDDEN = (str(Path(torch.__file__).parent) + os.sep, OURS)
_MODULES = str(Path(nn.__file__).parent) + os.sep
_CALLS_THE_MODEL = (str(Path(__file__).with_name("record.py")), "_run")


def user_line() -> tuple[str, int]:
    """File and line of the innermost frame of a run outside torch and the tracer.

    For a model of torch's modules alone, the innermost frame in torch.nn. The caller of planc is
    not part of the run.
    """
    within = "", 0
    frame = sys._getframe(2)
    while frame is not None:
        code = frame.f_code
        if not code.co_filename.startswith(HIDDEN):
            return code.co_filename, frame.f_lineno
        if (code.co_filename, code.co_name) == _CALLS_THE_MODEL:
            break
        if not within[0] and code.co_filename.startswith(_MODULES):
            within = code.co_filename, frame.f_lineno
        frame = frame.f_back  # type: ignore[assignment]
    return within


def user_line_of(error: Exception) -> tuple[str, int] | None:
    """File and line of the innermost frame of a traceback outside torch and the tracer."""
    line, trace = None, error.__traceback__
    while trace is not None:
        if not trace.tb_frame.f_code.co_filename.startswith(HIDDEN):
            line = (trace.tb_frame.f_code.co_filename, trace.tb_lineno)
        trace = trace.tb_next
    return line
