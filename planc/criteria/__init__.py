"""Criteria: pure functions from tensors to one score for every unit of every group.

A :class:`Criterion` is called with the analysis and the tensors by name and returns
:class:`Scores`; units with low scores go first.
"""

from __future__ import annotations

from planc.criteria.magnitude import Magnitude
from planc.criteria.random import Random
from planc.criteria.scores import Criterion, Scores, Weights, score
from planc.errors import PolicyError

__all__ = ["Criterion", "Magnitude", "Random", "Scores", "Weights", "named", "score"]


def named(name: str, seed: int = 0) -> Criterion:
    """A criterion by its name: "l1", "l2" or "random".

    Raises:
        PolicyError: there is none of that name.
    """
    known: dict[str, Criterion] = {"l1": Magnitude(1), "l2": Magnitude(2), "random": Random(seed)}
    if name not in known:
        raise PolicyError(f"unknown criterion {name!r}: choose one of {', '.join(known)}")
    return known[name]
