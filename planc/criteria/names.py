"""The names of criteria."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches

from planc.criteria.activations import ActivationVariance, MeanActivation, NonzeroActivation, Wanda
from planc.criteria.filters import BatchNormScale, GeometricMedian, Lamp
from planc.criteria.gradients import KroneckerDamage, OptimalBrainDamage, Taylor
from planc.criteria.magnitude import Magnitude
from planc.criteria.random import Random
from planc.criteria.scores import Criterion
from planc.criteria.statistics import needs_of
from planc.errors import PolicyError
from planc.plan.arguments import function_of, shown

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
"""The names of criteria."""


def named(name: str | Criterion, seed: int = 0) -> Criterion:
    """Return a criterion unchanged, or the criterion of a name.

    The names: "l1", "l2", "random", "batch_norm" (scales of batch norms), "fpgm", "lamp", and with
    statistics "taylor", "taylor_unit", "obd", "obd_c", "activation", "apoz", "variance", "wanda".

    Args:
        name: a name, or a function, returned as it is.
        seed: the seed of "random".

    Raises:
        PolicyError: the name is unknown (names the near misses), or it is no function.
    """
    if not isinstance(name, str):
        if not callable(name) or isinstance(name, type):
            raise PolicyError(
                f"criterion {shown(name)} is of type {type(name).__name__}: give a function, or "
                f"one of the names {', '.join(NAMES)}"
            )
        taken = ("analysis", "weights", *(["statistics"] if needs_of(name) else []))
        checked: Criterion = function_of(*taken)("criterion", name)
        return checked
    if name == "random":
        return Random(seed)
    if name not in _NAMED:
        close = get_close_matches(name, NAMES, n=2)
        near = f"; did you mean {' or '.join(close)}?" if close else ""
        raise PolicyError(f"unknown criterion {name!r}: choose one of {', '.join(NAMES)}{near}")
    return _NAMED[name]()
