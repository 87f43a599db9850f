"""Policies: how many units each group keeps, as small functions that compose.

A :class:`Policy` is called with the analysis, the scores and the target and returns, for each
group, how many units of a row stay. The constraints of the model are obeyed afterwards
(:mod:`planc.policy.feasible`), never by removing more than the policy said.
"""

from planc.policy.feasible import feasible
from planc.policy.modifiers import Floor, Keep, Only, Rounded
from planc.policy.patterns import matching
from planc.policy.ranking import Global
from planc.policy.ratio import Counts, Policy, Uniform

__all__ = [
    "Counts",
    "Floor",
    "Global",
    "Keep",
    "Only",
    "Policy",
    "Rounded",
    "Uniform",
    "feasible",
    "matching",
]
