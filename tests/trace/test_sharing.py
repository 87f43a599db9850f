"""Objects that modules, hooks and closures share are one object of every copy of the model, and no
object of the original's.
"""

from __future__ import annotations

import functools
import types
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import planc

X = torch.randn(1, 3, 8, 8)


class Store:
    """A store of features in one of several kinds of containers."""

    def __init__(self, kind: Callable[[], Any]) -> None:
        self.held = kind()

    def put(self, value: torch.Tensor) -> None:
        if isinstance(self.held, dict):
            self.held[len(self.held)] = value
        elif isinstance(self.held, set):
            self.held.add(value)
        else:
            self.held.append(value)

    def take(self) -> list[torch.Tensor]:
        held = list(self.held.values() if isinstance(self.held, dict) else self.held)
        self.held.clear()
        return held


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first: torch.Tensor = self.a(x).relu()
        second: torch.Tensor = self.b(first).relu()
        return second


class Net(nn.Module):
    """The head adds what ``install`` lets the encoder leave, which ``take`` returns."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.side, self.head = nn.Conv2d(16, 4, 1), nn.Conv2d(16, 4, 1)
        self.take: Any = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(self.encoder(x))
        for feature in self.take():
            y = y + self.side(feature)
        return y


def install_attribute(net: Net, store: Store) -> None:
    encoder: Any = net.encoder
    encoder.store, net.take = store, store.take
    forward = encoder.a.forward

    def kept(module: Any, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = forward(x)
        encoder.store.put(y)
        return y

    encoder.a.forward = types.MethodType(kept, encoder.a)


def install_closure(net: Net, store: Store) -> None:
    def hook(module: nn.Module, args: Any, result: torch.Tensor) -> None:
        store.put(result)

    net.encoder.a.register_forward_hook(hook)
    net.take = lambda: store.take()


def install_partial(net: Net, store: Store) -> None:
    def hook(kept: Store, module: nn.Module, args: Any, result: torch.Tensor) -> None:
        kept.put(result)

    net.encoder.a.register_forward_hook(functools.partial(hook, store))
    net.take = functools.partial(Store.take, store)


def install_default(net: Net, store: Store) -> None:
    def hook(module: Any, args: Any, result: torch.Tensor, kept: Store = store) -> None:
        kept.put(result)

    def take(*, kept: Store = store) -> list[torch.Tensor]:
        return kept.take()

    net.encoder.a.register_forward_hook(hook)
    net.take = take


def install_patched(net: Net, store: Store) -> None:
    """``forward`` is a method bound to the module, around the one that it had."""
    layer: Any = net.encoder.a
    layer.plain = layer.forward

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.plain(x)
        store.put(result)
        return result

    layer.forward = types.MethodType(forward, layer)
    net.take = store.take


def install_nested(net: Net, store: Store) -> None:
    """The store lies two closures deep, in a tuple."""

    def outer(pair: tuple[str, Store]) -> Callable[..., None]:
        def put(value: torch.Tensor) -> None:
            pair[1].put(value)

        return lambda module, args, result: put(result)

    net.encoder.a.register_forward_hook(outer(("features", store)))
    net.take = lambda: list(store.take())


def install_replaced(net: Net, store: Store) -> None:
    """A hook over a layer of the model that changes the result."""
    side = net.side

    def hook(module: nn.Module, args: Any, result: torch.Tensor) -> torch.Tensor:
        return result + side.weight.sum()

    net.encoder.a.register_forward_hook(hook)
    net.take = lambda: ()


INSTALL = [
    install_attribute,
    install_closure,
    install_partial,
    install_default,
    install_patched,
    install_nested,
    install_replaced,
]


def made(install: Callable[[Net, Store], None], kind: Callable[[], Any]) -> tuple[Net, Store]:
    torch.manual_seed(0)
    net, store = Net().eval(), Store(kind)
    install(net, store)
    return net, store


@pytest.mark.long
@pytest.mark.parametrize("install", INSTALL)
@pytest.mark.parametrize("kind", [list, dict, set, deque])
def test_a_shared_store_works_in_the_pruned_model_and_stays_empty_in_the_original(
    install: Callable[[Net, Store], None], kind: Callable[[], Any]
) -> None:
    net, store = made(install, kind)
    plan = planc.compile(net, X, ratio=0.5)
    smaller = planc.apply(plan, net)
    planc.verify(plan, net, smaller, X)
    assert not store.held
    expected = planc.mask(plan, net)(X)
    torch.testing.assert_close(smaller(X), expected)
    assert plan.cost_after.params < plan.cost_before.params
    assert not store.held


@pytest.mark.parametrize("install", INSTALL)
def test_the_pruned_model_does_not_change_with_the_original(
    install: Callable[[Net, Store], None],
) -> None:
    net, _ = made(install, list)
    plan = planc.compile(net, X, ratio=0.5)
    smaller = planc.apply(plan, net)
    expected = smaller(X)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    assert torch.equal(smaller(X), expected)


@pytest.mark.parametrize("ran", [False, True])
def test_a_list_of_the_user_has_no_tensor_of_a_trace(ran: bool) -> None:
    features: list[torch.Tensor] = []
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    net[0].register_forward_hook(lambda module, args, result: features.append(result))
    x = torch.randn(2, 4)
    if ran:
        net(x)  # what it keeps has a gradient, and cannot be copied by copy.deepcopy
    before = list(features)
    plan = planc.compile(net, x, ratio=0.5)
    smaller = planc.apply(plan, net)
    planc.verify(plan, net, smaller, x)
    assert list(map(id, features)) == list(map(id, before))
    smaller(x)
    assert len(features) == len(before) + 1  # a hook of the pruned model is the user's again


def test_hooks_count_in_their_own_copy() -> None:
    count, calls = 0, {"n": 0}

    def hook(module: nn.Module, args: Any) -> None:
        nonlocal count
        count += 1
        calls["n"] += 1

    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    net[0].register_forward_pre_hook(hook)
    x = torch.randn(2, 4)
    plan = planc.compile(net, x, ratio=0.5)
    planc.verify(plan, net, planc.apply(plan, net), x)
    assert (count, calls) == (0, {"n": 0})
    net(x)
    assert (count, calls) == (1, {"n": 1})


def test_a_cache_of_a_method_is_that_of_the_copy() -> None:
    class Cached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)
            self.scaled = functools.lru_cache(maxsize=4)(self.scale)

        def scale(self, n: int) -> torch.Tensor:
            return self.a.bias * n

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.b(self.a(x).relu() + self.scaled(2))
            return result

    net, x = Cached().eval(), torch.randn(2, 4)
    net(x)
    plan = planc.compile(net, x, ratio=0.5)
    smaller = planc.apply(plan, net)
    planc.verify(plan, net, smaller, x)
    assert smaller.scaled.__wrapped__.__self__ is smaller
    assert smaller.a.out_features == 4


def test_what_cannot_be_copied_stays_what_it_is() -> None:
    import threading

    lock, seen = threading.Lock(), [threading.Lock()]

    def hook(module: nn.Module, args: Any) -> None:
        with lock:
            seen.append(threading.Lock())

    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    net[0].register_forward_pre_hook(hook)
    x = torch.randn(2, 4)
    planc.apply(planc.compile(net, x, ratio=0.5), net)
    assert len(seen) == 1


def test_a_list_of_sizes_that_modules_share_is_one_list_of_the_pruned_model() -> None:
    class Part(nn.Module):
        def __init__(self, sizes: list[int]) -> None:
            super().__init__()
            self.sizes, self.a = sizes, nn.Linear(4, sizes[0])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.a(x)
            return y.reshape(-1, self.sizes[0])

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sizes = [8, 2]
            self.part, self.b = Part(self.sizes), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.b(self.part(x))
            return y

    net, x = Whole(), torch.randn(2, 4)
    plan = planc.compile(net, x, ratio=0.5)
    smaller = planc.apply(plan, net)
    assert smaller.sizes is smaller.part.sizes
    assert (smaller.sizes, net.sizes) == ([4, 2], [8, 2])


def test_hooks_on_gradients_are_kept() -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    seen: list[str] = []
    weight: Any = net[0].weight
    weight.register_hook(lambda gradient: gradient * 0)
    weight.register_post_accumulate_grad_hook(lambda p: seen.append("accumulated"))
    x = torch.randn(2, 4)
    smaller = planc.apply(planc.compile(net, x, ratio=0.5), net)
    smaller(x).sum().backward()
    assert not smaller[0].weight.grad.any()
    assert smaller[2].weight.grad.any()
    assert seen == ["accumulated"]
