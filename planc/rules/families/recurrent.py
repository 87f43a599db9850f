"""Recurrent layers: gates are blocks over the hidden units, each layer and direction has weights of
its own, and states are as wide as the initial ones.

A hidden unit is removed from all gates together. Layers and directions may remove different units,
but equally many, because their states are slices of one tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from planc.rules.common import pin_dims
from planc.rules.labels import (
    Labelled,
    Layer,
    concatenate,
    contract,
    even,
    fold,
    insert,
    reduce,
    squeeze,
    stack,
    take,
    unify,
)
from planc.rules.labels.facts import Facts
from planc.rules.registry import rule

_LOOKS_ALONG = "a recurrent layer looks along it"
_OWN_LENGTHS = "sequences have lengths of their own"
Widths = tuple[tuple[Labelled, int], ...]
States = Labelled | Sequence[Labelled]
"""The hidden state, or hidden and cell states."""


@dataclass(frozen=True, slots=True)
class _Cell:
    """``gates`` blocks of weights over the hidden units. ``carries`` is True if the new state
    contains the old one, so that a unit without weights is zero only if it started as zero.
    """

    gates: int
    carries: bool = False


@dataclass(frozen=True, slots=True)
class _Weights:
    """input [gates * hidden, in], hidden [gates * hidden, out], projection [out, hidden]."""

    input: Labelled
    hidden: Labelled
    biases: tuple[Labelled, ...] = ()
    projection: Labelled | None = None


def _step(
    facts: Facts,
    cell: _Cell,
    x: Labelled,
    h: Labelled,
    c: Labelled | None,
    weights: _Weights,
    steps: Widths,
) -> tuple[Labelled, Labelled | None]:
    """The state [batch, out] and the cell state [batch, hidden] after ``x`` [batch, in].

    One step stands for all of them: the new state has the labels of the old one.
    """
    factors = [weights.input, weights.hidden]
    gates = contract(facts, x, "bi", fold(facts, weights.input, 0, cell.gates), "gi", "bg")
    recurrent = contract(facts, h, "bi", fold(facts, weights.hidden, 0, cell.gates), "gi", "bg")
    gates = unify(facts, gates, recurrent, "add")
    for bias in weights.biases:
        gates = unify(facts, gates, fold(facts, bias, 0, cell.gates), "add")
    new = gates
    if c is not None:
        new = c = unify(facts, gates, c, "add")
    elif cell.carries:
        new = unify(facts, gates, h, "add")
    if weights.projection is not None:
        new = contract(facts, new, "bh", weights.projection, "oh", "bo")
        factors.append(weights.projection)
    for factor in factors:
        facts.cost(1, *steps, (factor, 0), (factor, 1))
    new = unify(facts, new, h.nonzero(), "mul")
    # the next step reads the new state, possibly nonzero where the initial one is zero
    contract(facts, new, "bi", fold(facts, weights.hidden, 0, cell.gates), "gi", "bg")
    return new, c


# -- operators -------------------------------------------------------------------------------------


def _register(name: str, cell: _Cell) -> None:
    """Register the rules of a cell, and of its layers over padded and over packed sequences."""

    @rule(f"aten.{name}_cell")
    def step(facts: Facts, x: Labelled, hx: States, *weights: Labelled | None) -> Any:
        w_ih, w_hh, *biases = (weight for weight in weights if weight is not None)
        h, *c = _states(hx)
        own = _Weights(w_ih, w_hh, tuple(biases))
        new, new_c = _step(facts, cell, x, h, c[0] if c else None, own, ((x, 0),))
        return new if new_c is None else (new, new_c)

    @rule(f"aten.{name}.input")
    def layers(
        facts: Facts, x: Labelled, hx: States, params: Sequence[Labelled], *options: Any
    ) -> tuple[Labelled, ...]:
        return _padded(facts, cell, x, _states(hx), params, *options)

    @rule(f"aten.{name}.data")
    def packed_layers(
        facts: Facts,
        x: Labelled,
        batch_sizes: Labelled,
        hx: States,
        params: Sequence[Labelled],
        *options: Any,
    ) -> tuple[Labelled, ...]:
        return _packed(facts, cell, x, _states(hx), params, *options)


def _states(hx: States) -> Sequence[Labelled]:
    return (hx,) if isinstance(hx, Labelled) else hx


_register("lstm", _Cell(4))
_register("gru", _Cell(3, carries=True))
_register("rnn_tanh", _Cell(1))
_register("rnn_relu", _Cell(1))


# -- layers over a sequence ------------------------------------------------------------------------


def _padded(
    facts: Facts,
    cell: _Cell,
    x: Labelled,
    states: Sequence[Labelled],
    params: Sequence[Labelled],
    *options: Any,
) -> tuple[Labelled, ...]:
    """A layer over ``x`` [time, batch, in], or [batch, time, in] by the last option."""
    time = 1 if options[-1] else 0
    step = reduce(facts, pin_dims(facts, x, (time,), _LOOKS_ALONG), (time,), keepdim=False)
    y, *lasts = _run(facts, cell, step, states, params, options, ((x, 0), (x, 1)))
    return (Labelled(facts.shape, insert(y, time).layers), *lasts)


def _packed(
    facts: Facts,
    cell: _Cell,
    x: Labelled,
    states: Sequence[Labelled],
    params: Sequence[Labelled],
    *options: Any,
) -> tuple[Labelled, ...]:
    """A layer over ``x`` [steps of all sequences, in]: batch and time are one dimension."""
    step = reduce(facts, pin_dims(facts, x, (0,), _LOOKS_ALONG), (0,), keepdim=True)
    states = [even(facts, pin_dims(facts, s, (1,), _OWN_LENGTHS), (1,)) for s in states]
    y, *lasts = _run(facts, cell, step, states, params, options, ((x, 0),))
    return (Labelled(facts.shape, y.layers), *lasts)


def _layers(
    states: Sequence[Labelled], params: Sequence[Labelled], has_biases: bool
) -> list[_Weights]:
    """The parameters of each layer, forward direction first."""
    projected = len(states) > 1 and states[0].shape[2] != states[1].shape[2]
    biases = 2 if has_biases else 0
    size = 2 + biases + projected
    found = []
    for at in range(0, len(params), size):
        w_ih, w_hh, *rest = params[at : at + size]
        found.append(_Weights(w_ih, w_hh, tuple(rest[:biases]), rest[-1] if projected else None))
    return found


def _run(
    facts: Facts,
    cell: _Cell,
    x: Labelled,
    states: Sequence[Labelled],
    params: Sequence[Labelled],
    options: tuple[Any, ...],
    steps: Widths,
) -> tuple[Labelled, ...]:
    """All layers on ``x``, one step [batch, in]: the output [batch, out] and the last states."""
    has_biases, _layer_count, _dropout, _train, bidirectional, *_ = options
    directions = 2 if bidirectional else 1
    weights = _layers(states, params, has_biases)
    h0, *c0 = (_lines(facts, state, len(weights)) for state in states)
    last: list[tuple[Labelled, Labelled | None]] = []
    for i, own in enumerate(weights):
        last.append(_step(facts, cell, x, h0[i], c0[0][i] if c0 else None, own, steps))
        if (i + 1) % directions == 0:
            outputs = [h for h, _ in last[-directions:]]
            x = concatenate(facts, outputs, 1) if directions > 1 else outputs[0]
    h_last = stack(facts, [h for h, _ in last], 0)
    if not c0:
        return x, h_last
    c_last = stack(facts, [c for _, c in last if c is not None], 0)
    if weights[0].projection is not None:  # torch takes equal sizes for no projection
        facts.wider((c_last, 2), (h_last, 2))
    return x, h_last, c_last


def _lines(facts: Facts, state: Labelled, count: int) -> list[Labelled]:
    """The initial states [batch, out] of layers and directions, slices of one tensor. Their units
    are tied across slices by the labels of the tensor, except for a tensor of zeros.
    """
    inner, outer = state.finest(2), state.finest(0)
    if inner is not None and outer is not None:
        facts.request_ragged(inner, outer, count)
    lines = []
    for i in range(count):
        line = take(facts, state, 0, np.array([i]))
        if state.blank and i > 0:
            line = Labelled(line.shape, tuple(_free(facts, layer) for layer in line.layers))
        lines.append(squeeze(facts, line, (0,)))
    return lines


def _free(facts: Facts, layer: Layer) -> Layer:
    """A layer of features with atoms of its own; other layers unchanged."""
    if layer.target != 2 or layer.ragged:
        return layer
    return replace(layer, atoms=facts.fresh(layer.atoms.size).reshape(layer.atoms.shape))


# -- packed sequences -----------------------------------------------------------------------------


@rule("aten._pack_padded_sequence")
def pack(facts: Facts, x: Labelled, lengths: Labelled, batch_first: bool) -> tuple[Labelled, ...]:
    """[time, batch, ...] without its padding, as [steps of all sequences, ...]."""
    x = reduce(facts, pin_dims(facts, x, (0, 1), _OWN_LENGTHS), (0, 1), keepdim=False)
    return Labelled(facts.shapes[0], insert(x, 0).layers), Labelled(facts.shapes[1])


@rule("aten._pad_packed_sequence")
def pad(
    facts: Facts,
    x: Labelled,
    batch_sizes: Labelled,
    batch_first: bool,
    padding_value: float,
    *_: Any,
) -> tuple[Labelled, ...]:
    """The inverse of :func:`pack`, filling with ``padding_value``."""
    x = insert(reduce(facts, pin_dims(facts, x, (0,), _OWN_LENGTHS), (0,), keepdim=True), 0)
    x = x if padding_value == 0 else x.nonzero()
    return Labelled(facts.shapes[0], x.layers), Labelled(facts.shapes[1])
