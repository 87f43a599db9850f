"""Options of the test run."""

from __future__ import annotations

from contextlib import AbstractContextManager

import pytest
import torch

from tests import promises, systems
from tests.promises import goal, pytest_collection_modifyitems, pytest_configure

__all__ = ["goal", "pytest_collection_modifyitems", "pytest_configure"]

torch.set_num_threads(1)  # one for each worker, from the first module that is collected on


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--regenerate", action="store_true", help="write the expected texts in tests/golden anew"
    )
    promises.pytest_addoption(parser)


@pytest.fixture
def regenerate(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be written instead of compared with."""
    return bool(request.config.getoption("--regenerate"))


@pytest.fixture
def unopened_directories() -> AbstractContextManager[None]:
    """While it is entered, the system is one where directories cannot be opened, and none is."""
    return systems.unopened_directories()
