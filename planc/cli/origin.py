"""The origin of the weights that a command scored: a file, or the factory of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from planc.cli.terminal import warning

if TYPE_CHECKING:
    from planc.cli.models import Given
    from planc.plan.plan import Plan


def named_origin(plan: Plan, given: Given, model: str) -> Plan:
    """Return a plan with the origin of its weights; warn if they may be random."""
    from planc.plan.weights import with_origin

    if plan.provenance[-1].weights is None:
        return plan
    warn_of_random(given, model, any(group.removed for group in plan.groups))
    return with_origin(plan, "factory" if given.weights_of(model) is None else "file")


def warn_of_random(given: Given, model: str, removes: bool) -> None:
    """Warn if weights may be random; a plan that removes nothing does not depend on them."""
    if removes and given.weights_of(model) is None:
        warning(
            "weights as the factory builds them may be random: pass --weights FILE to score "
            "trained ones"
        )
