"""Guards: the checks that a rewritten graph makes of sizes that it holds as literals.

In: two numbers that were computed from the sizes of a run, and how they were related when the graph
was traced. A run in which they are not, takes another way through the model than the graph does.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from planc.errors import SizeMismatch

RELATIONS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
}

Inputs = tuple[tuple[str, Any, tuple[int, ...]], ...]


def check(left: float, relation: str, right: float, reason: str, inputs: Inputs) -> None:
    """Returns if the numbers are related as they were in the traced run.

    Args:
        reason: why the graph depends on it.
        inputs: name, tensor and traced shape of each input, for the message.

    Raises:
        SizeMismatch: they are not; names the inputs that have other sizes than the traced ones.
    """
    if relation == "==":  # spelled out: a tracer hears which code compares sizes
        holds = left == right
    else:
        holds = left < right if relation == "<" else left <= right
    if not holds:
        raise SizeMismatch(_message(left, relation, right, reason, inputs))


def _message(left: float, relation: str, right: float, reason: str, inputs: Inputs) -> str:
    others = [
        f"input {name} has size {given} in dimension {dim}, traced with {traced}"
        for name, tensor, shape in inputs
        for dim, (given, traced) in enumerate(zip(tensor.shape, shape, strict=False))
        if int(given) != traced
    ]
    return (
        f"{'; '.join(others) or 'the inputs have other sizes than the traced ones'}: for the graph "
        f"{left} {relation} {right} must hold, as when it was traced, because of {reason}; compile "
        'a plan with inputs of these sizes, or with target="module"'
    )
