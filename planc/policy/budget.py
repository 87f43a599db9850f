"""Budgets: how much the pruned model may cost, in MACs, parameters and bytes.

A budget goes with a policy that ranks units (:class:`planc.policy.order.Ranking`): the policy says
in which order units leave, the budget how far to go. :func:`within` finds that place by the exact
cost of each candidate, modifiers and constraints obeyed, and then gives back what still fits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from planc.analysis import Analysis
from planc.analysis.arrays import Kept, Polynomials
from planc.analysis.equations import Equations
from planc.criteria.scores import Scores
from planc.errors import InfeasibleBudget, PolicyError
from planc.plan.latency import Prediction
from planc.policy.closure import Closure, modifiers
from planc.policy.modifiers import Modifier, in_words
from planc.policy.order import Order, Ranking, whole
from planc.policy.ratio import Counts, Policy
from planc.policy.search import Prices, search

NAMES = {"macs": "MACs", "params": "parameters", "bytes": "bytes"}
_UNITS = {**NAMES, "latency": "ns"}


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that the pruned model may cost: an ``int`` is a figure, a ``float`` in (0, 1] a
    share of what the original costs. Of several, all are obeyed. The ``latency``, in nanoseconds,
    is what the ``table`` predicts (:func:`planc.measure_latency`).
    """

    macs: int | float | None = None
    params: int | float | None = None
    bytes: int | float | None = None
    latency: int | float | None = None
    table: Prediction | None = None

    def __str__(self) -> str:
        given = ((name, getattr(self, name)) for name in _UNITS)
        return ", ".join(
            f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
            for name, value in given
            if value is not None
        )

    @property
    def measured(self) -> tuple[str, ...]:
        """The measures of the cost model that are limited."""
        return tuple(name for name in NAMES if getattr(self, name) is not None)

    def limits(self, analysis: Analysis) -> dict[str, int]:
        """The figures for a model, by measure.

        Raises:
            PolicyError: one is not positive, or a share above 1; or there are none; a latency
                without a table, or one of another model.
        """
        kept = whole(analysis)
        full = asdict(analysis.cost.price(kept.tolist()))
        if self.latency is not None:
            if self.table is None:
                raise no_table()
            full["latency"] = self.table.prediction(analysis)(kept)
        return self.figures(full)

    def figures(self, full: Mapping[str, int]) -> dict[str, int]:
        """The figures for an original of that cost, by measure.

        Raises:
            PolicyError: one is not positive, or a share above 1; or there are none.
        """
        found = {
            name: _figure(name, value, full[name])
            for name in _UNITS
            if (value := getattr(self, name)) is not None
        }
        if not found:
            raise PolicyError("the budget is empty: give macs, params, bytes or latency")
        return found


def no_table() -> PolicyError:
    """The error of a latency budget without a table."""
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
    # exact where a float would not be; a share as people write it is not cut by its last bit
    return int(full * round(value * (1 << 60)) + (1 << 20) >> 60)


def within(
    analysis: Analysis, equations: Equations, scores: Scores, policy: Policy, budget: Budget
) -> Counts:
    """The counts that a policy leads to when it goes just far enough for a budget.

    Raises:
        InfeasibleBudget: it cannot go far enough; names the closest figure and what stops it.
        PolicyError: the policy does not rank units, or the budget is none.
    """
    limits = budget.limits(analysis)
    order = _ranking(policy).order(analysis, scores)
    closure = Closure(analysis, equations, tuple(m.raising(analysis) for m in modifiers(policy)))
    prices = _prices(analysis, budget, limits)
    last = closure(order.kept(len(order.groups)))
    if not prices.fit(last):
        raise _infeasible(analysis, equations, policy, limits, order, budget)
    return tuple(search(order, closure, prices).tolist())


def _ranking(policy: Policy) -> Ranking:
    inside: Policy | None = policy
    while inside is not None and not isinstance(inside, Ranking):
        inside = getattr(inside, "policy", None)
    if inside is None:
        raise PolicyError(
            f"a budget needs a policy that ranks units (Uniform, Global, Isomorphic, PerCost, or "
            f"one with a method `order`), and {policy} does not"
        )
    return inside


def _prices(analysis: Analysis, budget: Budget, limits: dict[str, int]) -> Prices:
    polys = [getattr(analysis.cost, name) for name in budget.measured]
    costs = Polynomials(polys, whole(analysis))
    figures = np.array([limits[name] for name in budget.measured], dtype=object)
    if budget.table is None or "latency" not in limits:
        return Prices(costs, figures)
    return Prices(costs, figures, budget.table.prediction(analysis), limits["latency"])


def _infeasible(
    analysis: Analysis,
    equations: Equations,
    policy: Policy,
    limits: dict[str, int],
    order: Order,
    budget: Budget,
) -> InfeasibleBudget:
    """The error that says how close one can come, and what would have to give way."""
    binding = [equations] if equations.constraints or equations.whole else []
    every: list[Modifier | Order | Equations] = [*modifiers(policy), order, *binding]

    def cost(kept: Kept) -> dict[str, int]:
        found = asdict(analysis.cost.price(kept.tolist()))
        if budget.table is not None:
            found["latency"] = budget.table.prediction(analysis)(kept)
        return found

    def reached(without: Sequence[object] = ()) -> dict[str, int]:
        stays = [m for m in modifiers(policy) if not any(m is wish for wish in without)]
        demands = Equations({}, (), {}, {}) if equations in without else equations
        closure = Closure(analysis, demands, tuple(m.raising(analysis) for m in stays))
        start = _all_but_whole(analysis) if order in without else order
        return cost(closure(start.kept(len(start.groups))))

    full, closest = cost(whole(analysis)), reached()
    missed = [name for name, limit in limits.items() if closest[name] > limit]
    said = "; ".join(
        f"{_UNITS[name]} at most {limits[name]:,}: the closest that can be reached is "
        f"{closest[name]:,} ({closest[name] / max(full[name], 1):.2%} of {full[name]:,})"
        for name in missed
    )
    stops = []
    for wishes in (*((wish,) for wish in every), tuple(every)):
        found = reached(wishes)
        if any(found[name] < closest[name] for name in missed):
            figures = ", ".join(f"{found[name]:,} {_UNITS[name]}" for name in missed)
            text = " together with ".join(_stop(wish) for wish in wishes)
            stops.append(f"{text} (without it {figures})")
        if stops and wishes[-1] is every[-1]:
            break  # all of them together are of interest only where none is by itself
    if not stops:
        stops = ["that every group has come down to its last unit, and the rest is pinned"]
    return InfeasibleBudget(f"{said}. What stops it: {'; '.join(stops)}. Give a larger budget")


def _all_but_whole(analysis: Analysis) -> Order:
    """An order in which every group can lose all units but one."""
    cells = whole(analysis)
    groups = np.repeat(np.arange(len(cells)), cells - 1)
    return Order(cells, groups, np.zeros(len(groups)))


def _stop(stop: Modifier | Order | Equations) -> str:
    """What stops a budget, in words."""
    if isinstance(stop, Order):
        return "what the policy leaves whole, as whole rows and ratios of their own"
    if isinstance(stop, Equations):
        reasons = [*(c.reason for c in stop.constraints), *stop.whole.values()]
        more = f" and {len(reasons) - 1} more" if len(reasons) > 1 else ""
        return f"what the model's code demands, as {reasons[0]}{more}"
    return in_words(stop)
