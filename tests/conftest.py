"""Options of the test run."""

from __future__ import annotations

import pytest
import torch

from tests.scripts import promises
from tests.scripts.promises import goal, pytest_collection_modifyitems, pytest_configure
from tests.support.systems import unopened_directories

__all__ = [
    "goal",
    "pytest_collection_modifyitems",
    "pytest_configure",
    "unopened_directories",
]

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
