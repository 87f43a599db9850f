"""Obstacles: the explanation of an infeasible budget.

An obstacle is a modifier of the policy, the groups its order keeps whole, or the model's
constraints. It is named if the policy comes closer to the budget without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from planc.analysis import Analysis
from planc.analysis.arrays import Kept
from planc.analysis.equations import Equations
from planc.errors import InfeasibleBudget
from planc.policy.closure import EXPLAIN, Closure, modifiers
from planc.policy.modifiers import Modifier, in_words
from planc.policy.order import Order, whole
from planc.policy.ratio import Policy

UNITS = {"macs": "MACs", "params": "parameters", "bytes": "bytes", "latency": "ns"}
"""The units of all measures, in words."""

Obstacle = Modifier | Order | Equations
Price = Callable[[Kept], Mapping[str, int]]
"""The cost of counts, by measure."""


def infeasible(
    analysis: Analysis,
    equations: Equations,
    policy: Policy,
    order: Order,
    limits: Mapping[str, int],
    price: Price,
) -> InfeasibleBudget:
    """The error naming the closest reachable figures and the obstacles."""
    attempt = _Attempt(analysis, equations, policy, order, price)
    full, closest = price(whole(analysis)), attempt.closest()
    missed = [name for name, limit in limits.items() if closest[name] > limit]
    said = "; ".join(
        f"{UNITS[name]} at most {limits[name]:,}: the closest that can be reached is "
        f"{closest[name]:,} ({closest[name] / max(full[name], 1):.2%} of {full[name]:,})"
        for name in missed
    )

    def stop(*obstacles: Obstacle) -> str:
        """The obstacles in words, empty if the budget is no closer without them."""
        found = attempt.closest(obstacles)
        if not any(found[name] < closest[name] for name in missed):
            return ""
        text = " together with ".join(map(_words, obstacles))
        figures = ", ".join(f"{found[name]:,} {UNITS[name]}" for name in missed)
        return f"{text} (without it {figures})"

    stops = "; ".join(filter(None, map(stop, attempt.obstacles))) or stop(*attempt.obstacles)
    stops = stops or (
        "that every group has come down to its last unit, and the rest is pinned"
        if analysis.groups
        else f"that nothing can be removed; {EXPLAIN}"
    )
    return InfeasibleBudget(f"{said}. What stops it: {stops}. {_advice(limits, missed, full)}")


def _advice(limits: Mapping[str, int], missed: Sequence[str], full: Mapping[str, int]) -> str:
    """The next thing to do. A small whole number is a figure, and was possibly meant as a share."""
    for name in missed:
        if (figure := limits[name]) <= 100 < full[name]:
            share = f"{name}={figure / 100:g}" if figure > 1 else f"{name}=1.0"
            percent = f"{figure}%" if figure > 1 else "100%"
            unit = UNITS[name][: None if figure > 1 else -1] if name != "latency" else "ns"
            return (
                f"{name}={figure} is a figure of {figure} {unit}: for a share give {share} "
                f"(--{name} {percent})"
            )
    return "Give a larger budget"


@dataclass(frozen=True, eq=False)
class _Attempt:
    """A policy followed to the end of its order."""

    analysis: Analysis
    equations: Equations
    policy: Policy
    order: Order
    price: Price

    @property
    def obstacles(self) -> list[Obstacle]:
        binding = bool(self.equations.constraints or self.equations.whole)
        return [*modifiers(self.policy), self.order, *[self.equations] * binding]

    def closest(self, without: Sequence[Obstacle] = ()) -> Mapping[str, int]:
        """The lowest cost, with some obstacles removed."""
        removed = {id(obstacle) for obstacle in without}
        stays = [m for m in modifiers(self.policy) if id(m) not in removed]
        free = id(self.equations) in removed
        equations = Equations({}, (), {}, {}) if free else self.equations
        closure = Closure(self.analysis, equations, tuple(m.raising(self.analysis) for m in stays))
        order = _all_but_whole(self.analysis) if id(self.order) in removed else self.order
        return self.price(closure(order.kept(len(order.groups))))


def _all_but_whole(analysis: Analysis) -> Order:
    """An order able to remove all units but one of every group."""
    cells = whole(analysis)
    groups = np.repeat(np.arange(len(cells)), cells - 1)
    return Order(cells, groups, np.zeros(len(groups)))


def _words(obstacle: Obstacle) -> str:
    if isinstance(obstacle, Order):
        return "what the policy leaves whole, as whole rows and ratios of their own"
    if isinstance(obstacle, Equations):
        reasons = [*(c.reason for c in obstacle.constraints), *obstacle.whole.values()]
        more = f" and {len(reasons) - 1} more" if len(reasons) > 1 else ""
        return f"what the model's code demands, as {reasons[0]}{more}"
    return in_words(obstacle)
