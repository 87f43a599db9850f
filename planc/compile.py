"""Compilation: trace, analyse, score and select in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from planc.analysis import analyze
from planc.criteria import Criterion, named, score
from planc.errors import PolicyError
from planc.plan import Plan
from planc.policy import Budget, Floor, Global, Keep, Only, Policy, Rounded, Uniform
from planc.policy.ratio import checked_ratio
from planc.select import Target, select
from planc.trace import trace


def compile(
    model: nn.Module,
    args: Any,
    kwargs: Mapping[str, Any] | None = None,
    *,
    ratio: float | None = None,
    macs: int | float | None = None,
    params: int | float | None = None,
    bytes: int | float | None = None,
    criterion: str | Criterion = "l2",
    policy: Policy | None = None,
    global_ranking: bool = False,
    round_to: int = 1,
    floor: int = 1,
    keep: Sequence[str] = (),
    only: Sequence[str] = (),
    kinds: Mapping[str, float] | None = None,
    seed: int = 0,
    target: Target = "module",
    strict: bool = False,
) -> Plan:
    """Compiles a model into a pruning plan. The model is neither run nor changed.

    Args:
        args, kwargs: example inputs; only their shapes and types matter.
        ratio: the share of units that every group loses, in [0, 1), rounded down; a half where
            neither it nor a budget is given. Whole rows that have cells inside (heads, convolution
            groups) go only if ``kinds`` says so.
        macs, params, bytes: budgets instead of a ratio, each a figure (an ``int``) or a share of
            what the original costs (a ``float`` up to 1): as much stays as they allow.
        criterion: "l2", "l1", "random", or a function (see :mod:`planc.criteria`).
        policy: instead of ``ratio``, ``global_ranking``, ``round_to``, ``floor``, ``keep``,
            ``only`` and ``kinds`` (see :mod:`planc.policy`).
        global_ranking: the share goes from all groups together, lowest scores first.
        round_to: dimensions that shrink keep a multiple of this many indices.
        floor: the least number of units a group keeps.
        keep: a pattern, or several, of groups, tensors or modules that stay whole (``"layer4.*"``).
        only: patterns of those that may shrink, all others stay.
        kinds: a ratio per kind of group, e.g. ``{"heads": 0.5}``.
        seed: for the random criterion; recorded in the plan.
        target: "module" keeps the class and obeys what its code computes itself; "graph" prunes
            the traced graph, whose constants can be rewritten.
        strict: an operator without a rule is an error.

    Raises:
        TraceError, AnalysisError, PolicyError: each names the object and what to do.
        InfeasibleBudget: a PolicyError; names the closest figure and what stops it.
    """
    budget = Budget(macs, params, bytes)
    limited = budget != Budget()
    if limited and ratio is not None:
        raise PolicyError(
            f"ratio={ratio!r} and a budget ({budget}): one says what the other is to find out; "
            "give one of them"
        )
    if ratio is not None:
        checked_ratio(ratio)
    scorer = named(criterion, seed) if isinstance(criterion, str) else criterion
    share = ratio if ratio is not None or limited else 0.5
    chosen = policy or _policy(share, global_ranking, round_to, floor, keep, only, kinds or {})
    analysis = analyze(trace(model, args, kwargs), strict)
    if limited:
        budget.limits(analysis)  # a budget that is none is refused before scores are computed
    scores = score(analysis, model, scorer)
    return select(analysis, scores, chosen, target, seed, budget if limited else None)


def _policy(
    ratio: float | None,
    global_ranking: bool,
    round_to: int,
    floor: int,
    keep: Sequence[str],
    only: Sequence[str],
    kinds: Mapping[str, float],
) -> Policy:
    keep, only = ((p,) if isinstance(p, str) else tuple(p) for p in (keep, only))
    pairs = tuple(sorted(kinds.items()))
    chosen: Policy = Global(ratio, pairs) if global_ranking else Uniform(ratio, pairs)
    if only:
        chosen = Only(chosen, only)
    if floor != 1:
        chosen = Floor(chosen, floor)
    if round_to != 1:
        chosen = Rounded(chosen, round_to)
    return Keep(chosen, keep) if keep else chosen
