"""Runs without torch's fused attention kernels, because these compute other values at masked
padding.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_LOCK = threading.Lock()
_DEPTH = 0
_BEFORE = True


@contextmanager
def unfused() -> Iterator[None]:
    """Switch the fast paths off, and on again after the last concurrent run.

    The switch is global to the process. Overlapping runs share it: the first one notes its state,
    the last one restores it.
    """
    global _DEPTH, _BEFORE
    with _LOCK:
        if not _DEPTH:
            _BEFORE = torch.backends.mha.get_fastpath_enabled()
            torch.backends.mha.set_fastpath_enabled(False)
        _DEPTH += 1
    try:
        yield
    finally:
        with _LOCK:
            _DEPTH -= 1
            if not _DEPTH:
                torch.backends.mha.set_fastpath_enabled(_BEFORE)
