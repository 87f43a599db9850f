"""Quantities: sizes after pruning in terms of kept units and attributes, with their constraints.

They have types of their own, not those of a computer algebra system, for speed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from planc.analysis.polynomials import Poly, Variable
from planc.ir.expressions import OPERATORS

Key = tuple[str, str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Operation:
    """An operator on quantities without a polynomial form: ``//`` or ``%`` with a remainder, ..."""

    op: str
    args: tuple[Quantity, ...]

    @property
    def variables(self) -> frozenset[Variable]:
        return frozenset().union(*(arg.variables for arg in self.args))

    def value(self, of: Callable[[Variable], int]) -> int:
        return OPERATORS[self.op](*(arg.value(of) for arg in self.args))  # type: ignore[return-value]

    def substituted(self, values: Mapping[Variable, Poly]) -> Quantity:
        return operation(self.op, tuple(arg.substituted(values) for arg in self.args))

    def text(self, name: Callable[[Variable], str]) -> str:
        parts = [arg.text(name) for arg in self.args]
        return f"({parts[0]}) {self.op} ({parts[1]})" if len(parts) == 2 else f"{self.op}({parts})"


Quantity = Poly | Operation


@dataclass(frozen=True, slots=True)
class Constraint:
    """``left`` must equal ``right`` after pruning; ``reason`` names the operator and its place."""

    left: Quantity
    right: Poly
    reason: str

    @property
    def groups(self) -> frozenset[int]:
        """The groups with widths in this constraint."""
        both = self.left.variables | self.right.variables
        return frozenset(v for v in both if isinstance(v, int))

    def holds(self, of: Callable[[Variable], int]) -> bool:
        """True if the constraint is satisfied by the variables' values ``of``."""
        return self.left.value(of) == self.right.value(of)


@dataclass(frozen=True, eq=False)
class Equations:
    """Size equations of one target.

    ``attributes`` maps attributes to their size after pruning; ``constraints`` bind groups.
    ``whole`` maps groups without a polynomial width to the reason. ``mixing`` maps groups to a
    reason if an attribute with their width is used as a number.
    """

    attributes: Mapping[Key, Poly]
    constraints: tuple[Constraint, ...]
    whole: Mapping[int, str]
    mixing: Mapping[int, str]


def operation(op: str, args: tuple[Quantity, ...]) -> Quantity:
    """An operator applied to quantities, as a polynomial where possible."""
    if all(isinstance(arg, Poly) for arg in args):
        polys: tuple[Any, ...] = args
        constants = [poly.constant for poly in polys]
        if op in ("+", "-", "*"):
            left, right = polys
            return {"+": left.__add__, "-": left.__sub__, "*": left.__mul__}[op](right)  # type: ignore[no-any-return]
        if op == "neg":
            return -polys[0]  # type: ignore[no-any-return]
        if all(c is not None for c in constants):
            value = OPERATORS[op](*constants)
            if value == int(value):
                return Poly.const(int(value))
        if op in ("//", "/") and (quotient := polys[0].divided(polys[1])) is not None:
            return quotient  # type: ignore[no-any-return]
    return Operation(op, args)
