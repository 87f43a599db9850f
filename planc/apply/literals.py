"""Literal numbers of a reference graph, for the input sizes of one run.

The graph is the reference for a pruned module. Its widths are the pruned ones, and numbers computed
from sizes are evaluated again with the module's new attributes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from planc.ir.expressions import Attribute, Expr, Number, Scalar, Size, SizeOf, evaluate
from planc.ir.graph import Comparison
from planc.plan.plan import Plan
from planc.rules.labels import Labelled


class Literals:
    def __init__(self, plan: Plan, shapes: Sequence[tuple[int, ...]]) -> None:
        self.attributes = {(change.module, change.name): change.after for change in plan.attributes}
        self.shapes = shapes

    def argument(self, number: Size | Scalar) -> Number:
        """Return an argument other than a width."""
        return int(number) if isinstance(number, Size) else float(self.held(number))

    def held(self, number: Size | Scalar) -> Number:
        """Return an element of a tensor computed from sizes."""
        return evaluate(number.expr, self._leaf)

    def width(self, expr: Expr, labelled: Labelled, dim: int, width: int, sign: int) -> int:
        return sign * width

    def hold(self, value: int, dim: int, reason: str) -> None:
        """Check nothing: the sizes are those of one run."""

    def compare(self, comparison: Comparison) -> None:
        """Check nothing: the sizes are those of one run."""

    def _leaf(self, at: Attribute | SizeOf) -> int:
        if isinstance(at, SizeOf):
            return self.shapes[at.value][at.dim]
        found: Any = self.attributes.get((at.module, at.name))
        if found is None:
            return at.value
        for i in at.index:
            found = found[i]
        return int(found)


def sizes_in(shape: Callable[[int], Sequence[int]]) -> Callable[[Attribute | SizeOf], int]:
    """Return the evaluation of an expression's leaves, by the ``shape`` of each value."""
    return lambda leaf: leaf.value if isinstance(leaf, Attribute) else shape(leaf.value)[leaf.dim]
