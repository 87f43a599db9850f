"""The origin of the weights that a command scored: a file, or the factory of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from planc.cli.terminal import warning

if TYPE_CHECKING:
    from planc.cli.models import Given
    from planc.plan.masks import MaskPlan
    from planc.plan.plan import Plan

AnyPlan = TypeVar("AnyPlan", "Plan", "MaskPlan")


def named_origin(plan: AnyPlan, given: Given, removes: bool) -> AnyPlan:
    """Return a plan with the origin of its weights; warn if they may be random.

    Args:
        plan: a plan made by this command.
        given: the model's options.
        removes: True if the plan removes anything.
    """
    from planc.plan.weights import with_origin

    if plan.provenance[-1].weights is None:
        return plan
    if given.weights is None and removes:
        warning(
            "weights as the factory builds them may be random: pass --weights FILE to score "
            "trained ones"
        )
    return with_origin(plan, "factory" if given.weights is None else "file")
