"""Iterative pruning: a budget reached in steps, with the user's fine-tuning in between.

A :class:`Schedule` says how far each step goes; :func:`next_step` compiles the next one from the
model in hand. Its ``total`` is one plan in the original's indices: all that has to be kept between
steps, for what has been done can be read off it. Nothing here has a state of its own::

    schedule, done = planc.Schedule(macs=0.25, steps=4), None
    while step := planc.next_step(schedule, model, images, done):
        model, done = planc.apply(step.plan, model), step.total
        fine_tune(model)
        planc.save_plan(done, "pruned.planc")

After a crash, ``done = planc.load_plan("pruned.planc")`` and ``model = planc.apply(done,
original)`` give the structure of the last step, for the weights that were saved with it, and the
loop goes on. Where one file is to hold both, so that a crash cannot part them, it is
``planc.save("pruned.safetensors", model, done)``, and after a crash ``model =
planc.load("pruned.safetensors", original)``, ``done = planc.inspect("pruned.safetensors").plan``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from torch import nn

from planc.analysis import analyze
from planc.compile import compile
from planc.errors import PolicyError
from planc.modules.given import module
from planc.plan.arguments import a_plan, instance, optional, takes
from planc.plan.compose import compose
from planc.plan.latency import LatencyTable, Prediction
from planc.plan.plan import Cost, Plan
from planc.policy import Budget
from planc.policy.budget import NAMES, no_table
from planc.policy.latency.carried import Carried
from planc.policy.ratio import checked_count
from planc.trace import trace


@dataclass(frozen=True, slots=True)
class Schedule:
    """Budgets on the way to a last one, each of them as :class:`planc.policy.Budget` has it.

    Of ``steps`` steps, the "geometric" ``shape`` takes the same share of what is left with each,
    the "linear" one the same amount. The ``latency`` is that of the ``latency_table`` of the
    original, which serves for all steps.
    """

    macs: int | float | None = None
    params: int | float | None = None
    bytes: int | float | None = None
    latency: int | float | None = None
    latency_table: LatencyTable | None = None
    steps: int = 1
    shape: Literal["geometric", "linear"] = "geometric"

    def figures(self, cost: Cost, latency: int = 0) -> tuple[Mapping[str, int], ...]:
        """The most that each step may leave of an original of that ``cost``, by measure; its
        ``latency`` is in nanoseconds.

        Raises:
            PolicyError: the budget is none, or the number of steps, or the shape.
        """
        checked_count(self.steps, "steps", "4 steps, for example")
        if self.shape not in ("geometric", "linear"):
            raise PolicyError(f'shape {self.shape!r}: choose "geometric" or "linear"')
        full = asdict(cost) | {"latency": latency}
        last = Budget(self.macs, self.params, self.bytes, self.latency).figures(full)
        return tuple(
            {name: self._between(full[name], last[name], i) for name in last}
            for i in range(1, self.steps + 1)
        )

    def _between(self, full: int, last: int, step: int) -> int:
        if step == self.steps or last >= full:
            return last
        along = step / self.steps
        if self.shape == "linear":
            return round(full + (last - full) * along)
        return round(full * math.pow(last / full, along))


@dataclass(frozen=True, slots=True)
class Step:
    """One step: ``plan`` is for the model in hand, ``total`` for the original; step ``number`` of
    the schedule's.
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
    """The first step of a schedule that has not been taken, None after the last.

    Args:
        model: what ``done`` makes of the original, in its present weights; the original at first.
        done: the ``total`` of the step before.
        options: those of :func:`planc.compile`, but for ratio and budgets.

    Raises:
        StalePlan: ``model`` is not what ``done`` makes.
        InfeasibleBudget: the step cannot be taken; names the closest figure and what stops it.
        TraceError, AnalysisError, PolicyError: as :func:`planc.compile`.
    """
    for name in ("ratio", *NAMES, "latency", "latency_table"):
        if name in options:
            raise PolicyError(f"{name}={options[name]!r}: the schedule says how far a step goes")
    if schedule.latency is not None and schedule.latency_table is None:
        raise no_table()
    table: Prediction | None = schedule.latency_table if schedule.latency is not None else None
    if done is None:
        analysis = analyze(trace(model, args, kwargs))
        kept = [group.cells for group in analysis.groups]
        cost = analysis.cost.price(kept)
        left = asdict(cost)
        if table is not None:
            left["latency"] = table.prediction(analysis)(np.array(kept))
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
            return Step(plan, plan if done is None else compose(done, plan), number)
    return None
