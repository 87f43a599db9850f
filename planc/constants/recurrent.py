"""Recurrent layers: hidden units whose state stays zero, and which columns of weights are read.

A hidden unit that starts at zero stays there while its candidate is zero: the new state of an LSTM,
a GRU or a plain layer is the candidate, gated, and the old state, gated. The candidate is zero
where its biases are, and each weight is or what it meets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from planc.constants.known import Known, known

_CANDIDATE = {"lstm": (4, 2), "gru": (3, 2), "rnn_tanh": (1, 0), "rnn_relu": (1, 0)}
"""How many gates an operator has, and which of them is the candidate for the new state."""


@dataclass(frozen=True, slots=True, eq=False)
class Recurrent:
    """The layers of one call: ``input`` says which features may not be zero, ``states[i]`` which
    hidden units of layer and direction i.
    """

    x: Known
    initial: tuple[Known, ...]
    weights: tuple[Known, ...]
    input: Tensor
    states: tuple[Tensor, ...]
    directions: int
    step: int

    def reads(self) -> Iterator[tuple[int, Tensor]]:
        """Where the weights that read features and states may contribute, by their place among the
        operator's parameters.
        """
        below = self.input
        for i, state in enumerate(self.states):
            at = i * self.step
            yield at, self.weights[at].maybe & below
            yield at + 1, self.weights[at + 1].maybe & state
            if (i + 1) % self.directions == 0:
                below = torch.cat(self.states[i + 1 - self.directions : i + 1])

    def results(self) -> tuple[Known, ...]:
        """The output of the last layer, and the last states of all."""
        top = torch.cat(self.states[-self.directions :])
        shape = (*self.x.value.shape[:-1], len(top))
        y = known(self.x.value.new_zeros(shape), ~top)
        lines = torch.stack(self.states)
        lasts = (known(torch.zeros_like(state.value), ~lines[:, None]) for state in self.initial)
        return (y, *lasts)


def recurrent(operator: str, args: tuple[Any, ...]) -> Recurrent | None:
    """The call of a recurrent operator, ``aten.lstm.input`` or alike; None for others, for packed
    sequences, and for layers with projections.
    """
    name, overload = operator.split(".")[1:3]
    if name not in _CANDIDATE or overload != "input":
        return None
    x, initial, weights, biased, _, _, _, bidirectional, _ = args
    initial = initial if isinstance(initial, tuple) else (initial,)
    if len({state.value.shape for state in initial}) > 1:
        return None  # with projections
    step, directions = 4 if biased else 2, 2 if bidirectional else 1
    below = x.maybe.flatten(0, -2).any(dim=0)
    features, states = below, []
    for i in range(len(weights) // step):
        start = torch.stack([_line(state, i) for state in initial]).any(dim=0)
        own = weights[i * step : (i + 1) * step]
        states.append(_alive(own, below, start, *_CANDIDATE[name]))
        if (i + 1) % directions == 0:
            below = torch.cat(states[-directions:])
    return Recurrent(x, initial, weights, features, tuple(states), directions, step)


def _line(state: Known, i: int) -> Tensor:
    """Where the state that one layer and direction starts from may not be zero."""
    return state.maybe[i].reshape(-1, state.value.shape[-1]).any(dim=0)


def _alive(
    weights: tuple[Known, ...], below: Tensor, start: Tensor, gates: int, candidate: int
) -> Tensor:
    """The hidden units whose state may leave zero: the least set that holds those which start
    otherwise, and whatever a feature, a bias or a unit of the set moves.
    """
    rows = slice(candidate * len(start), (candidate + 1) * len(start))
    assert len(weights[0].value) == gates * len(start)
    feature, hidden, *biases = (weight.maybe[rows] for weight in weights)
    alive = start | (feature & below).any(dim=1)
    for bias in biases:
        alive = alive | bias
    while True:
        more = alive | (hidden & alive).any(dim=1)
        if torch.equal(more, alive):
            return alive
        alive = more
