"""Compilation: trace, analyse, score and select in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch
from torch import nn

from planc.analysis import Analysis, analyze
from planc.compile.select import Target, select
from planc.criteria import Criterion, Statistics, Weights, named, score
from planc.errors import PolicyError
from planc.modules.given import as_module, example_inputs
from planc.plan.arguments import (
    a_flag,
    a_mapping,
    a_text,
    function_of,
    instance,
    no_array,
    optional,
    options,
    some_patterns,
    takes,
)
from planc.plan.latency import Prediction
from planc.plan.plan import Plan
from planc.policy import (
    Budget,
    Capped,
    Equal,
    Floor,
    Global,
    Isomorphic,
    Keep,
    Only,
    PerCost,
    Policy,
    Ratios,
    Rounded,
    Uniform,
)
from planc.policy.latency.machine import check_machine
from planc.policy.patterns import matching
from planc.policy.ratio import checked_ratio
from planc.trace import trace

RankingName = Literal["uniform", "global", "isomorphic", "per_cost"]
_RANKINGS = {
    "uniform": Uniform,
    "global": Global,
    "isomorphic": Isomorphic,
    "per_cost": PerCost,
}


@takes(
    machine=optional(a_text),
    statistics=optional(
        instance("Statistics", Statistics, advice="give what planc.calibrate returns")
    ),
    weights=optional(a_mapping),
    policy=optional(function_of("analysis", "scores")),
    keep=some_patterns,
    only=some_patterns,
    kinds=optional(a_mapping),
    rows=some_patterns,
    ratios=optional(a_mapping),
    target=optional(options("module", "graph", error=PolicyError)),
    ratio=no_array,
    macs=no_array,
    params=no_array,
    bytes=no_array,
    latency=no_array,
    round_to=no_array,
    floor=no_array,
    cap=no_array,
    seed=no_array,
    ranking=a_text,
    global_ranking=a_flag,
    equal=a_flag,
    strict=a_flag,
)
def compile(
    model: nn.Module | torch.export.ExportedProgram,
    args: Any = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    ratio: float | None = None,
    macs: int | float | None = None,
    params: int | float | None = None,
    bytes: int | float | None = None,
    latency: int | float | None = None,
    latency_table: Prediction | None = None,
    machine: str | None = None,
    criterion: str | Criterion = "l2",
    statistics: Statistics | None = None,
    weights: Weights | None = None,
    policy: Policy | None = None,
    ranking: RankingName = "uniform",
    global_ranking: bool = False,
    round_to: int = 1,
    floor: int = 1,
    cap: float | None = None,
    equal: bool = False,
    keep: str | Sequence[str] = (),
    only: str | Sequence[str] = (),
    kinds: Mapping[str, float] | None = None,
    rows: str | Sequence[str] = (),
    ratios: Mapping[str, float] | None = None,
    seed: int = 0,
    target: Target | None = None,
    strict: bool = False,
) -> Plan:
    """Compiles a model into a pruning plan. The model is neither run nor changed.

    Args:
        model: an ``nn.Module``, or an exported program, which stands for its ``.module()``.
        args, kwargs: example inputs; only their shapes and types matter. An exported program has
            its own.
        ratio: the share of units that go, in [0, 1), rounded down; a half where neither it nor a
            budget is given. Whole rows that have cells inside (heads, convolution groups) go only
            if ``kinds`` or ``rows`` says so.
        macs, params, bytes: budgets instead of a ratio, each a figure (an ``int``) or a share of
            what the original costs (a ``float`` up to 1): as much stays as all of them allow.
        latency: one more, in nanoseconds or as a share, by ``latency_table``
            (:func:`planc.measure_latency`).
        machine: the one that the table was measured on, where the plan is made on another.
        criterion: a name ("l2", "l1", "random", "taylor", ...) or a function (see
            :mod:`planc.criteria`).
        statistics: what :func:`planc.calibrate` collected, for criteria that need it.
        weights: what is scored instead of the model's own tensors, which may then be on the meta
            device: by name, as :class:`planc.StoredWeights` reads them from files one by one.
        policy: instead of all options from ``ranking`` to ``ratios`` (see :mod:`planc.policy`).
        ranking: "uniform", every group loses the share; "global", all groups together do;
            "isomorphic", groups alike do; "per_cost", by score per unit of what the first budget
            limits, of MACs without one.
        global_ranking: the same as ``ranking="global"``.
        round_to: dimensions that shrink keep a multiple of this many indices.
        floor: the least number of units a group keeps.
        cap: the largest share of its units that a group loses.
        equal: groups alike keep equally many units, as one number in a configuration says.
        keep: a pattern, or several, of groups, tensors or modules that stay whole (``"layer4.*"``).
        only: patterns of those that may shrink, all others stay.
        kinds: a ratio per kind of group, e.g. ``{"heads": 0.5}``.
        rows: kinds of whole rows that go by the common ratio or budget, e.g. ``["heads"]``.
        ratios: ratios for parts of the model by the names of groups, e.g. ``{"layer1.*": 0.2}``.
        seed: for the random criterion; recorded in the plan.
        target: "module" keeps the class and obeys what its code computes itself; "graph" prunes
            the traced graph, whose constants can be rewritten. By default "module", and "graph"
            for an exported program, whose code holds its sizes as literals.
        strict: an operator without a rule is an error.

    Raises:
        TraceError, AnalysisError, PolicyError: each names the object and what to do.
        InfeasibleBudget: a PolicyError; names the closest figure and what stops it.
    """
    budget = Budget(macs, params, bytes, latency, latency_table)
    limited = budget != Budget(table=latency_table)
    if latency is not None and latency_table is not None:
        check_machine(latency_table, machine)
    elif latency_table is not None or machine is not None:
        raise PolicyError(
            f"{'machine' if latency_table is None else 'latency_table'} is given, but no latency "
            "that it bounds: say how much of it may stay, as latency=0.5"
        )
    if limited and ratio is not None:
        raise PolicyError(
            f"ratio={ratio!r} and a budget ({budget}): one says what the other is to find out; "
            "give one of them"
        )
    if global_ranking and ranking not in ("uniform", "global"):
        raise PolicyError(
            f"global_ranking=True and ranking={ranking!r}: the first says ranking='global'; give "
            "one of them"
        )
    options = _Options(
        ratio=ratio if ratio is not None or limited or policy is not None else 0.5,
        ranking="global" if global_ranking else ranking,
        round_to=round_to,
        floor=floor,
        cap=cap,
        equal=equal,
        keep=_several(keep),
        only=_several(only),
        kinds=tuple(sorted((kinds or {}).items())),
        rows=_several(rows),
        ratios=tuple((ratios or {}).items()),
    )
    if policy is not None:
        options.refuse(policy)
    scorer = named(criterion, seed)
    if target is None:
        target = "graph" if isinstance(model, torch.export.ExportedProgram) else "module"
    if args is None and not kwargs and isinstance(model, torch.export.ExportedProgram):
        args, kwargs = example_inputs(model)
    model = as_module(model)
    chosen = policy or options.policy(next(iter(budget.measured), "macs"))
    analysis = analyze(trace(model, args, kwargs), strict)
    options.check(analysis)
    if limited:
        budget.limits(analysis)  # a budget that is none is refused before scores are computed
    scores = score(analysis, model if weights is None else weights, scorer, statistics)
    return select(analysis, scores, chosen, target, seed, budget if limited else None)


@dataclass(frozen=True, slots=True)
class _Options:
    """What can be said of a policy without composing one."""

    ratio: float | None = None
    ranking: str = "uniform"
    round_to: int = 1
    floor: int = 1
    cap: float | None = None
    equal: bool = False
    keep: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    kinds: tuple[tuple[str, float], ...] = ()
    rows: tuple[str, ...] = ()
    ratios: tuple[tuple[str, float], ...] = ()

    def refuse(self, policy: Policy) -> None:
        """Raises PolicyError if anything is said beside a policy."""
        default = _Options()
        said = [f.name for f in fields(self) if getattr(self, f.name) != getattr(default, f.name)]
        if said:
            raise PolicyError(
                f"policy {policy} and {', '.join(said)}: a policy says all that these would; "
                "compose them into it (planc.policy)"
            )

    def check(self, analysis: Analysis) -> None:
        """Raises PolicyError if what may shrink by ``only`` is what ``keep`` leaves whole."""
        allowed, whole = (
            {g for pattern in patterns for g in matching(analysis.groups, pattern)}
            for patterns in (self.only, self.keep)
        )
        if allowed and allowed <= whole:
            raise PolicyError(
                f"keep={list(self.keep)} leaves whole all that only={list(self.only)} lets shrink, "
                f"{analysis.groups[min(allowed)]} among them: leave one of the two out"
            )

    def policy(self, of: str) -> Policy:
        """The policy that the options compose; ``of`` is what scores are divided by."""
        if self.ranking not in _RANKINGS:
            raise PolicyError(
                f"unknown ranking {self.ranking!r}: choose one of {', '.join(_RANKINGS)}"
            )
        if self.ratio is not None:
            checked_ratio(self.ratio)
        chosen: Policy = _RANKINGS[self.ranking](self.ratio, kinds=self.kinds, rows=self.rows)
        if isinstance(chosen, PerCost):
            chosen = replace(chosen, of=of)
        if self.ratios:
            chosen = Ratios(chosen, self.ratios)
        if self.only:
            chosen = Only(chosen, self.only)
        if self.floor != 1:
            chosen = Floor(chosen, self.floor)
        if self.cap is not None:
            chosen = Capped(chosen, self.cap)
        if self.round_to != 1:
            chosen = Rounded(chosen, self.round_to)
        if self.equal:
            chosen = Equal(chosen)
        return Keep(chosen, self.keep) if self.keep else chosen


def _several(patterns: str | Sequence[str]) -> tuple[str, ...]:
    return (patterns,) if isinstance(patterns, str) else tuple(patterns)
