"""Caches of a model's code neither bring anything into a trace nor keep anything of one."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

import planc
from planc.files.formats import encode_plan
from planc.ir.expressions import Scalar, Size

X = torch.randn(2, 5, 6)


@functools.lru_cache(256)
def split_shape(shape: Any, heads: int) -> tuple[int, ...]:
    b, n, d = shape
    return b, n, heads, d // heads


@functools.cache
def half(n: int, *, parts: int = 2) -> int:
    return n // parts


def through_wrapper(fn: Callable[..., Any]) -> Callable[..., Any]:
    cached = functools.lru_cache(maxsize=None)(fn)

    @functools.wraps(fn)
    def wrapper(*args: Any) -> Any:
        return cached(*args)

    return wrapper


@through_wrapper
def wrapped_split(n: int, heads: int) -> tuple[int, int]:
    return heads, n // heads


SHAPES: dict[Any, tuple[int, ...]] = {}
MASKS: dict[Any, dict[Any, torch.Tensor]] = {}
SEEN: list[torch.Tensor] = []
LAST: torch.Tensor | None = None
WIDTHS = {32: "wide", 16: "middle", 8: "narrow"}


def remembered(shape: Any, heads: int) -> tuple[int, ...]:
    key = (*shape, heads)
    if key not in SHAPES:
        SHAPES[key] = (shape[0], shape[1], heads, shape[2] // heads)
    return SHAPES[key]


def mask(n: int, d: int, device: torch.device) -> torch.Tensor:
    masks = MASKS.setdefault(device.type, {})
    if (n, d) not in masks:
        masks[n, d] = torch.ones(n, d, device=device).tril(d)
    return masks[n, d]


@functools.lru_cache
def table(n: int) -> torch.Tensor:
    return torch.arange(n, dtype=torch.float32).mul(0.1)


class Block(nn.Module):
    """A layer whose inner width is split in heads, with ``pre`` layers before it."""

    shapes: ClassVar[dict[Any, Any]] = {}

    def __init__(self, pre: int = 0) -> None:
        super().__init__()
        self.heads = 4
        self.pre = nn.Sequential(*(nn.Linear(6, 6) for _ in range(pre)))
        self.inp, self.out = nn.Linear(6, 32), nn.Linear(32, 3)

    def inside(self, h: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.out(self.inside(self.inp(self.pre(x))))
        return y


class OfFunction(Block):
    def inside(self, h: torch.Tensor) -> torch.Tensor:
        return h.reshape(split_shape(h.shape, self.heads)).relu().flatten(2)


class OfKeywords(Block):
    def inside(self, h: torch.Tensor) -> torch.Tensor:
        n = half(h.shape[-1], parts=2)
        return torch.cat([h[..., :n].relu(), h[..., n:].tanh()], -1)


class OfWrapper(Block):
    def inside(self, h: torch.Tensor) -> torch.Tensor:
        return h.unflatten(-1, wrapped_split(h.shape[-1], self.heads)).relu().flatten(2)


class OfMethod(Block):
    @functools.lru_cache(8)  # noqa: B019  # as models do
    def split(self, n: int) -> tuple[int, int]:
        return self.heads, n // self.heads

    @staticmethod
    @functools.cache
    def doubled(n: int) -> int:
        return 2 * n

    def inside(self, h: torch.Tensor) -> torch.Tensor:
        h = h.unflatten(-1, self.split(h.shape[-1])).relu().flatten(2)
        return torch.cat([h, h], -1)[..., : self.doubled(h.shape[-1])][..., : h.shape[-1]]


class OfDictionary(Block):
    def inside(self, h: torch.Tensor) -> torch.Tensor:
        return h.reshape(remembered(h.shape, self.heads)).relu().flatten(2)


class OfClass(Block):
    def inside(self, h: torch.Tensor) -> torch.Tensor:
        key = tuple(h.shape)
        if key not in self.shapes:
            self.shapes[key] = (*key[:2], self.heads, key[2] // self.heads)
        return h.reshape(self.shapes[key]).relu().flatten(2)


class OfMasks(Block):
    def inside(self, h: torch.Tensor) -> torch.Tensor:
        return h * mask(h.shape[1], h.shape[2], h.device)


class OfTable(Block):
    def inside(self, h: torch.Tensor) -> torch.Tensor:
        return h + table(5)[None, :, None]


class OfGlobal(Block):
    def inside(self, h: torch.Tensor) -> torch.Tensor:
        global LAST
        LAST = h.relu()
        SEEN.append(LAST)
        type(self).last = LAST  # type: ignore[attr-defined]
        return LAST


class OfProperty(Block):
    @functools.cached_property
    def width(self) -> int:
        return self.heads * (self.inp.out_features // self.heads)

    def inside(self, h: torch.Tensor) -> torch.Tensor:
        return h.reshape(h.shape[0], h.shape[1], self.heads, self.width // self.heads).flatten(2)


class OfKnown(Block):
    """A table by plain numbers must go on to find them."""

    def inside(self, h: torch.Tensor) -> torch.Tensor:
        return h.relu() if WIDTHS[h.shape[-1]] == "wide" else h


KINDS = [OfFunction, OfKeywords, OfWrapper, OfMethod, OfDictionary, OfClass, OfMasks]
KINDS += [OfTable, OfGlobal, OfProperty]


def clear() -> None:
    global LAST
    LAST = None
    for cache in (split_shape, half, table, OfMethod.split, OfMethod.doubled):
        cache.cache_clear()
    for held in (SHAPES, MASKS, SEEN, Block.shapes):
        held.clear()


@pytest.fixture(autouse=True)
def _cleared() -> None:
    clear()


def built(kind: type[Block], pre: int = 0) -> Block:
    torch.manual_seed(0)
    return kind(pre).eval()


def bytes_of(model: nn.Module) -> bytes:
    return encode_plan(planc.compile(model, X, ratio=0.5))


@pytest.mark.parametrize("kind", KINDS)
def test_a_plan_does_not_depend_on_what_ran_before(kind: type[Block]) -> None:
    first = bytes_of(built(kind))
    assert bytes_of(built(kind)) == first
    built(kind)(X)
    assert bytes_of(built(kind)) == first
    built(kind)(X[:1])
    bytes_of(built(kind, pre=2))
    assert bytes_of(built(kind)) == first


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_that_ran_gives_the_same_plan(kind: type[Block]) -> None:
    first = bytes_of(built(kind))
    model = built(kind)
    model(X)
    assert bytes_of(model) == first
    model(X[:1])
    assert bytes_of(model) == first


@pytest.mark.parametrize("kind", [*KINDS, OfKnown])
def test_a_run_after_a_trace_is_a_run_without_one(kind: type[Block]) -> None:
    expected = built(kind)(X)
    clear()
    model = built(kind)
    plan = planc.compile(model, X, ratio=0.5)
    smaller = planc.apply(plan, model)
    assert LAST is None or not LAST.is_meta
    assert not SEEN
    assert not any(isinstance(n, Size | Scalar) for key in SHAPES for n in key)
    assert torch.equal(model(X), expected)
    planc.verify(plan, model, smaller, X)


@pytest.mark.parametrize("kind", KINDS)
def test_traces_of_two_threads_do_not_meet(kind: type[Block]) -> None:
    models = {pre: built(kind, pre=pre) for pre in (0, 3)}
    alone = [bytes_of(model) for model in models.values()]
    found: dict[int, list[bytes]] = {0: [], 3: []}

    def compile_often(pre: int) -> None:
        for _ in range(3):
            found[pre].append(bytes_of(models[pre]))

    threads = [threading.Thread(target=compile_often, args=(pre,)) for pre in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {0: [alone[0]] * 3, 3: [alone[1]] * 3}


def test_a_cache_keeps_what_it_had() -> None:
    split_shape((2, 5, 32), 4)
    before = split_shape.cache_info()
    bytes_of(built(OfFunction))
    assert split_shape.cache_info() == before


def test_numbers_that_outlive_a_trace_are_plain() -> None:
    kept: list[Any] = []

    class Keeping(Block):
        def inside(self, h: torch.Tensor) -> torch.Tensor:
            kept.extend((h.shape[-1], self.heads, h.shape[-1] ** -0.5))
            return h.relu()

    Keeping.inside.__globals__["_outside"] = kept
    first = bytes_of(built(Keeping))
    n = kept[0] if kept else 32
    assert type(n * 2) is int
    assert bytes_of(built(Keeping)) == first


@pytest.mark.parametrize("pattern", ["rearrange", "reduce", "repeat", "einsum", "mix", "layers"])
def test_plans_of_einops_models_have_one_history(pattern: str) -> None:
    einops = pytest.importorskip("einops")
    layers = pytest.importorskip("einops.layers.torch")

    class Mixed(Block):
        def __init__(self, pre: int = 0) -> None:
            super().__init__(pre)
            if pattern == "layers":
                self.split = layers.Rearrange("b n (h d) -> b h n d", h=4)
                self.join = layers.Rearrange("b h n d -> b n (h d)")
            if pattern == "mix":
                self.mix = layers.EinMix(
                    "b n c -> b n d", weight_shape="c d", bias_shape="d", c=32, d=32
                )

        def inside(self, h: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = h
            if pattern == "rearrange":
                heads = einops.rearrange(h, "b n (h d) -> b h n d", h=self.heads)
                result = einops.rearrange(heads.relu(), "b h n d -> b n (h d)")
            elif pattern == "reduce":
                result = h * einops.reduce(h, "b n c -> b () c", "mean")
            elif pattern == "repeat":
                result = h + einops.repeat(h.mean(1), "b c -> b n c", n=h.shape[1])
            elif pattern == "einsum":
                scores = einops.einsum(h, h, "b n c, b m c -> b n m").softmax(-1)
                result = einops.einsum(scores, h, "b n m, b m c -> b n c")
            elif pattern == "mix":
                result = self.mix(h.relu())
            elif pattern == "layers":
                result = self.join(self.split(h).relu())
            return result

    first = bytes_of(built(Mixed))
    model = built(Mixed)
    model(X)
    bytes_of(built(Mixed, pre=3))
    assert bytes_of(model) == first
    plan = planc.compile(model, X, ratio=0.5)
    smaller = planc.apply(plan, model)
    smaller(X[:1])
    planc.verify(plan, model, smaller, X)
    assert plan.cost_after.params < plan.cost_before.params
    assert [m.training for m in smaller.modules()] == [m.training for m in model.modules()]
