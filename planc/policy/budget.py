"""Budgets: upper limits on the MACs, parameters, bytes and latency of the pruned model.

A budget needs a policy that ranks units (:class:`planc.policy.order.Ranking`): the policy orders
the units for removal, the budget sets how far to go. :func:`within` finds the place in the order by
the exact cost of each candidate, with modifiers and constraints obeyed, and then restores the units
that still fit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import numpy as np

from planc.analysis import Analysis
from planc.analysis.arrays import Kept, Polynomials
from planc.analysis.equations import Equations
from planc.criteria.scores import Scores
from planc.errors import PolicyError
from planc.plan.latency import Prediction
from planc.policy.closure import Closure, modifiers, nested
from planc.policy.marginal import MEASURES
from planc.policy.obstacles import UNITS, infeasible
from planc.policy.order import Ranking, whole
from planc.policy.ratio import Counts, Policy
from planc.policy.search import Prices, search


@dataclass(frozen=True, slots=True)
class Budget:
    """Upper limits on the cost of the pruned model.

    Args:
        macs, params, bytes: the limit of each measure. An ``int`` is a figure, a ``float`` in (0,
            1] a share of the original's cost. All given limits are obeyed.
        latency: the same in nanoseconds, as predicted by ``table``.
        table: the latency table of the model (:func:`planc.measure_latency`).
    """

    macs: int | float | None = None
    params: int | float | None = None
    bytes: int | float | None = None
    latency: int | float | None = None
    table: Prediction | None = None

    def __str__(self) -> str:
        given = ((name, getattr(self, name)) for name in UNITS)
        return ", ".join(
            f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
            for name, value in given
            if value is not None
        )

    @property
    def measured(self) -> tuple[str, ...]:
        """The limited measures of the cost model."""
        return tuple(name for name in MEASURES if getattr(self, name) is not None)

    def limits(self, analysis: Analysis) -> dict[str, int]:
        """The limits for a model, by measure.

        Raises:
            PolicyError: a limit is not positive, or a share above 1; the budget is empty; a latency
                has no table, or the table of another model.
        """
        if self.latency is not None and self.table is None:
            raise no_table()
        table = None if self.latency is None else self.table
        return self.figures(pricing(analysis, table)(whole(analysis)))

    def figures(self, full: Mapping[str, int]) -> dict[str, int]:
        """The limits for an original of cost ``full``, by measure.

        Raises:
            PolicyError: a limit is not positive, or a share above 1; the budget is empty.
        """
        found = {
            name: _figure(name, value, full[name])
            for name in UNITS
            if (value := getattr(self, name)) is not None
        }
        if not found:
            raise PolicyError("the budget is empty: give macs, params, bytes or latency")
        return found


def no_table() -> PolicyError:
    """The error for a latency budget without a table."""
    return PolicyError(
        "a latency budget needs a table of what the operators take on your machine: make one with "
        "planc.measure_latency, or planc measure on the command line"
    )


def _figure(name: str, value: float, full: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PolicyError(f"budget {name}={value!r} is no number: give 0.5 for half, or a figure")
    if not value > 0:
        raise PolicyError(f"budget {name}={value!r} is not above 0: give 0.5 for half, or a figure")
    if isinstance(value, int):
        return value
    if value > 1:
        raise PolicyError(
            f"budget {name}={value!r} is a share above 1: give 0.5 for half of the original's "
            f"{full:,}, or a whole number for a figure"
        )
    # exact where a float is not: a share such as 0.1 loses nothing to its last bit
    return int(full * round(value * (1 << 60)) + (1 << 20) >> 60)


def within(
    analysis: Analysis, equations: Equations, scores: Scores, policy: Policy, budget: Budget
) -> Counts:
    """The largest counts along a policy's order within a budget.

    Raises:
        InfeasibleBudget: no counts fit; names the closest figure and the obstacle.
        PolicyError: the policy does not rank units, or the budget is invalid.
    """
    limits = budget.limits(analysis)
    order = _ranking(policy).order(analysis, scores)
    closure = Closure(analysis, equations, tuple(m.raising(analysis) for m in modifiers(policy)))
    prices = _prices(analysis, budget, limits)
    last = closure(order.kept(len(order.groups)))
    if not prices.fit(last):
        price = pricing(analysis, budget.table)
        raise infeasible(analysis, equations, policy, order, limits, price)
    return tuple(search(order, closure, prices).tolist())


def _ranking(policy: Policy) -> Ranking:
    for inside in nested(policy):
        if isinstance(inside, Ranking):
            return inside
    raise PolicyError(
        f"a budget needs a policy that ranks units (Uniform, Global, Isomorphic, PerCost, or "
        f"one with a method `order`), and {policy} does not"
    )


def _prices(analysis: Analysis, budget: Budget, limits: dict[str, int]) -> Prices:
    polys = [getattr(analysis.cost, name) for name in budget.measured]
    costs = Polynomials(polys, whole(analysis))
    figures = np.array([limits[name] for name in budget.measured], dtype=object)
    if budget.table is None or "latency" not in limits:
        return Prices(costs, figures)
    return Prices(costs, figures, budget.table.prediction(analysis), limits["latency"])


def pricing(analysis: Analysis, table: Prediction | None) -> Callable[[Kept], dict[str, int]]:
    """The cost of counts, by measure; with the latency if there is a table."""
    latency = None if table is None else table.prediction(analysis)

    def price(kept: Kept) -> dict[str, int]:
        found = asdict(analysis.cost.price(kept.tolist()))
        return found if latency is None else {**found, "latency": latency(kept)}

    return price
