"""Criteria: pure functions from tensors to one score for every unit of every group.

A :class:`Criterion` is called with the analysis and the tensors by name and returns one array of
scores for each group; units with low scores are removed first. :func:`score` checks them and
returns :class:`Scores`. Criteria compose: :class:`Reduced` makes a criterion of an
:class:`Importance` of single members, :class:`Normalized` brings scores to one scale,
:class:`Fallback` joins two. Some need :class:`Statistics`, collected by :func:`planc.calibrate`.
"""

from __future__ import annotations

from planc.criteria.activations import ActivationVariance, MeanActivation, NonzeroActivation, Wanda
from planc.criteria.additive import Additive
from planc.criteria.filters import BatchNormScale, GeometricMedian, Lamp
from planc.criteria.gradients import KroneckerDamage, OptimalBrainDamage, Taylor
from planc.criteria.magnitude import Magnitude
from planc.criteria.members import Importance, Members, Reduced
from planc.criteria.names import NAMES, named
from planc.criteria.normalization import Fallback, Normalized
from planc.criteria.random import Random
from planc.criteria.scores import Criterion, Opinions, Scores, Weights
from planc.criteria.scoring import score
from planc.criteria.statistics import Statistics

__all__ = [
    "NAMES",
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
