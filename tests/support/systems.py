"""Systems that are not this one, as far as the code asks for them. Without torch, so that forks of
tests cost little.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest


@contextmanager
def without_directories() -> Iterator[None]:
    """Within it the system is one where directories cannot be opened, and none is."""

    def none(*_: Any) -> int:
        raise AssertionError("a directory was opened")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "name", "nt")
        patched.setattr(os, "open", none)
        yield


@pytest.fixture
def unopened_directories() -> AbstractContextManager[None]:
    """While it is entered, the system is one where directories cannot be opened, and none is."""
    return without_directories()
