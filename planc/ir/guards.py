"""Guards: checks in a rewritten graph for sizes stored as literals.

Each guard compares two numbers computed from the sizes of a run. A run with another relation than
the traced one would take another path through the model than the graph.
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
    """Check the relation of two numbers to be the same as in the traced run.

    Args:
        left: the number on the left of the relation.
        relation: "==", "<" or "<=".
        right: the number on the right of the relation.
        reason: the part of the model depending on the relation.
        inputs: name, tensor and traced shape of each input, for the message.

    Raises:
        SizeMismatch: the relation does not hold; names the inputs with other sizes than traced.
    """
    if relation == "==":  # spelled out: a tracer looks at the code comparing sizes
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
