"""Options of the test run."""

from __future__ import annotations

from collections.abc import Generator

import pytest
import torch

from tests.mutation.covering import counted, counting
from tests.scripts import promises
from tests.scripts.promises import goal, pytest_configure
from tests.support.systems import unopened_directories

__all__ = [
    "goal",
    "pytest_configure",
    "unopened_directories",
]

torch.set_num_threads(1)  # one for each worker, from the first module that is collected on


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--regenerate", action="store_true", help="write the expected texts in tests/golden anew"
    )
    promises.pytest_addoption(parser)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    promises.pytest_collection_modifyitems(config, items)
    if config.getoption("cov_source", None) and not config.getoption("promises"):
        # first, for what a process imports or computes once must be counted
        items.sort(key=lambda item: not counted(item.nodeid))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    with counting(item.nodeid):
        return (yield)


@pytest.fixture
def regenerate(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be written instead of compared with."""
    return bool(request.config.getoption("--regenerate"))
