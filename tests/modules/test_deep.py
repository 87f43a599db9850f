"""Deep copies of module trees beside those of ``copy.deepcopy``."""

from __future__ import annotations

import copy
import threading
from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import nn

from planc.modules.deep import deep_copy


class _Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 3)
        self.again = self.inner
        self.sizes: dict[Any, Any] = {"a": [1, (2, 3)], 4: {5}, (6, 7): OrderedDict(b=8)}
        self.myself = self.sizes["itself"] = self
        self.own = self.__dict__["_parameters"]


class _WithState(_Plain):
    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "saved": True}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.loaded = list(state)


class _WithSlots(_Plain):
    __slots__ = ("slot",)

    def __init__(self) -> None:
        super().__init__()
        self.slot = [self.inner]


class _Reduced(_Plain):
    def __reduce__(self) -> Any:
        return _Reduced, ()


class _OfItsOwn(_Plain):
    def __deepcopy__(self, memo: dict[int, Any]) -> _OfItsOwn:
        found = memo[id(self)] = _OfItsOwn()
        found.inner = copy.deepcopy(self.inner, memo)
        return found


def _shape(value: Any, seen: dict[int, int]) -> Any:
    """The types, values and shared places of nested objects."""
    if isinstance(value, int | str | bool | float | type(None)):
        return value
    if id(value) in seen:
        return "seen", seen[id(value)]
    seen[id(value)] = len(seen)
    if isinstance(value, torch.Tensor):
        return type(value), value.tolist(), value.requires_grad
    if isinstance(value, dict):
        return type(value), [(_shape(k, seen), _shape(v, seen)) for k, v in value.items()]
    if isinstance(value, list | tuple | set):
        return type(value), [_shape(item, seen) for item in value]
    held = dict(getattr(value, "__dict__", {}))
    slot = getattr(value, "slot", None)
    return type(value), _shape(held, seen), _shape(slot, seen)


@pytest.mark.parametrize("kind", [_Plain, _WithState, _WithSlots, _Reduced, _OfItsOwn])
def test_a_copy_is_that_of_the_standard_library(kind: type[nn.Module]) -> None:
    model = nn.Sequential(kind(), nn.BatchNorm2d(3), nn.MultiheadAttention(4, 2))
    model[0].register_forward_hook(print)
    model.shared = model[0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        copied = deep_copy(model, {})
        torch.manual_seed(0)
        assert _shape(copied, {}) == _shape(copy.deepcopy(model), {})
    assert not {*map(id, model.modules())} & {*map(id, copied.modules())}


def test_an_object_in_the_memo_is_its_copy() -> None:
    linear, new = nn.Linear(2, 2), torch.zeros(1)
    assert deep_copy(nn.Sequential(linear), {id(linear.weight): new})[0].weight is new


def test_an_attribute_of_an_instance_asks_for_a_copy_of_its_own() -> None:
    linear, other = nn.Linear(2, 2), nn.Linear(3, 3)
    vars(linear)["__deepcopy__"] = lambda memo: other
    assert deep_copy(nn.Sequential(linear), {})[0] is other


def test_an_object_without_a_copy_is_refused_as_by_the_standard_library() -> None:
    linear = nn.Linear(2, 2)
    linear.lock = threading.Lock()
    with pytest.raises(TypeError, match="pickle"):
        deep_copy(linear, {})
