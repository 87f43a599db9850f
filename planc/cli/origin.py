"""The origin of the weights that a command scored: a file, or the factory of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from planc.cli.terminal import warning

if TYPE_CHECKING:
    from planc.cli.models import Given
    from planc.plan.weights import AnyPlan


def named_origin(plan: AnyPlan, given: Given, model: str) -> AnyPlan:
    """Return a plan with the origin of its weights; warn if they may be random."""
    from planc.plan.masks import MaskPlan
    from planc.plan.weights import with_origin

    if plan.provenance[-1].weights is None:
        return plan
    found = given.weights_of(model) is not None
    removes = plan.removed if isinstance(plan, MaskPlan) else any(g.removed for g in plan.groups)
    if removes and not found:  # a plan that removes nothing does not depend on them
        warning(
            "weights as the factory builds them may be random: pass --weights FILE to score "
            "trained ones"
        )
    return with_origin(plan, "file" if found else "factory")
