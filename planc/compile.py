"""Compilation: trace, analyse, score and select in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from planc.analysis import analyze
from planc.criteria import Criterion, named, score
from planc.plan import Plan
from planc.policy import Floor, Global, Keep, Only, Policy, Rounded, Uniform
from planc.policy.ratio import checked_ratio
from planc.select import Target, select
from planc.trace import trace
from planc.trace.given import as_module, example_inputs


def compile(
    model: nn.Module | torch.export.ExportedProgram,
    args: Any = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    ratio: float = 0.5,
    criterion: str | Criterion = "l2",
    policy: Policy | None = None,
    global_ranking: bool = False,
    round_to: int = 1,
    floor: int = 1,
    keep: Sequence[str] = (),
    only: Sequence[str] = (),
    kinds: Mapping[str, float] | None = None,
    seed: int = 0,
    target: Target | None = None,
    strict: bool = False,
) -> Plan:
    """Compiles a model into a pruning plan. The model is neither run nor changed.

    Args:
        model: an ``nn.Module``, or an exported program, which stands for its ``.module()``.
        args, kwargs: example inputs; only their shapes and types matter. An exported program has
            its own.
        ratio: the share of units that every group loses, in [0, 1), rounded down. Whole rows that
            have cells inside (heads, convolution groups) go only if ``kinds`` says so.
        criterion: "l2", "l1", "random", or a function (see :mod:`planc.criteria`).
        policy: instead of ``ratio``, ``global_ranking`` and ``kinds`` (see :mod:`planc.policy`).
        global_ranking: the share goes from all groups together, lowest scores first.
        round_to: dimensions that shrink keep a multiple of this many indices.
        floor: the least number of units a group keeps.
        keep: a pattern, or several, of groups, tensors or modules that stay whole (``"layer4.*"``).
        only: patterns of those that may shrink, all others stay.
        kinds: a ratio per kind of group, e.g. ``{"heads": 0.5}``.
        seed: for the random criterion; recorded in the plan.
        target: "module" keeps the class and obeys what its code computes itself; "graph" prunes
            the traced graph, whose constants can be rewritten. By default "module", and "graph"
            for an exported program, whose code holds its sizes as literals.
        strict: an operator without a rule is an error.

    Raises:
        TraceError, AnalysisError, PolicyError: each names the object and what to do.
    """
    checked_ratio(ratio)
    scorer = named(criterion, seed) if isinstance(criterion, str) else criterion
    chosen = policy or _policy(ratio, global_ranking, round_to, floor, keep, only, kinds or {})
    if target is None:
        target = "graph" if isinstance(model, torch.export.ExportedProgram) else "module"
    if args is None and isinstance(model, torch.export.ExportedProgram):
        args, kwargs = example_inputs(model)
    model = as_module(model)
    analysis = analyze(trace(model, args, kwargs), strict)
    return select(analysis, score(analysis, model, scorer), chosen, target, seed)


def _policy(
    ratio: float,
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
