"""Recurrent layers: hidden units with a state of zero, and the weight columns in use.

The new state of an LSTM, a GRU or a plain layer is the gated candidate plus the gated old state. So
a hidden unit starting at zero stays there while its candidate is zero: its biases are zero, and so
is each weight or the value it multiplies.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from planc.analysis.constants.known import Known, known

_CANDIDATE = {"lstm": (4, 2), "gru": (3, 2), "rnn_tanh": (1, 0), "rnn_relu": (1, 0)}
"""How many gates an operator has, and which of them is the candidate for the new state."""

RECURRENT = (*_CANDIDATE, *(f"{name}_cell" for name in _CANDIDATE))


@dataclass(frozen=True, slots=True, eq=False)
class Recurrent:
    """The layers of one call, or the cell: ``input`` are the features that may be nonzero,
    ``states[i]`` the hidden units of layer and direction i that may be nonzero.
    """

    x: Known
    initial: tuple[Known, ...]
    weights: tuple[Known, ...]
    input: Tensor
    states: tuple[Tensor, ...]
    directions: int
    step: int
    cell: bool

    def reads(self) -> Iterator[tuple[int, Tensor]]:
        """Places where the weights of features and states may contribute, with their index among
        the operator's parameters.
        """
        below = self.input
        for i, state in enumerate(self.states):
            at = i * self.step
            yield at, self.weights[at].maybe & below
            yield at + 1, self.weights[at + 1].maybe & state
            if (i + 1) % self.directions == 0:
                below = torch.cat(self.states[i + 1 - self.directions : i + 1])

    def results(self) -> tuple[Known, ...]:
        """The output of the last layer and the last states of all; for a cell its new states."""
        if self.cell:
            return tuple(
                known(torch.zeros_like(state.value), ~self.states[0]) for state in self.initial
            )
        top = torch.cat(self.states[-self.directions :])
        shape = (*self.x.value.shape[:-1], len(top))
        y = known(self.x.value.new_zeros(shape), ~top)
        lines = torch.stack(self.states)
        lasts = (known(torch.zeros_like(state.value), ~lines[:, None]) for state in self.initial)
        return (y, *lasts)


def recurrent(operator: str, args: tuple[Any, ...]) -> Recurrent | None:
    """The call of a recurrent operator, ``aten.lstm.input``, ``aten.gru_cell.default`` or alike;
    None for others, for packed sequences, and for layers with projections.
    """
    name, overload = operator.split(".")[1:3]
    if name not in RECURRENT or overload == "data":
        return None
    x, states = args[:2]
    initial = states if isinstance(states, tuple) else (states,)
    cell = name.endswith("_cell")
    weights = parameters(args)
    step = len(weights) if cell else 4 if args[3] else 2
    directions = 2 if not cell and args[7] else 1
    if len({state.value.shape for state in initial}) > 1:
        return None  # with projections
    below = x.maybe.flatten(0, -2).any(dim=0)
    features, alive = below, []
    for i in range(len(weights) // step):
        lines = [_line(state, i, cell) for state in initial]
        own = weights[i * step : (i + 1) * step]
        gates = _CANDIDATE[name.removesuffix("_cell")]
        alive.append(_alive(own, below, torch.stack(lines).any(dim=0), *gates))
        if (i + 1) % directions == 0:
            below = torch.cat(alive[-directions:])
    return Recurrent(x, initial, weights, features, tuple(alive), directions, step, cell)


def parameters(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The weights and biases among the arguments of a recurrent operator."""
    given = args[2] if isinstance(args[2], tuple) else args[2:]
    return tuple(weight for weight in given if weight is not None)


def _line(state: Known, i: int, cell: bool) -> Tensor:
    """Mask of the possibly nonzero units in the initial state of one layer and direction."""
    return (state.maybe if cell else state.maybe[i]).reshape(-1, state.value.shape[-1]).any(dim=0)


def _alive(
    weights: tuple[Known, ...], below: Tensor, start: Tensor, gates: int, candidate: int
) -> Tensor:
    """The hidden units whose state may become nonzero: the least set containing those that start
    nonzero and those fed by a feature, a bias or a unit of the set.
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
