"""In which order a criterion reads the parameters: those of one dimension all at once, for each is
small and there are many; the others one by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from planc.analysis import Analysis
from planc.analysis.places import Place, Places
from planc.ir.graph import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """``vectors`` are the parameters of one dimension, each as often as it has places; what is read
    of them one after the other belongs at the indices ``at`` of all places. ``others`` are the
    other parameters with their places, and the positions of these.
    """

    vectors: tuple[Tensor, ...]
    at: NDArray[np.int64]
    others: tuple[tuple[Tensor, tuple[Place, ...], tuple[int, ...]], ...]


_READINGS: WeakKeyDictionary[Places, Reading] = WeakKeyDictionary()


def reading(analysis: Analysis) -> Reading:
    """The order for the parameters of an analysis, found once."""
    places = analysis.places
    if places not in _READINGS:
        _READINGS[places] = _reading(analysis)
    return _READINGS[places]


def _reading(analysis: Analysis) -> Reading:
    places, tensors = analysis.places, analysis.graph.tensors
    starts = places.indices.starts
    vectors: list[Tensor] = []
    at = [np.zeros(0, dtype=np.int64)]
    others: list[tuple[Tensor, tuple[Place, ...], tuple[int, ...]]] = []
    for number, positions in places.by_tensor.items():
        tensor = tensors[number]
        if len(tensor.shape) == 1:
            vectors += [tensor] * len(positions)
            at += [np.arange(starts[p], starts[p + 1]) for p in positions]
        else:
            others.append((tensor, tuple(places.places[p] for p in positions), positions))
    return Reading(tuple(vectors), np.concatenate(at), tuple(others))
