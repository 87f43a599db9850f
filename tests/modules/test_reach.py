"""The code reached from a model is that of its runs, whatever else is imported."""

from __future__ import annotations

import functools
import sys
import types
from typing import Any

import pytest
import torch
from torch import nn

from planc.modules.reach import Reach

BUILT: dict[int, Any] = {}


@functools.lru_cache
def helper(n: int) -> int:
    return n


def building() -> None:
    BUILT[0] = helper


class Mixin:
    def __init_subclass__(cls) -> None:
        building()

    def __len__(self) -> int:
        return helper(1)


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        building()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.relu()


class Mixed(Layer, Mixin):
    pass


class Settings:
    def __init__(self) -> None:
        self.n = helper(3)


class Making(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * Settings().n


class Importing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        from beside import scaled  # type: ignore[import-not-found]

        y: torch.Tensor = scaled(x)
        return y


class ImportingParts(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        import beside.inner  # type: ignore[import-not-found]

        y: torch.Tensor = beside.inner.scaled(x)
        return y


class Relative(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        from . import beside  # type: ignore[attr-defined]

        y: torch.Tensor = beside.scaled(x)
        return y


class Named(nn.Module):
    """An attribute happens to have the name of a module of another library."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.beside * x  # type: ignore[no-any-return,operator]


class Asserting(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.dim() == 2
        return x


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> list[types.ModuleType]:
    """A module under three names, each with a cached function."""
    names = ("beside", "beside.inner", f"{__package__}.beside")
    found = [types.ModuleType(name) for name in names]
    for module in found:
        exec("import functools\n@functools.cache\ndef scaled(x): return 2 * x", vars(module))
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return found


def cached(kind: type[nn.Module]) -> set[str]:
    return {place for _, place in Reach({kind}).caches.values()}


def test_special_methods_are_reached_and_constructors_of_modules_are_not() -> None:
    assert cached(Layer) == set()
    assert cached(Mixed) == {"helper"}  # by __len__
    assert id(BUILT) not in Reach({Mixed}).containers


def test_constructors_of_other_objects_are_reached() -> None:
    assert cached(Making) == {"helper"}


@pytest.mark.parametrize(("kind", "which"), [(Importing, 0), (ImportingParts, 1), (Relative, 2)])
def test_modules_imported_by_a_run_are_reached(
    kind: type[nn.Module], which: int, beside: list[types.ModuleType]
) -> None:
    found = {id(holder) for holder, _ in Reach({kind}).caches.values()}
    assert id(beside[which]) in found


@pytest.mark.usefixtures("beside")
def test_an_attribute_named_like_a_module_reaches_nothing() -> None:
    assert cached(Named) == set()


def test_a_module_imported_later_makes_a_reach_outdated(monkeypatch: pytest.MonkeyPatch) -> None:
    reach = Reach({Importing})
    assert reach.is_current()
    monkeypatch.setitem(sys.modules, "beside", types.ModuleType("beside"))
    assert not reach.is_current()


def test_asserts_rewritten_by_pytest_reach_no_code_of_pytest() -> None:
    reach = Reach({Asserting})
    assert set(reach.classes) == {Asserting}
    assert not reach.caches
