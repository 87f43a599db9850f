"""Compilation: trace, analyse, score and select in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch
from torch import nn

from planc.analysis import Analysis, analyze
from planc.analysis.equations import Equations
from planc.analysis.outputs import free_names, shrinking_names, with_free_outputs
from planc.compile.depth import (
    BlockRequest,
    inner_options,
    joined_plan,
    narrowed,
    requested,
    without_blocks,
)
from planc.compile.loading import Request, loadable_plan
from planc.compile.select import Target, select
from planc.criteria import Criterion, Statistics, Weights, named, score
from planc.errors import PolicyError
from planc.ir.graph import Graph
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
from planc.plan.review.summary import with_latency
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
from planc.policy.decisions import decided
from planc.policy.latency.machine import check_machine
from planc.policy.patterns import chosen, kept, matching
from planc.policy.ratio import checked_ratio
from planc.trace import trace

RankingName = Literal["uniform", "global", "isomorphic", "per_cost"]
_RANKINGS = {
    "uniform": Uniform,
    "global": Global,
    "isomorphic": Isomorphic,
    "per_cost": PerCost,
}
_NUMBERS = ("ratio", "macs", "params", "bytes", "latency", "round_to", "floor", "cap", "seed")


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
    remove=optional(a_mapping),
    keep_units=optional(a_mapping),
    outputs=optional(some_patterns),
    free_outputs=some_patterns,
    target=optional(options("module", "graph", error=PolicyError)),
    ranking=a_text,
    global_ranking=a_flag,
    equal=a_flag,
    strict=a_flag,
    scores=a_flag,
    loadable=optional(a_flag),
    **dict.fromkeys(_NUMBERS, no_array),
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
    remove: Mapping[str, Sequence[int]] | None = None,
    keep_units: Mapping[str, Sequence[int]] | None = None,
    outputs: str | Sequence[str] | None = None,
    free_outputs: str | Sequence[str] = (),
    seed: int = 0,
    target: Target | None = None,
    strict: bool = False,
    scores: bool = False,
    loadable: bool | None = None,
) -> Plan:
    """Compile a model into a pruning plan. The model is neither run nor changed.

    Args:
        model: an ``nn.Module``, or an exported program, equivalent to its ``.module()``.
        args, kwargs: example inputs; only their shapes and types matter. An exported program brings
            its own.
        ratio: the share of units to remove, in [0, 1), rounded down; a half without a ratio and a
            budget. Whole rows with cells inside (heads, convolution groups) are removed only on
            request by ``kinds`` or ``rows``.
        macs, params, bytes: budgets instead of a ratio, each a figure (an ``int``) or a share of
            the original's cost (a ``float`` up to 1): as much is kept as all of them allow.
        latency: a further budget, in nanoseconds or as a share, by ``latency_table``.
        latency_table: the table of the model (:func:`planc.measure_latency`); the plan records the
            latency before and after.
        machine: the machine the table was measured on, if the plan is made on another.
        criterion: a name ("l2", "l1", "random", "taylor", ...) or a function (see
            :mod:`planc.criteria`).
        statistics: the result of :func:`planc.calibrate`, for criteria in need of it.
        weights: tensors to score, by name, instead of the model's own, possibly on the meta device;
            :class:`planc.StoredWeights` reads them from files one by one.
        policy: replaces all options from ``ranking`` to ``ratios`` (see :mod:`planc.policy`).
        ranking: "uniform", every group loses the share; "global", all groups together do;
            "isomorphic", similar groups do; "per_cost", by score per unit of the first budget's
            measure, by default MACs.
        global_ranking: the same as ``ranking="global"``.
        round_to: shrinking dimensions keep a multiple of this many indices.
        floor: the least number of units kept by a group.
        cap: the largest share of its units removed from a group.
        equal: similar groups keep equally many units, as one number in a configuration requires.
        keep: a pattern, or several, of parts or groups to keep whole (``"layer4.*"``): their
            outputs, and their inputs on request (``"fc:in"``); see :mod:`planc.policy.patterns`.
        only: patterns of the parts or groups allowed to shrink; all others stay whole.
        kinds: a ratio for each kind of group, e.g. ``{"heads": 0.5}``. Under grouped-query
            attention "heads" are keys and values with their queries, "query_heads" the queries of
            each. "blocks" are the residual blocks of each ``ModuleList`` or ``Sequential``; those
            of the smallest norm are removed. Blocks alone leave all widths as they are.
        rows: kinds of whole rows under the common ratio or budget, e.g. ``["heads"]``.
        ratios: ratios for parts of the model by patterns, e.g. ``{"layer1.*": 0.2}``.
        remove: units to remove whatever their scores, by a layer, tensor, dimension or group and
            indices there, e.g. ``{"conv1": [2, 6, 9]}``. Without a ratio and a budget, nothing else
            is removed. A list of blocks, by its path or a pattern of paths, loses the blocks at
            these positions: ``{"model.layers": [5, 6]}``.
        keep_units: units to keep whatever their scores, in the same way.
        outputs: names of the results that keep their size (``"logits"``, ``"0"``); all others
            (hidden states, caches) may shrink, and the plan lists those that do.
        free_outputs: names of the results that may shrink, for an encoder whose consumer is cut
            along; ``""`` for a result that is one tensor.
        seed: for the random criterion; recorded in the plan.
        target: "module" keeps the class and obeys the sizes its code computes; "graph" prunes the
            traced graph with its constants rewritten. By default "module", and "graph" for an
            exported program, because its code holds sizes as literals.
        strict: raise an error for an operator without a rule.
        scores: write the scores of all units into the plan, for review; four bytes each.
        loadable: remove only what the model's configuration can say, so that plain
            ``from_pretrained`` loads the result: equal widths in all layers where the configuration
            has one number, heads as a whole where their width is fixed. True raises an error where
            the request cannot be met. By default a model with ``save_pretrained`` gets such a plan
            unless the request rules it out; a warning then names the obstacle.

    Returns:
        The plan, for :func:`planc.apply`, :func:`planc.save_plan` and :func:`planc.verify`.

    Raises:
        TraceError, AnalysisError, PolicyError: each names the object and the remedy.
        InfeasibleBudget: a PolicyError; names the closest figure and the obstacle.
    """
    given = dict(locals())
    blocks = requested(as_module(model), kinds or {}, remove or {}, keep, criterion, seed)
    graph: Graph | None = None
    if blocks is not None:
        graph = trace(as_module(model), args, kwargs)
        of_lists = narrowed(blocks, graph)
        if of_lists is not None:
            return _without_blocks(of_lists, given, graph)
    budget = Budget(macs, params, bytes, latency, latency_table)
    limited = budget != Budget(table=latency_table)
    if latency_table is not None:
        check_machine(latency_table, machine)
    elif machine is not None and latency_table is None:
        raise PolicyError(
            f"machine={machine!r} is given, but no latency_table: give the table measured there"
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
    default = 0.0 if remove else 0.5
    options = _Options(
        ratio=ratio if ratio is not None or limited or policy is not None else default,
        ranking="global" if global_ranking else ranking,
        round_to=round_to,
        floor=floor,
        cap=cap,
        equal=equal,
        keep=tuple(keep),
        only=tuple(only),
        kinds=tuple(sorted((kinds or {}).items())),
        rows=tuple(rows),
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
    measure = next(iter(budget.measured), "macs")
    chosen = policy or options.policy(measure)
    graph = graph or trace(model, args, kwargs)
    free = free_names(graph, outputs, free_outputs)

    wished = {**(remove or {}), **(keep_units or {})}
    widths = "" if limited or policy is not None or wished else options.of_each_layer
    if loadable and target == "graph":
        raise PolicyError('loadable=True: a graph has no configuration; choose target "module"')
    asked = False if target == "graph" else loadable
    request = Request(asked, widths, options.named)

    def compiled(free: frozenset[str]) -> Plan:
        analysis = analyze(with_free_outputs(graph, free) if free else graph, strict)
        options.check(analysis)
        if limited:
            budget.limits(analysis)  # refuse an invalid budget before computing scores
        found = score(analysis, model if weights is None else weights, scorer, statistics)
        chosen_units = remove or {}, keep_units or {}
        decisions = decided(analysis, *chosen_units) if any(chosen_units) else None
        limit = budget if limited else None

        def choose(equations: Equations | None, rows: Sequence[str]) -> Plan:
            wanted = chosen if policy else options.with_rows(rows).policy(measure)
            given = (analysis, found, wanted, target, seed, limit, decisions)
            return select(*given, keep_scores=scores, equations=equations)

        plan = loadable_plan(analysis, choose, request)
        if limited or latency_table is None:
            return plan
        return with_latency(plan, latency_table.prediction(analysis), latency_table.machine)

    while True:  # a plan lists the outputs that shrink, and is made for these alone
        plan = compiled(free)
        shrink = shrinking_names(graph, plan.outputs)
        if shrink == free:
            return plan
        free = shrink


def _without_blocks(request: BlockRequest, given: dict[str, Any], graph: Graph) -> Plan:
    """The plan of :func:`compile` with the arguments ``given``: first blocks, then the widths of
    the shallower model.
    """
    model, args, kwargs = as_module(given["model"]), given["args"], given["kwargs"]
    if given["target"] == "graph" or isinstance(given["model"], torch.export.ExportedProgram):
        raise PolicyError('blocks: a graph has none; give the module, with target="module"')
    if given["latency"] is not None or given["statistics"] is not None:
        raise PolicyError(
            "blocks and a budget of latency or statistics: both belong to the whole model; compile "
            "the blocks alone, then the widths of the pruned model, and planc.compose the two"
        )
    shallow = without_blocks(request, model, args, kwargs, graph, given["weights"])
    analysis = analyze(graph)
    options = inner_options(request, shallow, analysis, given)
    weights = model if given["weights"] is None else given["weights"]
    inner = compile(shallow.model, args, kwargs, **options)
    return joined_plan(shallow, inner, analysis, str(request), weights)


@dataclass(frozen=True, slots=True)
class _Options:
    """The keyword options of :func:`compile` for building a policy."""

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
        """Raise PolicyError for options given beside a policy."""
        default = _Options()
        said = [f.name for f in fields(self) if getattr(self, f.name) != getattr(default, f.name)]
        if said:
            raise PolicyError(
                f"policy {policy} and {', '.join(said)}: a policy says all that these would; "
                "compose them into it (planc.policy)"
            )

    @property
    def of_each_layer(self) -> str:
        """The option that asks for widths of its own in each layer; empty for none."""
        alike = self.ranking == "uniform" or self.equal
        return "" if alike else f"ranking={self.ranking!r}"

    def named(self, analysis: Analysis) -> frozenset[int]:
        """The groups named to shrink, by kinds, ratios or only."""
        kinds = {kind for kind, ratio in self.kinds if ratio} | {*self.rows}
        of_kind = {g for g, group in enumerate(analysis.groups) if group.kind in kinds}
        scopes = [matching(analysis, pattern) for pattern, ratio in self.ratios if ratio]
        whole = kept(analysis, self.keep)
        return frozenset(of_kind).union(chosen(analysis, self.only), *scopes) - whole

    def with_rows(self, kinds: Sequence[str]) -> _Options:
        """The options with further kinds of whole rows to remove."""
        own = {kind for kind, _ in self.kinds} | {*self.rows}
        return replace(self, rows=(*self.rows, *(kind for kind in kinds if kind not in own)))

    def check(self, analysis: Analysis) -> None:
        """Raise PolicyError if ``keep`` covers all groups of ``only``."""
        allowed, whole = chosen(analysis, self.only), kept(analysis, self.keep)
        if allowed and allowed <= whole:
            raise PolicyError(
                f"keep={list(self.keep)} leaves whole all that only={list(self.only)} lets shrink, "
                f"{analysis.groups[min(allowed)]} among them: leave one of the two out"
            )

    def policy(self, of: str) -> Policy:
        """The policy composed from the options; ``of`` is the cost measure of "per_cost"."""
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
