"""History does not matter: whatever was compiled, run, applied, saved, loaded, verified or restored
before, and in whichever order, a plan has the same bytes, and every step works.
"""

from __future__ import annotations

import random
from functools import cached_property, lru_cache
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import planc
from planc.files.formats import encode_plan

X = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0))
OTHER = torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(1))


class Stateful(nn.Module):
    """Two layers around ``inside``, which leaves something behind."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 4)

    def inside(self, h: torch.Tensor) -> torch.Tensor:
        return h.relu()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.b(self.inside(self.a(x)))
        return y


class Counter(Stateful):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def inside(self, h: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return h.relu()


class Flag(Stateful):
    def __init__(self) -> None:
        super().__init__()
        self.ready = False

    def inside(self, h: torch.Tensor) -> torch.Tensor:
        if not self.ready:
            self.ready = True
        return h.relu()


class Size(Stateful):
    shape: Any = None

    def inside(self, h: torch.Tensor) -> torch.Tensor:
        if self.shape != h.shape:
            self.shape = h.shape
            self.ones = torch.ones(h.shape[1], 1)
        return h.relu() * self.ones


class Pair(Stateful):
    def inside(self, h: torch.Tensor) -> torch.Tensor:
        self.hw = tuple(h.shape[1:])
        return h.relu().reshape(-1, *self.hw)


class Named(Stateful):
    def __init__(self) -> None:
        super().__init__()
        self.name_or_path = ""

    def inside(self, h: torch.Tensor) -> torch.Tensor:
        self.name_or_path = f"run on {len(h.shape)} dimensions"
        return h.relu()


class Keyed(Stateful):
    """A dictionary keyed by the shape."""

    def __init__(self) -> None:
        super().__init__()
        self.cache: dict[Any, torch.Tensor] = {}

    def inside(self, h: torch.Tensor) -> torch.Tensor:
        key = (h.shape[1], h.shape[2])
        if key not in self.cache:
            self.cache[key] = torch.zeros(h.shape[1], h.shape[2])
        return h.relu() + self.cache[key]


@lru_cache
def halves(n: int) -> tuple[int, int]:
    return 2, n // 2


class Helper(Stateful):
    def inside(self, h: torch.Tensor) -> torch.Tensor:
        return h.unflatten(-1, halves(h.shape[-1])).relu().flatten(-2)


class Rearranged(Stateful):
    def __init__(self) -> None:
        super().__init__()
        layers = pytest.importorskip("einops.layers.torch")
        self.split = layers.Rearrange("b n (h d) -> b h n d", h=4)
        self.join = layers.Rearrange("b h n d -> b n (h d)")

    def inside(self, h: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.join(self.split(h).relu())
        return y


class Masked(Stateful):
    """A mask that is kept as long as it fits."""

    def __init__(self) -> None:
        super().__init__()
        self.mask = None

    def causal(self, n: int) -> torch.Tensor:
        if self.mask is None or self.mask.shape[0] != n:
            self.mask = torch.full((n, n), float("-inf")).triu(1)
        return self.mask

    def inside(self, h: torch.Tensor) -> torch.Tensor:
        weights = (h @ h.transpose(1, 2) * 0.1 + self.causal(h.shape[1])).softmax(-1)
        return weights @ h.relu()


class Rotary(Stateful):
    def __init__(self) -> None:
        super().__init__()
        self.max_seq_len_cached = 0
        self.table = None
        self.register_buffer("inv_freq", torch.ones(1) / 10, persistent=False)

    def inside(self, h: torch.Tensor) -> torch.Tensor:
        n = h.shape[1]
        if n > self.max_seq_len_cached:
            self.max_seq_len_cached = n
            self.table = torch.outer(torch.arange(n).float(), self.inv_freq).cos()
        return h.relu() * self.table[:n]


class Recurrent(Stateful):
    """The state of the last run, of which the next reads only that it is there."""

    def __init__(self) -> None:
        super().__init__()
        self.state = None

    def inside(self, h: torch.Tensor) -> torch.Tensor:
        if self.state is None or self.state.shape != h[:, 0].shape:
            self.state = torch.zeros_like(h[:, 0])
        self.state = (self.state * 0 + h.mean(1)).detach()
        return h.relu() + self.state[:, None]


class Averaged(Stateful):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(16))

    def inside(self, h: torch.Tensor) -> torch.Tensor:
        self.mean.lerp_(h.detach().mean((0, 1)), 0.1)
        return h.relu()


class Listing(Stateful):
    def __init__(self) -> None:
        super().__init__()
        self.features: list[torch.Tensor] = []
        self.a.features = self.features  # type: ignore[assignment]

    def inside(self, h: torch.Tensor) -> torch.Tensor:
        self.features.clear()
        self.features.append(h)
        shared: Any = self.a.features
        y: torch.Tensor = shared[-1].relu()
        return y


class Hooked(Stateful):
    def __init__(self) -> None:
        super().__init__()
        kept: dict[str, torch.Tensor] = {}
        self.a.register_forward_hook(lambda module, args, y: kept.update(last=y))
        self.last = lambda: kept["last"]

    def inside(self, h: torch.Tensor) -> torch.Tensor:
        return self.last().relu()


class Biased(Stateful):
    """A bias that is gathered once from a parameter, as LeViT has it in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.biases = nn.Parameter(torch.randn(16, 3))
        self.register_buffer("index", torch.tensor([0, 2, 1]), persistent=False)
        self.cache: dict[str, torch.Tensor] = {}

    def bias(self, device: torch.device) -> torch.Tensor:
        if str(device) not in self.cache:
            self.cache[str(device)] = self.biases[:, self.index]
        return self.cache[str(device)]

    def inside(self, h: torch.Tensor) -> torch.Tensor:
        return h.relu() + self.bias(h.device).sum(-1)


class Computed(Stateful):
    """A plain attribute that is computed from a parameter once."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(16))
        self.ready = None

    def inside(self, h: torch.Tensor) -> torch.Tensor:
        if self.ready is None:
            self.ready = self.scale.exp()
        return h * self.ready


class Lazy(Stateful):
    @cached_property
    def width(self) -> int:
        return self.a.out_features // 2

    def inside(self, h: torch.Tensor) -> torch.Tensor:
        return h.reshape(*h.shape[:2], 2, self.width).relu().flatten(2)


KINDS = [Counter, Flag, Size, Pair, Named, Keyed, Helper, Rearranged, Masked, Rotary, Recurrent]
KINDS += [Averaged, Listing, Hooked, Biased, Computed, Lazy]


class Life:
    """A model, what is made of it, and the steps that may come in any order."""

    def __init__(self, kind: type[Stateful], folder: Path) -> None:
        torch.manual_seed(0)
        self.kind, self.path = kind, folder / "a.safetensors"
        self.model = kind().eval()
        self.plan = planc.compile(self.model, X, ratio=0.5)
        self.smaller, self.removed = planc.apply(self.plan, self.model, keep_removed=True)

    def compile(self) -> None:
        assert encode_plan(planc.compile(self.model, X, ratio=0.5)) == encode_plan(self.plan)

    @torch.no_grad()
    def run(self) -> None:
        for model in (self.model, self.smaller):
            model(OTHER)
            model(X)

    def apply(self) -> None:
        self.smaller, self.removed = planc.apply(self.plan, self.model, keep_removed=True)

    def save(self) -> None:
        planc.save(self.path, self.smaller, self.plan)

    def load(self) -> None:
        planc.save(self.path, self.smaller, self.plan)
        self.smaller = planc.load(self.path, self.kind().eval())

    def verify(self) -> None:
        planc.verify(self.plan, self.model, self.smaller, X)

    def restore(self) -> None:
        planc.restore(self.plan, self.smaller, self.removed)


STEPS = ("compile", "run", "apply", "save", "load", "verify", "restore")
ORDERS = list(permutations(STEPS))


@pytest.mark.parametrize("kind", KINDS)
def test_a_plan_does_not_depend_on_runs_before_it(kind: type[Stateful]) -> None:
    model = fresh(kind)
    first = planc.compile(model, X, ratio=0.5)
    for inputs in (X, OTHER, X):
        with torch.no_grad():
            model(inputs)
        again = planc.compile(model, X, ratio=0.5)
        assert (again.groups, again.cost_after) == (first.groups, first.cost_after)
        assert encode_plan(again) == encode_plan(first)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_a_plan_has_the_same_bytes_after_every_step(kind: type[Stateful], tmp_path: Path) -> None:
    life = Life(kind, tmp_path)
    before = encode_plan(life.plan)
    keeps = kind in (Recurrent, Listing, Hooked)  # its features, where a caller can read them
    assert keeps == (life.plan.cost_after.params == life.plan.cost_before.params)
    for step in STEPS:
        getattr(life, step)()
        life.compile()
        assert encode_plan(planc.compile(fresh(kind), X, ratio=0.5)) == before


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_steps_does_not_matter(
    kind: type[Stateful], seed: int, tmp_path: Path
) -> None:
    order = random.Random(f"{kind.__name__} {seed}").choice(ORDERS)
    life = Life(kind, tmp_path)
    for step in (*order, *order):
        getattr(life, step)()
    life.compile()


def fresh(kind: type[Stateful]) -> Stateful:
    torch.manual_seed(0)
    return kind().eval()
