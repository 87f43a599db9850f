"""Systems that are not this one, as far as the code asks for them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def unopened_directories() -> Iterator[None]:
    """While it is entered, the system is one where directories cannot be opened, and none is."""

    def none(*_: Any) -> int:
        raise AssertionError("a directory was opened")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "name", "nt")
        patched.setattr(os, "open", none)
        yield
