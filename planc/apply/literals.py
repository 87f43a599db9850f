"""The numbers of a graph that is the reference for a pruned module: literals, for the sizes of one
run.

In: the numbers of a traced graph, and the shapes that its values have once they are pruned. Out:
widths as they are then, and what the module, with its new attributes, computes from sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from planc.ir.expressions import Attribute, Expr, Number, Scalar, Size, SizeOf, evaluate
from planc.ir.graph import Comparison
from planc.plan.plan import Plan
from planc.rules.labels import Labelled


class Literals:
    """The numbers of one graph, with the attributes of a plan."""

    def __init__(self, plan: Plan, shapes: Sequence[tuple[int, ...]]) -> None:
        self.attributes = {(change.module, change.name): change.after for change in plan.attributes}
        self.shapes = shapes

    def argument(self, number: Size | Scalar) -> Number:
        """An argument that is no width."""
        return int(number) if isinstance(number, Size) else float(self.held(number))

    def held(self, number: Size | Scalar) -> Number:
        """An element of a tensor that is made of sizes."""
        return evaluate(number.expr, self._leaf)

    def width(self, expr: Expr, labelled: Labelled, dim: int, width: int, sign: int) -> int:
        return sign * width

    def hold(self, value: int, dim: int, reason: str) -> None:
        """Nothing is checked: the sizes are those of one run."""

    def compare(self, comparison: Comparison) -> None:
        """Nothing is checked: the sizes are those of one run."""

    def _leaf(self, at: Attribute | SizeOf) -> int:
        if isinstance(at, SizeOf):
            return self.shapes[at.value][at.dim]
        found: Any = self.attributes.get((at.module, at.name))
        if found is None:
            return at.value
        for i in at.index:
            found = found[i]
        return int(found)
