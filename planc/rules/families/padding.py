"""Padding: with a constant, or with the content of the tensor itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from planc.rules import labels
from planc.rules.common import pin_dims
from planc.rules.labels import Labelled, Layer, take, window
from planc.rules.labels.facts import NEVER, Facts
from planc.rules.registry import rule


@rule("aten.constant_pad_nd")
def constant_pad(facts: Facts, x: Labelled, pad: Sequence[int], value: Any = 0) -> Labelled:
    """Padding coordinates are new and never removed."""
    if value != 0:
        x = x.nonzero()
    for i in range(len(pad) // 2):
        dim = x.rank - 1 - i
        before, after = pad[2 * i], pad[2 * i + 1]
        if before < 0 or after < 0:
            low, high = max(0, -before), x.shape[dim] - max(0, -after)
            if before < 0:
                facts.demand("pad", 2 * i, window(x, dim, 0, low), dim, sign=-1)
            if after < 0:
                facts.demand("pad", 2 * i + 1, window(x, dim, high, x.shape[dim]), dim, sign=-1)
            x = take(facts, x, dim, np.arange(low, high))
        x = _padded(x, dim, max(0, before), max(0, after))
    return x


def _padded(x: Labelled, dim: int, before: int, after: int) -> Labelled:
    if before == after == 0:
        return x
    shape = (*x.shape[:dim], x.shape[dim] + before + after, *x.shape[dim + 1 :])
    widths = [(before, after) if d == dim else (0, 0) for d in range(x.rank)]
    layers = []
    for layer in x.layers:
        if layer.atoms.shape[dim] == 1 and layer.target != dim:
            layers.append(layer)
        else:
            atoms = np.pad(layer.atoms, widths, constant_values=NEVER)
            layers.append(Layer(atoms, layer.target, layer.zero))
    return Labelled(shape, tuple(layers))


@rule("aten.pad")
def pad(
    facts: Facts, x: Labelled, pad: Sequence[int], mode: str = "constant", value: Any = None
) -> Labelled:
    if mode == "constant":
        return constant_pad(facts, x, pad, value or 0)
    return reflection_pad(facts, x, pad)


@rule(
    *(f"aten.{kind}_pad{d}d" for kind in ("reflection", "replication") for d in (1, 2, 3)),
    "aten._pad_circular",
    "aten._pad_enum",
)
def reflection_pad(facts: Facts, x: Labelled, padding: Sequence[int], *_: Any) -> Labelled:
    dims = [x.rank - 1 - i for i in range(len(padding) // 2)]
    changed = [d for d in dims if x.shape[d] != facts.shape[d]]
    x = labels.even(facts, pin_dims(facts, x, changed, "padded with its own content"), changed)
    return Labelled(facts.shape, x.layers)
