"""Runs without torch's fused attention kernels, which compute other values where a mask pads."""

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
    """Switches the fast paths off, and on again after the last of all runs in all threads.

    The switch is one for the process. Runs that overlap share it: the first one notes its state,
    the last one puts it back.
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
