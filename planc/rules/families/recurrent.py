"""Recurrent layers: gates are blocks over the hidden units, layers and directions each have their
own, and states are as wide as what they start from.

Equal hidden units of all gates go together; those of other layers and directions are others, but
equally many, for their states are slices of one tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

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
from planc.rules.registry import pin_dims, rule

_LOOKS_ALONG = "a recurrent layer looks along it"
_OWN_LENGTHS = "sequences have lengths of their own"
Widths = tuple[tuple[Labelled, int], ...]


@dataclass(frozen=True, slots=True)
class _Cell:
    """``gates`` blocks of weights over the hidden units. ``carries`` says that the new state
    contains the old one, so that a unit without weights is zero only where it started as zero.
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
    cx: Facts,
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
    gates = contract(cx, x, "bi", fold(cx, weights.input, 0, cell.gates), "gi", "bg")
    recurrent = contract(cx, h, "bi", fold(cx, weights.hidden, 0, cell.gates), "gi", "bg")
    gates = unify(cx, gates, recurrent, "add")
    for bias in weights.biases:
        gates = unify(cx, gates, fold(cx, bias, 0, cell.gates), "add")
    new = gates
    if c is not None:
        new = c = unify(cx, gates, c, "add")
    elif cell.carries:
        new = unify(cx, gates, h, "add")
    if weights.projection is not None:
        new = contract(cx, new, "bh", weights.projection, "oh", "bo")
        factors.append(weights.projection)
    for factor in factors:
        cx.cost(1, *steps, (factor, 0), (factor, 1))
    new = unify(cx, new, h.nonzero(), "mul")
    # the next step reads what this one leaves, which may be no zero where the first state was one
    contract(cx, new, "bi", fold(cx, weights.hidden, 0, cell.gates), "gi", "bg")
    return new, c


# -- cells -----------------------------------------------------------------------------------------


def _cell_weights(weights: Sequence[Labelled | None]) -> _Weights:
    w_ih, w_hh, *biases = (w for w in weights if w is not None)
    return _Weights(w_ih, w_hh, tuple(biases))


@rule("aten.lstm_cell")
def lstm_cell(
    cx: Facts, x: Labelled, hx: Sequence[Labelled], *weights: Labelled | None
) -> tuple[Labelled, Labelled]:
    new, c = _step(cx, _Cell(4), x, hx[0], hx[1], _cell_weights(weights), ((x, 0),))
    assert c is not None
    return new, c


@rule("aten.gru_cell")
def gru_cell(cx: Facts, x: Labelled, hx: Labelled, *weights: Labelled | None) -> Labelled:
    return _step(cx, _Cell(3, carries=True), x, hx, None, _cell_weights(weights), ((x, 0),))[0]


@rule("aten.rnn_tanh_cell", "aten.rnn_relu_cell")
def rnn_cell(cx: Facts, x: Labelled, hx: Labelled, *weights: Labelled | None) -> Labelled:
    return _step(cx, _Cell(1), x, hx, None, _cell_weights(weights), ((x, 0),))[0]


# -- layers over a sequence ------------------------------------------------------------------------


@rule("aten.lstm.input")
def lstm(
    cx: Facts, x: Labelled, hx: Sequence[Labelled], params: Sequence[Labelled], *options: Any
) -> tuple[Labelled, ...]:
    return _padded(cx, _Cell(4), x, hx, params, *options)


@rule("aten.gru.input")
def gru(
    cx: Facts, x: Labelled, hx: Labelled, params: Sequence[Labelled], *options: Any
) -> tuple[Labelled, ...]:
    return _padded(cx, _Cell(3, carries=True), x, (hx,), params, *options)


@rule("aten.rnn_tanh.input", "aten.rnn_relu.input")
def rnn(
    cx: Facts, x: Labelled, hx: Labelled, params: Sequence[Labelled], *options: Any
) -> tuple[Labelled, ...]:
    return _padded(cx, _Cell(1), x, (hx,), params, *options)


@rule("aten.lstm.data")
def packed_lstm(
    cx: Facts,
    x: Labelled,
    batch_sizes: Labelled,
    hx: Sequence[Labelled],
    params: Sequence[Labelled],
    *options: Any,
) -> tuple[Labelled, ...]:
    return _packed(cx, _Cell(4), x, hx, params, *options)


@rule("aten.gru.data")
def packed_gru(
    cx: Facts,
    x: Labelled,
    batch_sizes: Labelled,
    hx: Labelled,
    params: Sequence[Labelled],
    *options: Any,
) -> tuple[Labelled, ...]:
    return _packed(cx, _Cell(3, carries=True), x, (hx,), params, *options)


@rule("aten.rnn_tanh.data", "aten.rnn_relu.data")
def packed_rnn(
    cx: Facts,
    x: Labelled,
    batch_sizes: Labelled,
    hx: Labelled,
    params: Sequence[Labelled],
    *options: Any,
) -> tuple[Labelled, ...]:
    return _packed(cx, _Cell(1), x, (hx,), params, *options)


def _padded(
    cx: Facts,
    cell: _Cell,
    x: Labelled,
    states: Sequence[Labelled],
    params: Sequence[Labelled],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Labelled, ...]:
    """``x`` is [time, batch, in], or [batch, time, in] with ``batch_first``."""
    time = 1 if batch_first else 0
    step = reduce(cx, pin_dims(cx, x, (time,), _LOOKS_ALONG), (time,), keepdim=False)
    directions = 2 if bidirectional else 1
    weights = _layers(states, params, has_biases)
    y, *lasts = _run(cx, cell, step, states, weights, directions, ((x, 0), (x, 1)))
    return (Labelled(cx.shape, insert(y, time).layers), *lasts)


def _packed(
    cx: Facts,
    cell: _Cell,
    x: Labelled,
    states: Sequence[Labelled],
    params: Sequence[Labelled],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
) -> tuple[Labelled, ...]:
    """``x`` is [steps of all sequences, in]: batch and time are one dimension."""
    step = reduce(cx, pin_dims(cx, x, (0,), _LOOKS_ALONG), (0,), keepdim=True)
    states = [even(cx, pin_dims(cx, s, (1,), _OWN_LENGTHS), (1,)) for s in states]
    directions = 2 if bidirectional else 1
    weights = _layers(states, params, has_biases)
    y, *lasts = _run(cx, cell, step, states, weights, directions, ((x, 0),))
    return (Labelled(cx.shape, y.layers), *lasts)


def _layers(
    states: Sequence[Labelled], params: Sequence[Labelled], has_biases: bool
) -> list[_Weights]:
    """The parameters of each layer, in each those of the forward direction first."""
    projected = len(states) > 1 and states[0].shape[2] != states[1].shape[2]
    biases = 2 if has_biases else 0
    size = 2 + biases + projected
    found = []
    for at in range(0, len(params), size):
        w_ih, w_hh, *rest = params[at : at + size]
        found.append(_Weights(w_ih, w_hh, tuple(rest[:biases]), rest[-1] if projected else None))
    return found


def _run(
    cx: Facts,
    cell: _Cell,
    x: Labelled,
    states: Sequence[Labelled],
    weights: Sequence[_Weights],
    directions: int,
    steps: Widths,
) -> tuple[Labelled, ...]:
    """All layers on ``x``, one step [batch, in]: the output [batch, out] and the last states."""
    h0, *c0 = (_lines(cx, state, len(weights)) for state in states)
    last: list[tuple[Labelled, Labelled | None]] = []
    for i, own in enumerate(weights):
        last.append(_step(cx, cell, x, h0[i], c0[0][i] if c0 else None, own, steps))
        if (i + 1) % directions == 0:
            outputs = [h for h, _ in last[-directions:]]
            x = concatenate(cx, outputs, 1) if directions > 1 else outputs[0]
    h_last = stack(cx, [h for h, _ in last], 0)
    if not c0:
        return x, h_last
    c_last = stack(cx, [c for _, c in last if c is not None], 0)
    if weights[0].projection is not None:  # equal sizes would mean that there is no projection
        cx.wider((c_last, 2), (h_last, 2))
    return x, h_last, c_last


def _lines(cx: Facts, state: Labelled, count: int) -> list[Labelled]:
    """The states [batch, out] that layers and directions start from, of one tensor. Units of one
    line go with those of another only where the tensor says so, which zeros do not.
    """
    inner, outer = state.finest(2), state.finest(0)
    if inner is not None and outer is not None:
        cx.request_ragged(inner, outer, count)
    lines = []
    for i in range(count):
        line = take(cx, state, 0, np.array([i]))
        if state.blank and i > 0:
            line = Labelled(line.shape, tuple(_free(cx, layer) for layer in line.layers))
        lines.append(squeeze(cx, line, (0,)))
    return lines


def _free(cx: Facts, layer: Layer) -> Layer:
    """The same layer with atoms of its own, if it is one of features."""
    if layer.target != 2 or layer.ragged:
        return layer
    return replace(layer, atoms=cx.fresh(layer.atoms.size).reshape(layer.atoms.shape))


# -- sequences of their own lengths ----------------------------------------------------------------


@rule("aten._pack_padded_sequence")
def pack(cx: Facts, x: Labelled, lengths: Labelled, batch_first: bool) -> tuple[Labelled, ...]:
    """[time, batch, ...] without what is padded, as [steps of all sequences, ...]."""
    x = reduce(cx, pin_dims(cx, x, (0, 1), _OWN_LENGTHS), (0, 1), keepdim=False)
    return Labelled(cx.shapes[0], insert(x, 0).layers), Labelled(cx.shapes[1])


@rule("aten._pad_packed_sequence")
def pad(
    cx: Facts, x: Labelled, batch_sizes: Labelled, batch_first: bool, padding_value: float, *_: Any
) -> tuple[Labelled, ...]:
    """The way back; where there is nothing the padding stands."""
    x = insert(reduce(cx, pin_dims(cx, x, (0,), _OWN_LENGTHS), (0,), keepdim=True), 0)
    x = x if padding_value == 0 else x.nonzero()
    return Labelled(cx.shapes[0], x.layers), Labelled(cx.shapes[1])
