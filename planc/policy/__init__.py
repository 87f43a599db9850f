"""Policies: how many units each group keeps, as small functions that compose.

A :class:`Policy` is called with the analysis and the scores and returns, for each group, how many
units of a row stay. Rankings say in which order units leave; modifiers raise what another policy
keeps; the constraints of the model are obeyed together with them (:mod:`planc.policy.closure`),
never by removing more than the policy said. A :class:`Budget` says how far to go in a ranking.
"""

from planc.policy.budget import Budget
from planc.policy.feasible import feasible
from planc.policy.marginal import PerCost
from planc.policy.modifiers import Capped, Equal, Floor, Keep, Modifier, Only
from planc.policy.order import Order, Ranking
from planc.policy.patterns import matching
from planc.policy.ranking import Global, Isomorphic, Uniform
from planc.policy.ratio import Counts, Policy
from planc.policy.ratios import Ratios
from planc.policy.rounding import Rounded
from planc.policy.zeros import Zeros

__all__ = [
    "Budget",
    "Capped",
    "Counts",
    "Equal",
    "Floor",
    "Global",
    "Isomorphic",
    "Keep",
    "Modifier",
    "Only",
    "Order",
    "PerCost",
    "Policy",
    "Ranking",
    "Ratios",
    "Rounded",
    "Uniform",
    "Zeros",
    "feasible",
    "matching",
]
