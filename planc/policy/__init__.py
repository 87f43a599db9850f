"""Policies: the number of units each group keeps, composed from small functions.

A :class:`Policy` is called with the analysis and the scores and returns, for each group, the number
of units kept in each row. Rankings order units for removal; modifiers raise the counts of another
policy. The model's constraints are obeyed together with the modifiers (:mod:`planc.policy.closure`)
and never remove more than the policy asked for. A :class:`Budget` sets how far a ranking is
followed.
"""

from planc.policy.budget import Budget
from planc.policy.decisions import Decisions, decided
from planc.policy.feasible import feasible
from planc.policy.marginal import PerCost
from planc.policy.modifiers import Capped, Equal, Floor, Keep, Modifier, Only
from planc.policy.order import Order, Ranking
from planc.policy.patterns import matching
from planc.policy.ranking import Global, Isomorphic, Ratios, Uniform
from planc.policy.ratio import Counts, Policy
from planc.policy.rounding import Rounded
from planc.policy.zeros import Zeros

__all__ = [
    "Budget",
    "Capped",
    "Counts",
    "Decisions",
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
    "decided",
    "feasible",
    "matching",
]
