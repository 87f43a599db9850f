"""Iterative pruning: a budget or a ratio reached in steps, with the user's fine-tuning in between.

A :class:`Schedule` sets the budget of each step; :func:`next_step` compiles the next step for the
current model. Its ``total`` is one plan in the original's indices, the only state to keep between
steps: the progress can be read off it::

    schedule, done = planc.Schedule(macs=0.25, steps=4), None
    while step := planc.next_step(schedule, model, images, done):
        model, done = planc.apply(step.plan, model), step.total
        fine_tune(model)
        planc.save_plan(done, "pruned.planc")

After a crash, ``done = planc.load_plan("pruned.planc")`` and ``model = planc.apply(done,
original)`` give the structure of the last step, ready for the weights saved with it, and the loop
continues. To keep both in one file, so that a crash cannot separate them, use
``planc.save("pruned.safetensors", model, done)``, and after a crash ``model =
planc.load("pruned.safetensors", original)``, ``done = planc.inspect("pruned.safetensors").plan``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

from torch import nn

from planc.analysis import analyze
from planc.compile import compile
from planc.compile.stages import by_ratio
from planc.errors import PolicyError
from planc.modules.given import module
from planc.plan.arguments import a_plan, instance, optional, takes
from planc.plan.compose import compose
from planc.plan.latency import LatencyTable, Prediction
from planc.plan.plan import Cost, Plan
from planc.policy import Budget
from planc.policy.budget import no_table
from planc.policy.latency.carried import Carried
from planc.policy.marginal import MEASURES
from planc.policy.order import whole
from planc.policy.ratio import checked_count, checked_ratio
from planc.trace import trace


@dataclass(frozen=True, slots=True)
class Schedule:
    """Intermediate budgets, or ratios, on the way to a final one.

    Args:
        ratio: the share of units removed by all steps together, instead of a budget.
        macs, params, bytes, latency: the final budget (:class:`planc.policy.Budget`).
        latency_table: the table of the original, used for all steps.
        steps: the number of steps.
        shape: "geometric" removes the same share of the remainder in each step, "linear" the same
            amount.
    """

    macs: int | float | None = None
    params: int | float | None = None
    bytes: int | float | None = None
    latency: int | float | None = None
    latency_table: LatencyTable | None = None
    steps: int = 1
    shape: Literal["geometric", "linear"] = "geometric"
    ratio: float | None = None

    def figures(self, cost: Cost, latency: int = 0) -> tuple[Mapping[str, int], ...]:
        """The limits of each step for an original of cost ``cost``, by measure; ``latency`` is the
        original's, in nanoseconds.

        Raises:
            PolicyError: the budget, the number of steps or the shape is invalid.
        """
        self._check()
        full = asdict(cost) | {"latency": latency}
        last = Budget(self.macs, self.params, self.bytes, self.latency).figures(full)
        return tuple(
            {name: self._between(full[name], last[name], i) for name in last}
            for i in range(1, self.steps + 1)
        )

    def share(self, step: int, ratio: float) -> float:
        """The share removed after ``step`` steps on the way to ``ratio``.

        Raises:
            PolicyError: the ratio, the number of steps or the shape is invalid, or there is a
                budget as well.
        """
        self._check()
        checked_ratio(ratio)
        given = [name for name in (*MEASURES, "latency") if getattr(self, name) is not None]
        if given:
            raise PolicyError(f"ratio={ratio!r} and {given[0]}: a schedule has one of them")
        if step == self.steps:
            return ratio
        along = step / self.steps
        return ratio * along if self.shape == "linear" else 1 - math.pow(1 - ratio, along)

    def _check(self) -> None:
        checked_count(self.steps, "steps", "4 steps, for example")
        if self.shape not in ("geometric", "linear"):
            raise PolicyError(f'shape {self.shape!r}: choose "geometric" or "linear"')

    def _between(self, full: int, last: int, step: int) -> int:
        if step == self.steps or last >= full:
            return last
        along = step / self.steps
        if self.shape == "linear":
            return round(full + (last - full) * along)
        return round(full * math.pow(last / full, along))


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a schedule: ``plan`` is for the current model, ``total`` for the original,
    ``number`` its place in the schedule, from 1.
    """

    plan: Plan
    total: Plan
    number: int


@takes(
    schedule=instance(
        "a planc.Schedule", Schedule, advice="give planc.Schedule(macs=0.5, steps=3), for example"
    ),
    model=module,
    done=optional(a_plan),
)
def next_step(
    schedule: Schedule,
    model: nn.Module,
    args: Any = None,
    done: Plan | None = None,
    kwargs: Mapping[str, Any] | None = None,
    **options: Any,
) -> Step | None:
    """The first step of a schedule not yet taken, None after the last.

    Args:
        schedule: the budgets of all steps. Of a schedule by ratio, each plan in the provenance of
            ``done`` is a step.
        model: the original at first, then the model pruned by ``done``, with its current weights.
        args, kwargs: example inputs, as for :func:`planc.compile`.
        done: the ``total`` of the previous step.
        options: those of :func:`planc.compile`, except ratio and budgets.

    Raises:
        StalePlan: ``model`` is not the result of ``done``.
        InfeasibleBudget: the step is impossible; names the closest figure and the obstacle.
        TraceError, AnalysisError, PolicyError: as in :func:`planc.compile`.
    """
    for name in ("ratio", *MEASURES, "latency", "latency_table"):
        if name in options:
            raise PolicyError(f"{name}={options[name]!r}: the schedule says how far a step goes")
    if schedule.ratio is not None:
        number = 1 if done is None else len(done.provenance) + 1
        if number > schedule.steps:
            return None
        options = by_ratio(schedule.ratio, partial(schedule.share, number), done, options)
        return _step(compile(model, args, kwargs, **options), done, number)
    if schedule.latency is not None and schedule.latency_table is None:
        raise no_table()
    table: Prediction | None = schedule.latency_table if schedule.latency is not None else None
    if done is None:
        analysis = analyze(trace(model, args, kwargs))
        kept = whole(analysis)
        cost = analysis.cost.price(kept.tolist())
        left = asdict(cost)
        if table is not None:
            left["latency"] = table.prediction(analysis)(kept)
        latency = left.get("latency", 0)
    else:
        cost, left, latency = done.cost_before, asdict(done.cost_after), 0
        if schedule.latency_table is not None and table is not None:
            table = Carried(schedule.latency_table, done)
            left["latency"], latency = table.after, table.before
    for number, figures in enumerate(schedule.figures(cost, latency), 1):
        if any(left[name] > figure for name, figure in figures.items()):
            budget = {**figures, "latency_table": table} if table is not None else figures
            plan = compile(model, args, kwargs, **{**options, **budget})
            return _step(plan, done, number)
    return None


def _step(plan: Plan, done: Plan | None, number: int) -> Step:
    return Step(plan, plan if done is None else compose(done, plan), number)
