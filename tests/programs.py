"""Random small models: chains of operators on images or tokens, each chosen by a seed.

Sizes come from shapes and attributes as often as from literals, tensors are used more than once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

Step = Callable[[list[Tensor]], Tensor]


class Program(nn.Module):
    """Steps that each make a tensor of those made before; the last few are read out."""

    def __init__(self, seed: int, length: int = 6) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        self.numbers = nn.ModuleList()
        rng = np.random.default_rng(seed)
        self.stem = nn.Conv2d(3, 8, 1)
        self.steps: list[Step] = []
        self.names: list[str] = []
        made = [torch.randn(2, 8, 3, 3)]
        while len(self.steps) < length:
            name, make = _STEPS[rng.integers(len(_STEPS))]
            step = make(self, rng, made)
            if step is not None:
                with torch.no_grad():
                    made.append(step(made))
                self.steps.append(step)
                self.names.append(name)
        self.read = [int(i) for i in rng.choice(len(made), 2, replace=False)] + [len(made) - 1]
        self.heads = nn.ModuleList(nn.Conv2d(made[i].shape[1], 2, 1) for i in self.read)

    def forward(self, x: Tensor) -> Tensor:
        made = [self.stem(x)]
        for step in self.steps:
            made.append(step(made))
        return sum(head(made[i]) for head, i in zip(self.heads, self.read, strict=True))

    def add(self, layer: nn.Module) -> nn.Module:
        self.layers.append(layer)
        return layer


class Numbers(nn.Module):
    """Attributes to take sizes from."""

    def __init__(self, **numbers: int) -> None:
        super().__init__()
        for name, number in numbers.items():
            setattr(self, name, number)


def _one(rng: np.random.Generator, made: list[Tensor]) -> tuple[int, int]:
    i = int(rng.integers(max(0, len(made) - 3), len(made)))
    return i, made[i].shape[1]


def _divisor(rng: np.random.Generator, n: int, least: int = 2) -> int | None:
    found = [d for d in range(least, n) if n % d == 0]
    return int(rng.choice(found)) if found else None


class _Call(nn.Module):
    """A step as a module of its own, so that attributes and lines have a place."""

    def __init__(self, run: Callable[..., Tensor], where: tuple[int, ...], **parts: Any) -> None:
        super().__init__()
        self.run, self.where = run, list(map(int, where))
        for name, part in parts.items():
            tensor = isinstance(part, Tensor)
            setattr(self, name, nn.Parameter(part) if tensor else part)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.run(self, *inputs)


def _step(m: Program, run: Callable[..., Tensor], *where: int, **parts: Any) -> Step:
    call = m.add(_Call(run, where, **parts))
    at = len(m.layers) - 1
    del call
    places = tuple(where)
    return _Bound(m, at, places)


class _Bound:
    def __init__(self, m: Program, at: int, places: tuple[int, ...]) -> None:
        self.m, self.at, self.places = m, at, places

    def __call__(self, made: list[Tensor]) -> Tensor:
        return self.m.layers[self.at](*(made[i] for i in self.places))


def conv(m: Program, rng: np.random.Generator, made: list[Tensor]) -> Step | None:
    i, c = _one(rng, made)
    groups = int(rng.choice([d for d in (1, 1, 2, 3, 4, c) if c % d == 0]))
    out = groups * int(rng.integers(1, 4)) if groups > 1 else int(rng.integers(4, 13))
    return _step(m, lambda s, x: s.f(x), i, f=nn.Conv2d(c, out, 1, groups=groups))


def norm(m: Program, rng: np.random.Generator, made: list[Tensor]) -> Step | None:
    i, c = _one(rng, made)
    groups = _divisor(rng, c, 1) or 1
    layer = [nn.BatchNorm2d(c), nn.GroupNorm(groups, c), nn.InstanceNorm2d(c, affine=True)]
    return _step(m, lambda s, x: s.f(x), i, f=layer[rng.integers(3)])


def activation(m: Program, rng: np.random.Generator, made: list[Tensor]) -> Step | None:
    i, c = _one(rng, made)
    layer = [nn.ReLU(), nn.Sigmoid(), nn.PReLU(c), nn.Softmax(1), nn.Tanh(), nn.Softplus()]
    return _step(m, lambda s, x: s.f(x), i, f=layer[rng.integers(6)])


def residual(m: Program, rng: np.random.Generator, made: list[Tensor]) -> Step | None:
    i, c = _one(rng, made)
    same = [j for j, t in enumerate(made) if t.shape[1] == c]
    j = int(rng.choice(same))
    ops = [torch.add, torch.mul, torch.maximum, lambda x, y: torch.stack([x, y]).sum(0)]
    op = ops[rng.integers(4)]
    return _step(m, lambda s, x, y: op(x, y), i, j)


def join(m: Program, rng: np.random.Generator, made: list[Tensor]) -> Step | None:
    (i, c), (j, d) = _one(rng, made), _one(rng, made)
    if c + d > 24:
        return None
    return _step(m, lambda s, x, y: torch.cat([x, y], 1), i, j)


def halves(m: Program, rng: np.random.Generator, made: list[Tensor]) -> Step | None:
    i, c = _one(rng, made)
    if c % 2 or c < 4:
        return None
    kind = rng.integers(5)

    def run(s: Any, x: Tensor) -> Tensor:
        if kind == 0:
            a, b = x.chunk(2, 1)
        elif kind == 1:
            half = x.shape[1] // 2
            a, b = x[:, :half], x[:, half:]
        elif kind == 2:
            a, b = x.split([s.n.low, s.n.high], 1)
        elif kind == 3:
            return functional.glu(x, 1)
        else:
            a, b = x.split(s.n.low, 1)
        return a * b.sigmoid()

    return _step(m, run, i, n=Numbers(low=c // 2, high=c // 2))


def part(m: Program, rng: np.random.Generator, made: list[Tensor]) -> Step | None:
    i, c = _one(rng, made)
    if c < 5:
        return None
    start, stop = sorted(rng.choice(c + 1, 2, replace=False).tolist())
    if stop - start < 2:
        return None
    kind = rng.integers(3)

    def run(s: Any, x: Tensor) -> Tensor:
        if kind == 0:
            return x[:, start:stop]
        if kind == 1:
            return x[:, s.n.start : s.n.stop]
        return x.narrow(1, start, stop - start)

    return _step(m, run, i, n=Numbers(start=start, stop=stop))


def order(m: Program, rng: np.random.Generator, made: list[Tensor]) -> Step | None:
    i, c = _one(rng, made)
    groups = _divisor(rng, c)
    kind = rng.integers(4)
    shift = int(rng.integers(1, c))
    if kind > 1 and groups is None:
        return None

    def run(s: Any, x: Tensor) -> Tensor:
        if kind == 0:
            return x.flip(1)
        if kind == 1:
            return x.roll(shift, 1)
        if kind == 2:
            return s.f(x)
        b, n, h, w = x.shape
        y = x.view(b, s.n.groups, n // s.n.groups, h, w).transpose(1, 2)
        return y.reshape(b, n, h, w)

    return _step(m, run, i, f=nn.ChannelShuffle(groups or 1), n=Numbers(groups=groups or 1))


def widen(m: Program, rng: np.random.Generator, made: list[Tensor]) -> Step | None:
    i, c = _one(rng, made)
    if c > 8:
        return None
    kind = rng.integers(4)

    def run(s: Any, x: Tensor) -> Tensor:
        if kind == 0:
            return functional.pad(x, (0, 0, 0, 0, 1, 2))
        if kind == 1:
            return x.repeat_interleave(2, 1)
        if kind == 2:
            return x.repeat(1, 2, 1, 1)
        y = torch.zeros(x.shape[0], 2 * x.shape[1], *x.shape[2:], dtype=x.dtype)
        y[:, : x.shape[1]] = x
        y[:, x.shape[1] :] = x.exp()
        return y

    return _step(m, run, i)


def gate(m: Program, rng: np.random.Generator, made: list[Tensor]) -> Step | None:
    i, c = _one(rng, made)
    kind = rng.integers(4)

    def run(s: Any, x: Tensor) -> Tensor:
        pooled = x.mean((2, 3), keepdim=True)
        if kind == 0:
            return x * s.up(s.down(pooled).relu()).sigmoid()
        if kind == 1:
            return x * pooled.sigmoid().expand_as(x)
        if kind == 2:
            return x * x.mean(1, keepdim=True).sigmoid()
        return x * s.scale + s.shift

    return _step(
        m,
        run,
        i,
        down=nn.Conv2d(c, 3, 1),
        up=nn.Conv2d(3, c, 1),
        scale=torch.ones(c, 1, 1),
        shift=torch.ones(1, c, 1, 1),
    )


def rows(m: Program, rng: np.random.Generator, made: list[Tensor]) -> Step | None:
    """Channels as rows of a few, with something done to rows or inside them."""
    i, c = _one(rng, made)
    groups = _divisor(rng, c)
    if groups is None:
        return None
    kind = rng.integers(6)
    inner = c // groups

    def run(s: Any, x: Tensor) -> Tensor:
        b, n, h, w = x.shape
        y = x.view(b, s.n.groups, -1, h, w) if kind % 2 else x.unflatten(1, (-1, s.n.inner))
        if kind == 0:
            return y.amax(1)
        if kind == 1:
            return y.amax(2)
        if kind == 2:
            return (y * s.rows).flatten(1, 2)
        if kind == 3:
            return torch.einsum("bgihw,gio->bghwo", y, s.mats).movedim(4, 2).flatten(1, 2)
        if kind == 4:
            return y.softmax(2).reshape(b, -1, h, w)
        return (y * s.cells).transpose(1, 2).reshape(b, n, h, w)

    return _step(
        m,
        run,
        i,
        n=Numbers(groups=groups, inner=inner),
        rows=torch.ones(groups, 1, 1, 1),
        cells=torch.ones(inner, 1, 1),
        mats=torch.ones(groups, inner, 3),
    )


def attention(m: Program, rng: np.random.Generator, made: list[Tensor]) -> Step | None:
    i, c = _one(rng, made)
    heads, dim = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    kind = rng.integers(3)

    def run(s: Any, x: Tensor) -> Tensor:
        b, n, h, w = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        if kind == 0:
            qkv = s.qkv(tokens).reshape(b, -1, 3, s.n.heads, s.n.dim).permute(2, 0, 3, 1, 4)
            q, k, v = qkv.unbind(0)
        elif kind == 1:
            q, k, v = (
                t.unflatten(-1, (s.n.heads, -1)).transpose(1, 2) for t in s.qkv(tokens).chunk(3, -1)
            )
        else:
            q, k, v = (
                t.view(b, h * w, -1, s.n.dim).transpose(1, 2)
                for t in s.qkv(tokens).tensor_split(3, -1)
            )
        y = (
            functional.scaled_dot_product_attention(q, k, v)
            if kind
            else ((q @ k.mT * 0.7).softmax(-1) @ v)
        )
        y = s.out(y.transpose(1, 2).flatten(2)) + tokens
        return y.transpose(1, 2).reshape(b, n, h, w)

    return _step(
        m,
        run,
        i,
        qkv=nn.Linear(c, 3 * heads * dim),
        out=nn.Linear(heads * dim, c),
        n=Numbers(heads=heads, dim=dim),
    )


def mixer(m: Program, rng: np.random.Generator, made: list[Tensor]) -> Step | None:
    i, c = _one(rng, made)

    def run(s: Any, x: Tensor) -> Tensor:
        y = s.norm(x.permute(0, 2, 3, 1))
        return (s.down(functional.gelu(s.up(y))) * s.gamma).permute(0, 3, 1, 2) + x

    return _step(
        m,
        run,
        i,
        norm=nn.LayerNorm(c),
        up=nn.Linear(c, 5),
        down=nn.Linear(5, c),
        gamma=torch.ones(c),
    )


_STEPS: list[tuple[str, Callable[[Program, np.random.Generator, list[Tensor]], Step | None]]] = [
    (f.__name__, f)
    for f in (
        conv,
        conv,
        norm,
        activation,
        residual,
        join,
        halves,
        part,
        order,
        widen,
        gate,
        rows,
        attention,
        mixer,
    )
]
