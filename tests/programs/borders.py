"""Borders of a program: what a run leaves on modules, shares between them, remembers, reads of a
longer table, takes by keyword, and returns its results in.

A border adds lines around the layers of a program; it changes no seed's layers.
"""

from __future__ import annotations

import functools
from collections import OrderedDict, deque, namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.programs.draft import Draft

# -- containers of results -------------------------------------------------------------------------


class Plain:
    """Any attributes."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


class Slots:
    """Attributes without a dictionary."""

    __slots__ = ("first", "rest")

    def __init__(self, first: Tensor, *rest: Tensor) -> None:
        self.first, self.rest = first, rest


class Results(list):  # type: ignore[type-arg]
    """A list with a name."""


@dataclass(frozen=True)
class Frozen:
    """A dataclass."""

    results: tuple[Tensor, ...]


Named = namedtuple("Named", "first rest")


def one_by_one(*results: Tensor) -> Iterator[Tensor]:
    """A generator of results."""
    yield from results


def later(*results: Tensor) -> Callable[[], tuple[Tensor, ...]]:
    """A closure over results."""
    return lambda: results


CONTAINERS = (
    *("({0},)", "[{0}]", "{{'results': ({0},)}}", "Plain(results=[{0}])", "Slots({0})"),
    *("Results([{0}])", "Frozen(({0},))", "Named([{0}], None)", "deque([{0}])"),
    *("OrderedDict(a=[{0}])", "one_by_one({0})", "later({0})", "functools.partial(later, {0})"),
    *("Plain(inner=Plain(results=({0},)))", "iter([{0}])", "map(torch.neg, [{0}])"),
)

# -- helpers of models -----------------------------------------------------------------------------


class Keeper(nn.Module):
    """Puts what it is given into a list that it shares."""

    def __init__(self, store: list[Tensor]) -> None:
        super().__init__()
        self.store = store

    def forward(self, x: Tensor) -> Tensor:
        self.store.append(x)
        return x


def collecting(store: list[Tensor]) -> Callable[[nn.Module, Any, Tensor], None]:
    """A forward hook that puts results into a list."""
    return lambda module, args, result: store.append(result)


@functools.lru_cache(64)
def halved(shape: tuple[int, ...], parts: int) -> tuple[int, ...]:
    """A shape with its last dimension in parts."""
    *outer, last = shape
    return (*outer, parts, last // parts)


_SHAPES: dict[tuple[int, ...], int] = {}


def remembered(shape: tuple[int, ...]) -> int:
    """The size of the last dimension, from a table that all models share."""
    if shape not in _SHAPES:
        _SHAPES[shape] = shape[-1]
    return _SHAPES[shape]


NAMESPACE: dict[str, Any] = {
    "Plain": Plain,
    "Slots": Slots,
    "Results": Results,
    "Frozen": Frozen,
    "Named": Named,
    "deque": deque,
    "OrderedDict": OrderedDict,
    "functools": functools,
    "one_by_one": one_by_one,
    "later": later,
    "Keeper": Keeper,
    "collecting": collecting,
    "halved": halved,
    "remembered": remembered,
}

# -- borders ---------------------------------------------------------------------------------------


def table(d: Draft, x: str, c: int) -> None:
    """A learned table that is longer than the input, cut to its length."""
    shape = d.shape(x)
    more = d.between(1, 5)
    if len(shape) == 3:
        kinds = [
            (f"nn.Parameter(torch.randn({shape[1] + more}, {c}))", "[: {x}.shape[1]]"),
            (f"nn.Parameter(torch.randn(1, {shape[1] + more}, {c}))", "[:, : {x}.size(1)]"),
            (f"nn.Parameter(torch.randn({shape[1] + more}, {c}))", ".narrow(0, 0, {x}.shape[1])"),
        ]
    else:
        kinds = [
            (
                f"nn.Parameter(torch.randn({c}, {shape[2] + more}, {shape[3] + more}))",
                "[:, : {x}.shape[2], : {x}.shape[3]]",
            ),
        ]
    made, read = d.choice(kinds)
    d.give(f"{x} + {d.member('table', made)}{read.format(x=x)}")


def causal(d: Draft, x: str, c: int) -> None:
    """A mask that is longer than the input, as a buffer."""
    if len(d.shape(x)) != 3:
        return
    n = d.shape(x)[1] + d.between(1, 4)
    name = f"mask{len(d.setup)}"
    d.setup.append(f"self.register_buffer('{name}', torch.tril(torch.ones({n}, {n})))")
    exec(d.setup[-1], d.values)
    cut = f"self.{name}[: {x}.shape[1], : {x}.shape[1]]"
    scores = d.let(f"({x} @ {x}.transpose(1, 2)).masked_fill({cut} == 0, -1e9).softmax(-1)")
    d.give(f"{scores} @ {x}")


def counter(d: Draft, x: str, c: int) -> None:
    """A number, a flag, a shape and a path that each run changes."""
    start, line = d.choice(
        [
            ("0", "{0} += 1"),
            ("False", "{0} = True"),
            ("None", "{0} = {1}.shape"),
            ("(1, 1)", "{0} = tuple({1}.shape[-2:])"),
            ("0", "{0} = {1}.shape[0]"),
            ("'start'", "{0} = {0}[:4] + str(int({1}.shape[0]))"),
            ("[]", "{0}.append({1}.shape[-1])"),
        ]
    )
    d.do(line.format(d.member("seen", start), x))


def shared(d: Draft, x: str, c: int) -> None:
    """A list that the model shares with a part of it, or with a hook."""
    store = d.member("store", "[]")
    if d.rng.random() < 0.5:
        d.do(f"{store}.clear()")
        y = d.let(f"{d.layer(f'Keeper({store})')}({x})")
    else:
        kind = f"nn.Conv2d({c}, {c}, 1)" if len(d.shape(x)) == 4 else f"nn.Linear({c}, {c})"
        layer = d.layer(kind)
        d.setup.append(f"{layer}.register_forward_hook(collecting({store}))")
        exec(d.setup[-1], d.values)
        d.do(f"{store}.clear()")
        y = d.let(f"{layer}({x})")
    z = d.let(f"{store}[0] * 2")
    d.do(f"{store}.clear()")
    d.give(f"{z} + {y}")


def cached(d: Draft, x: str, c: int) -> None:
    """A helper that remembers sizes from call to call, of any model."""
    parts = d.divisor(d.shape(x)[-1])
    if parts is not None and d.rng.random() < 0.7:
        d.give(f"{x}.reshape(halved({x}.shape, {parts})).relu().flatten(-2)")
    else:
        d.give(f"{x} * 0.5 + {x}.reshape(-1, remembered({x}.shape)).sigmoid().view({x}.shape)")


def exits(d: Draft, x: str, c: int) -> None:
    """A head that returns early on inputs that are never met."""
    pooled = d.let(f"{x}.mean((2, 3))" if len(d.shape(x)) == 4 else f"{x}.mean(1)")
    head = d.let(f"{d.layer(f'nn.Linear({c}, 3)')}({pooled})")
    limit = d.member("limit", "2.0")
    d.lines.append(f"if bool({head}.softmax(-1).max() > {limit}): return {head}")


def scaled(d: Draft, x: str, c: int) -> None:
    """An input that is taken by its name."""
    d.give(f"{x} * {KEYWORD}")


KEYWORD = "scale"
_BORDERS = (table, causal, counter, shared, cached, exits, scaled)


def surround(d: Draft, seed: int) -> list[str]:
    """Puts up to three borders around the layers of a draft; returns their names."""
    layers, d.rng = d.rng, np.random.default_rng((seed, 1))
    names = []
    d.values[KEYWORD] = keyword()
    for _ in range(d.between(0, 3)):
        border = d.choice(_BORDERS)
        x = d.recent()
        border(d, x, d.channels(x))
        names.append(border.__name__)
    d.rng = layers
    return names


def contained(results: list[str], seed: int) -> str:
    """The results as a program returns them."""
    rng = np.random.default_rng((seed, 2))
    at = int(rng.integers(2 * len(CONTAINERS)))
    inner = ", ".join(results)
    return CONTAINERS[at].format(inner) if at < len(CONTAINERS) else inner


def unpacked(result: Any) -> list[Tensor]:
    """The results in any of the containers, in the order in which the program has them."""
    if isinstance(result, Tensor):
        return [result]
    if isinstance(result, dict):
        result = list(result.values())
    elif isinstance(result, functools.partial):
        result = result()()
    elif isinstance(result, Slots):
        result = [result.first, result.rest]
    elif isinstance(result, Plain | Frozen):
        result = list(vars(result).values())
    elif callable(result):
        result = result()
    return [] if result is None else [tensor for item in result for tensor in unpacked(item)]


def exiting(model: nn.Module) -> bool:
    """Lets a model take its early exits; returns false where it has none."""
    limits = [name for name in vars(model) if name.startswith("limit")]
    for name in limits:
        setattr(model, name, -1.0)
    return bool(limits)


def keyword() -> Tensor:
    """The value of an input that is taken by its name."""
    return torch.tensor([0.75])
