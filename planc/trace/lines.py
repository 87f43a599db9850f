"""Lines of the user's code: those that are neither torch's nor planc's."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

OURS = str(Path(__file__).parent.parent) + os.sep
HIDDEN = (str(Path(torch.__file__).parent) + os.sep, OURS)


def user_line() -> tuple[str, int]:
    """File and line of the innermost frame outside torch and the tracer."""
    frame = sys._getframe(2)
    while frame is not None:
        if not frame.f_code.co_filename.startswith(HIDDEN):
            return frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back  # type: ignore[assignment]
    return "", 0


def user_line_of(error: Exception) -> tuple[str, int] | None:
    """File and line of the innermost frame of a traceback outside torch and the tracer."""
    line, trace = None, error.__traceback__
    while trace is not None:
        if not trace.tb_frame.f_code.co_filename.startswith(HIDDEN):
            line = (trace.tb_frame.f_code.co_filename, trace.tb_lineno)
        trace = trace.tb_next
    return line
