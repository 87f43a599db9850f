"""Loading: plans whose result plain ``from_pretrained`` takes, where the request allows one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from planc.analysis import Analysis
from planc.analysis.equations import Equations
from planc.compile.configuration import Pruned, constructions, obstacle, short
from planc.compile.loadable import Limits, limits
from planc.errors import PlancWarning, PolicyError
from planc.plan import fingerprint
from planc.plan.plan import Plan

Choose = Callable[[Equations | None, Sequence[str]], Plan]
"""Selects by equations, the model's own by default, with further kinds of whole rows."""

_WARNING = (
    "the result of this plan has no configuration, and from_pretrained cannot load it: {}; compile "
    "with loadable=True to learn what can be removed, or save and load the result by planc (then "
    "loadable=False is without this warning)"
)


@dataclass(frozen=True, slots=True)
class Request:
    """A request for a loadable plan.

    Attributes:
        loadable: True raises an error where none can be; None warns, and False asks for none.
        widths: the option that asks for widths of its own in each layer; empty for none.
        named: groups that a user names to shrink.
    """

    loadable: bool | None
    widths: str = ""
    named: Callable[[Analysis], frozenset[int]] = lambda _: frozenset()


def loadable_plan(analysis: Analysis, choose: Choose, request: Request) -> Plan:
    """The plan chosen, under the limits of the model's configurations if it needs any.

    Raises:
        PolicyError: a loadable plan is asked for and cannot be; names the obstacle.

    Warns:
        PlancWarning: one is not asked for, and the plan chosen is not loadable.
    """
    graph = analysis.graph
    if request.loadable is False or not (
        request.loadable or any(construction.loads for construction in graph.constructions)
    ):
        return choose(None, ())
    if next(constructions(graph), None) is None:
        if request.loadable:
            raise PolicyError(
                "loadable=True: the model has no configuration from which its class makes it anew; "
                "leave loadable out"
            )
        return choose(None, ())
    if request.loadable:
        return _limited(analysis, choose, request, None)
    plan = choose(None, ())
    told = plan_obstacle(analysis, plan)
    if not told:
        return plan
    try:
        return _limited(analysis, choose, request, plan)
    except PolicyError:
        warnings.warn(_WARNING.format(told), PlancWarning, stacklevel=4)
        return plan


def plan_obstacle(analysis: Analysis, plan: Plan) -> str:
    """The reason why no configuration describes the result of a plan; empty if one does."""
    after = fingerprint.tensors_after(plan.tensors, plan.cuts)
    gone = analysis.gone([group.removed for group in plan.groups])
    pruned = Pruned(plan.attributes, after, plan.cuts, analysis.shapes(gone))
    return short(obstacle(analysis.graph, pruned))


def _limited(analysis: Analysis, choose: Choose, request: Request, unlimited: Plan | None) -> Plan:
    """The plan under the limits of the configurations."""
    if request.widths:
        raise PolicyError(
            f"loadable=True and {request.widths}: the configuration has one number for all layers; "
            "add equal=True, or leave one of the two out"
        )
    found = limits(analysis)
    assert found is not None
    plan = choose(found.equations, _kinds(analysis, found))
    for g in sorted(request.named(analysis)):
        if not plan.groups[g].removed and (unlimited is None or unlimited.groups[g].removed):
            reason = found.reasons.get(g, "the configuration ties it to others that stay whole")
            raise PolicyError(
                f"loadable=True: group {analysis.groups[g]} stays whole: {short(reason)}; leave it "
                "out of the request, or leave loadable out and save the result by planc"
            )
    if not plan.cuts and (unlimited or choose(None, ())).cuts:
        reason = next(iter(found.reasons.values()), "the configuration ties all widths")
        raise PolicyError(
            f"loadable=True: nothing can be removed: {short(reason)}; leave loadable out, and save "
            "the result by planc"
        )
    if told := plan_obstacle(analysis, plan):
        raise PolicyError(
            f"loadable=True: no configuration describes the result: {told}; ask for another ratio, "
            "or leave loadable out and save the result by planc"
        )
    return plan


def _kinds(analysis: Analysis, found: Limits) -> tuple[str, ...]:
    """The kinds of rows that are removed whole, because nothing inside them may be."""
    rowed = analysis.grouping.rowed
    kinds = dict.fromkeys(analysis.groups[g].kind for g in found.rows)
    others = {analysis.groups[g].kind for g in rowed - {*found.rows}}
    return tuple(kind for kind in kinds if kind not in others)
