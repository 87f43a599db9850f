"""Criteria: pure functions from tensors to one score for every unit of every group.

A :class:`Criterion` is called with the analysis and the tensors by name and returns
:class:`Scores`; units with low scores go first. They compose: :class:`Reduced` makes a criterion of
an :class:`Importance` of single members, :class:`Normalized` brings scores to one scale,
:class:`Fallback` joins two. Some need :class:`Statistics`, which :func:`planc.calibrate` collects.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches

from planc.criteria.activations import ActivationVariance, MeanActivation, NonzeroActivation, Wanda
from planc.criteria.additive import Additive
from planc.criteria.filters import BatchNormScale, GeometricMedian, Lamp
from planc.criteria.gradients import KroneckerDamage, OptimalBrainDamage, Taylor
from planc.criteria.magnitude import Magnitude
from planc.criteria.members import Importance, Members, Reduced
from planc.criteria.normalization import Fallback, Normalized
from planc.criteria.random import Random
from planc.criteria.scores import Criterion, Opinions, Scores, Weights, score
from planc.criteria.statistics import Statistics
from planc.errors import PolicyError

__all__ = [
    "ActivationVariance",
    "Additive",
    "BatchNormScale",
    "Criterion",
    "Fallback",
    "GeometricMedian",
    "Importance",
    "KroneckerDamage",
    "Lamp",
    "Magnitude",
    "MeanActivation",
    "Members",
    "NonzeroActivation",
    "Normalized",
    "Opinions",
    "OptimalBrainDamage",
    "Random",
    "Reduced",
    "Scores",
    "Statistics",
    "Taylor",
    "Wanda",
    "Weights",
    "named",
    "score",
]

_NAMED: Mapping[str, Callable[[], Criterion]] = {
    "l1": lambda: Magnitude(1),
    "l2": lambda: Magnitude(2),
    "batch_norm": BatchNormScale,
    "fpgm": GeometricMedian,
    "lamp": Lamp,
    "taylor": Taylor,
    "taylor_unit": lambda: Taylor("unit"),
    "obd": OptimalBrainDamage,
    "obd_c": KroneckerDamage,
    "activation": MeanActivation,
    "apoz": NonzeroActivation,
    "variance": ActivationVariance,
    "wanda": Wanda,
}

NAMES = (*sorted([*_NAMED, "random"]),)
"""The criteria that have a name."""


def named(name: str | Criterion, seed: int = 0) -> Criterion:
    """A criterion as it is, or by its name: "l1", "l2", "random", "batch_norm" (scales of batch
    norms), "fpgm", "lamp", and with statistics "taylor", "taylor_unit", "obd", "obd_c",
    "activation", "apoz", "variance", "wanda".

    Raises:
        PolicyError: there is none of that name; names the near misses.
    """
    if not isinstance(name, str):
        if not callable(name):
            raise PolicyError(
                f"criterion {name!r} is of type {type(name).__name__}: give a function, or one of "
                f"the names {', '.join(NAMES)}"
            )
        return name
    if name == "random":
        return Random(seed)
    if name not in _NAMED:
        close = get_close_matches(name, NAMES, n=2)
        near = f"; did you mean {' or '.join(close)}?" if close else ""
        raise PolicyError(f"unknown criterion {name!r}: choose one of {', '.join(NAMES)}{near}")
    return _NAMED[name]()
