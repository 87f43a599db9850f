"""Size equations: what the module's own arithmetic demands of widths and of attributes.

In: the demands of the walk, with the expressions that the model computed its sizes by. Out:
:class:`Equations`: attributes as polynomials in what groups keep, and the constraints that no
attribute can lift.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from planc.expr import (
    OPERATORS,
    Apply,
    Attribute,
    Const,
    Expr,
    Scalar,
    Size,
    SizeOf,
    evaluate,
    expr_of,
    leaves,
)
from planc.facts import Demand
from planc.grouping import PINNED, Grouping
from planc.ir import AS_IT_IS, Graph, Node, provenanced
from planc.labels import Labelled, Layer
from planc.layers import derived
from planc.rules import find, parameters
from planc.walk import Walked
from planc.widths import Poly, Variable

Key = tuple[str, str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Operation:
    """An operator on quantities that is no polynomial: ``//`` or ``%`` with a remainder, ..."""

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
    """``left`` must equal ``right`` after pruning; ``reason`` says who wants it, and where."""

    left: Quantity
    right: Poly
    reason: str

    @property
    def groups(self) -> frozenset[int]:
        """The groups whose widths it binds."""
        both = self.left.variables | self.right.variables
        return frozenset(v for v in both if isinstance(v, int))

    def holds(self, of: Callable[[Variable], int]) -> bool:
        """Whether it is true when each variable has the value ``of`` gives it."""
        return self.left.value(of) == self.right.value(of)


@dataclass(frozen=True, eq=False)
class Equations:
    """``attributes`` maps attributes to their size after pruning, ``constraints`` bind groups,
    ``whole`` are groups that cannot be counted on to shrink evenly, with the reason; ``mixing``
    those whose width, through an attribute, is used as a number.
    """

    attributes: Mapping[Key, Poly]
    constraints: tuple[Constraint, ...]
    whole: Mapping[int, str]
    mixing: Mapping[int, str]


def operation(op: str, args: tuple[Quantity, ...]) -> Quantity:
    """An operator applied to quantities, as a polynomial where it is one."""
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


def _equality(left: Quantity, right: Quantity, reason: str) -> Constraint:
    """Both sides are equal; attributes that it may be solved for stand on the left."""
    named = [any(not isinstance(v, int) for v in side.variables) for side in (left, right)]
    if isinstance(left, Poly) and (named[1] > named[0] or not isinstance(right, Poly)):
        left, right = right, left
    if isinstance(right, Poly):
        return Constraint(left, right, reason)
    return Constraint(Operation("-", (left, right)), Poly.const(0), reason)


class _Builder:
    """Collects equations for one target."""

    def __init__(self, graph: Graph, walked: Walked, grouping: Grouping, target: str) -> None:
        self.graph, self.walked, self.grouping, self.target = graph, walked, grouping, target
        self.whole: dict[int, str] = {}
        self.attributes: dict[Variable, Poly] = {}
        self.found: list[Constraint] = []
        self.numbers: dict[Key, str] = {}
        self._widths: dict[tuple[int, int], tuple[Labelled, Poly | None]] = {}

    def width(self, x: Labelled, dim: int, reason: str) -> Poly | None:
        """The width of a dimension, None (and its groups left whole) if it is no polynomial."""
        key = (id(x), dim)
        if key not in self._widths:  # x is kept with it, or its id could come back as another's
            self._widths[key] = (x, self._measured(x, dim, reason))
        return self._widths[key][1]

    def _measured(self, x: Labelled, dim: int, reason: str) -> Poly | None:
        try:
            return self.grouping.width(x, dim)
        except ArithmeticError:
            for layer in x.targeting(dim):
                for g in np.unique(self.grouping.group[layer.along()]).tolist():
                    if g != PINNED:
                        self.whole.setdefault(g, f"{reason}: its units are spread unevenly")
            return None

    def quantity(self, expr: Expr, reason: str) -> Quantity | None:
        if isinstance(expr, Const):
            return Poly.const(int(expr.value)) if expr.value == int(expr.value) else None
        if isinstance(expr, Attribute):
            return self.table(expr) or Poly.variable(expr.key)
        if isinstance(expr, Apply):
            args = tuple(self.quantity(arg, reason) for arg in expr.args)
            if any(arg is None for arg in args):
                return None
            return operation(expr.op, args)  # type: ignore[arg-type]
        return self.width(self.walked.labels[expr.value], expr.dim, reason)

    def table(self, attribute: Attribute) -> Poly | None:
        """The size of a layer's tensor that one of its attributes stands for."""
        module = self.graph.modules.get(attribute.module)
        for entry in derived(module) if module is not None else ():
            if entry.name == attribute.name and not attribute.index:
                name = entry.source(self.graph.modules[attribute.module], self.graph.shapes)
                if name is not None:
                    tensor = self.graph.tensor(name)
                    size = self.width(self.walked.labels[tensor.value], entry.dim, name)
                    if size is not None and entry.times:
                        size = size * Poly.variable((attribute.module, entry.times, ()))
                    return size
        return None

    # -- sources of equations ----------------------------------------------------------------

    def demands(self) -> None:
        nodes = self.graph.nodes
        covered: set[tuple[int, str, int | None]] = set()
        for demand in self.walked.facts.demands:
            node = nodes[demand.node]
            if not self._bound(node):
                continue
            covered.add((demand.node, demand.arg, demand.index))
            given = _argument(node, demand)
            if type(given) is bool or not isinstance(given, int):
                continue
            reason = f"{demand.arg} of {node}"
            if int(given) != demand.sign * demand.labelled.shape[demand.dim]:
                if isinstance(given, Size):  # a bound beyond the end: it is no width, and stays
                    self._unchanged(node, demand.arg, given)
                continue
            width = self.width(demand.labelled, demand.dim, reason)
            if width is None:
                continue
            left = self.quantity(expr_of(given), reason)
            if left is None:
                self._freeze(expr_of(given), width, reason)
            else:
                self.found.append(Constraint(left, width.scaled(demand.sign), reason))
        for i, node in enumerate(nodes):
            for arg, index, number in _numbers(node) if self._bound(node) else ():
                if (i, arg, index) not in covered:
                    self._unchanged(node, arg, number)
        if self.target != "module":
            return
        for number in self.graph.numbers.values():
            self._used_as_number(number.expr)

    def _bound(self, node: Node) -> bool:
        """Whether a node computes its numbers itself: all do in the module; in the graph they are
        constants that are rewritten, but for those inside of what is not traced into.
        """
        return self.target == "module" or node.leaf

    def _unchanged(self, node: Node, arg: str, number: Size | Scalar) -> None:
        """A number that the operator takes for something else than a width stays what it is."""
        if isinstance(number, Scalar):
            self._used_as_number(number.expr)
            return
        left = self.quantity(number.expr, f"{arg} of {node}")
        if left is not None:
            reason = f"{arg} of {node}"
            self.found.append(Constraint(left, Poly.const(int(number)), reason))

    def _used_as_number(self, expr: Expr) -> None:
        for leaf in leaves(expr):
            if isinstance(leaf, Attribute):
                self.numbers[leaf.key] = f"{leaf} is used as a number"

    def _freeze(self, expr: Expr, width: Poly, reason: str) -> None:
        variables = set(width.variables)
        for leaf in leaves(expr):
            if not isinstance(leaf, Attribute):
                found = self.width(self.walked.labels[leaf.value], leaf.dim, reason)
                variables |= found.variables if found is not None else set()
        for variable in variables:
            if isinstance(variable, int):
                self.whole.setdefault(variable, reason)

    def equals(self) -> None:
        for equal in self.walked.facts.equals:
            if equal.module_only and self.target != "module":
                continue
            reason = f"equal parts of {self.graph.nodes[equal.node]}"
            left, right = (self.width(x, dim, reason) for x, dim in (equal.left, equal.right))
            if left is not None and right is not None:
                self.found.append(Constraint(left, right, reason))

    def comparisons(self) -> None:
        for comparison in self.graph.comparisons:
            reason = str(comparison)
            if comparison.relation == AS_IT_IS:
                self._as_it_is(comparison.left, reason)
                continue
            left, right = (self.quantity(e, reason) for e in (comparison.left, comparison.right))
            if left is None or right is None:
                continue
            if comparison.relation == "==":
                self.found.append(_equality(left, right, reason))
            else:
                most = 2 + 2 * sum(self._traced(e) for e in (comparison.left, comparison.right))
                more = operation("-", (right, left))
                if comparison.relation == "<":
                    more = operation("-", (more, Poly.const(1)))
                quotient = Operation("//", (more, Poly.const(most)))  # negative where it is less
                self.found.append(Constraint(quotient, Poly.const(0), reason))

    def _as_it_is(self, expr: Expr, reason: str) -> None:
        quantity = self.quantity(expr, reason)
        if quantity is not None:
            self.found.append(Constraint(quantity, Poly.const(self._traced(expr)), reason))

    def _traced(self, expr: Expr) -> int:
        """How far from zero an expression was in the traced run."""
        values = self.graph.values

        def leaf(of: Attribute | SizeOf) -> int:
            return of.value if isinstance(of, Attribute) else values[of.value].shape[of.dim]

        return math.ceil(abs(evaluate(expr, leaf)))

    def plurals(self) -> None:
        """A width w of n stays at least 2 where (w - 2) // (n + 1) = 0."""
        for plural in self.walked.facts.plurals:
            x, dim = plural.labelled, plural.dim
            reason = f"more than one coordinate for {self.graph.nodes[plural.node]}"
            width = self.width(x, dim, reason)
            if width is not None and width.value(lambda _: 1) < 2:
                left = Operation("//", (width - Poly.const(2), Poly.const(x.shape[dim] + 1)))
                self.found.append(Constraint(left, Poly.const(0), reason))

    def multiples(self) -> None:
        """A width w stays a multiple of n where w % n = 0."""
        for multiple in self.walked.facts.multiples:
            reason = f"multiples of {multiple.of} for {self.graph.nodes[multiple.node]}"
            width = self.width(multiple.labelled, multiple.dim, reason)
            if width is not None and multiple.of > 1:
                left = operation("%", (width, Poly.const(multiple.of)))
                self.found.append(Constraint(left, Poly.const(0), reason))

    def widers(self) -> None:
        """Of two widths, v of n is greater than w where (v - w - 1) // (n + 1) = 0."""
        for wider in self.walked.facts.widers:
            reason = f"more than the other's coordinates for {self.graph.nodes[wider.node]}"
            left, right = (self.width(x, dim, reason) for x, dim in (wider.left, wider.right))
            if left is not None and right is not None:
                size = Poly.const(wider.left[0].shape[wider.left[1]] + 1)
                quotient = Operation("//", (left - right - Poly.const(1), size))
                self.found.append(Constraint(quotient, Poly.const(0), reason))

    def balances(self) -> None:
        group = self.grouping.group
        for balance in self.walked.facts.balances:
            layers = balance.labelled.targeting(balance.dim)
            if len(layers) == 1:  # lines with the same groups in them are equally long
                sets = np.sort(group[layers[0].lines()], axis=1)
                if (sets == sets[0]).all():
                    continue
            node = balance.node
            reason = f"equal rows of {self.graph.nodes[node]}" if node >= 0 else "equal rows"
            distinct = dict.fromkeys(self._lines(balance.labelled, balance.dim, reason))
            polys = [poly for poly in distinct if poly is not None]
            for poly in polys[1:]:
                self.found.append(Constraint(polys[0], poly, reason))

    def _lines(self, x: Labelled, dim: int, reason: str) -> Iterator[Poly | None]:
        """The width of each line of a ragged dimension, by all layers that target it."""
        layers = x.targeting(dim)
        places = np.broadcast_shapes(
            *(tuple(n for d, n in enumerate(la.atoms.shape) if d != dim) for la in layers)
        )
        stacked = [
            np.broadcast_to(np.moveaxis(layer.atoms, dim, -1), (*places, x.shape[dim]))
            for layer in layers
        ]
        lines = np.stack(stacked).reshape(len(layers), -1, x.shape[dim])
        groups = self.grouping.group[lines]
        distinct = {groups[:, at].tobytes(): at for at in range(lines.shape[1])}
        for at in distinct.values():
            line = tuple(Layer(atoms, 0) for atoms in lines[:, at])
            yield self._measured(Labelled((x.shape[dim],), line), 0, reason)

    # -- solving -------------------------------------------------------------------------------

    def solve(self) -> Equations:
        self._define()
        fixed: dict[Variable, Poly] = dict(self.attributes)
        for constraint in self.found:
            for variable in constraint.left.variables | constraint.right.variables:
                if not isinstance(variable, int) and variable not in fixed:
                    fixed[variable] = Poly.const(_traced(self.graph, variable))
        kept: dict[tuple[Quantity, Poly], Constraint] = {}
        for constraint in self.found:
            left, right = constraint.left.substituted(fixed), constraint.right.substituted(fixed)
            assert isinstance(right, Poly)
            if left != right:
                kept.setdefault((left, right), Constraint(left, right, constraint.reason))
        attributes = {k: p for k, p in self.attributes.items() if not isinstance(k, int)}
        mixing = {
            v: reason
            for key, reason in self.numbers.items()
            for v in attributes.get(key, Poly()).variables
            if isinstance(v, int)
        }
        return Equations(attributes, tuple(kept.values()), self.whole, mixing)

    def _define(self) -> None:
        """Gives each attribute that an equation can be solved for its polynomial."""
        for exact in (True, False):
            self._define_all(exact, self.attributes)
        tied = self._tied_widths()
        if tied:  # 3 * head_size is the width of three parts only because they are equal
            self._define_all(False, {**self.attributes, **tied})

    def _define_all(self, exact: bool, known: Mapping[Variable, Poly]) -> None:
        for constraint in self.found:
            known = {**known, **self.attributes}
            left, right = constraint.left.substituted(known), constraint.right.substituted(known)
            assert isinstance(right, Poly)
            if isinstance(left, Poly):
                self._define_by(left, right, exact)
            elif not exact and len(_attributes(left)) == 1:
                for inner, value in _inverted(left, right):
                    self._define_by(inner, value, exact)

    def _tied_widths(self) -> dict[Variable, Poly]:
        """What groups keep, where a constraint gives it in terms of others."""
        tied: dict[Variable, Poly] = {}
        for constraint in self.found:
            left = constraint.left.substituted(self.attributes)
            if not isinstance(left, Poly) or _attributes(left):
                continue
            zero = (left - constraint.right).substituted(tied)
            for monomial, c in zero.terms:
                if len(monomial) == 1 and abs(c) == 1 and _occurrences(zero, monomial[0]) == 1:
                    others = zero - Poly.of({monomial: c})
                    own = {monomial[0]: others.scaled(-c)}
                    tied = {v: poly.substituted(own) for v, poly in tied.items()} | own
                    break
        return tied

    def _define_by(self, left: Poly, right: Poly, exact: bool) -> None:
        """Solves ``factor * attribute + rest = right`` for the one attribute on the left."""
        unknown = _attributes(left)
        if len(unknown) != 1 or not _settable(unknown[0]) or unknown[0] in self.attributes:
            return
        own = {m: c for m, c in left.terms if unknown[0] in m}
        factor = Poly.of(own).divided(Poly.variable(unknown[0]))
        if factor is None or unknown[0] in factor.variables:
            return
        rest = right - (left - Poly.of(own))
        if exact and (factor.constant != 1 or rest.constant is not None):
            return
        value = rest.divided(factor)
        if value is not None and self._is_traced(unknown[0], value):
            self.attributes[unknown[0]] = value

    def _is_traced(self, attribute: Variable, value: Poly) -> bool:
        """Whether an attribute with that value stays what it is where nothing is removed."""
        assert not isinstance(attribute, int)

        def full(variable: Variable) -> int:
            groups = self.grouping.groups
            return groups[variable].cells if isinstance(variable, int) else 0

        return value.value(full) == _traced(self.graph, attribute)


def _occurrences(poly: Poly, variable: Variable) -> int:
    """How many terms a variable is in."""
    return sum(variable in monomial for monomial, _ in poly.terms)


def _attributes(quantity: Quantity) -> list[Variable]:
    """The attributes that a quantity depends on."""
    return [variable for variable in quantity.variables if not isinstance(variable, int)]


def _inverted(left: Quantity, right: Poly) -> Iterator[tuple[Poly, Poly]]:
    """Equations between polynomials from which ``left = right`` follows."""
    if isinstance(left, Poly):
        yield left, right
        return
    if len(left.args) != 2:
        return
    one, other = left.args
    if isinstance(other, Poly):
        yield from _undone(left.op, one, other, right)
    if isinstance(one, Poly):
        yield from _undone_second(left.op, one, other, right)


def _undone(op: str, one: Quantity, other: Poly, right: Poly) -> Iterator[tuple[Poly, Poly]]:
    """``one op other = right``, solved for the first operand."""
    solved = {"+": right - other, "-": right + other, "//": right * other}.get(op)
    solved = right.divided(other) if op == "*" else solved
    if solved is not None:
        yield from _inverted(one, solved)


def _undone_second(op: str, one: Poly, other: Quantity, right: Poly) -> Iterator[tuple[Poly, Poly]]:
    """``one op other = right``, solved for the second operand."""
    solved = {"+": right - one, "-": one - right}.get(op)
    if op in ("*", "//"):
        solved = right.divided(one) if op == "*" else one.divided(right)
    if solved is not None:
        yield from _inverted(other, solved)


def _settable(variable: Variable) -> bool:
    return not isinstance(variable, int) and not variable[1].startswith("_")


def _traced(graph: Graph, key: Key) -> int:
    value: Any = graph.modules[key[0]].attributes[key[1]]
    for i in key[2]:
        value = value[i]
    return int(value)


def _argument(node: Node, demand: Demand) -> Any:
    """The argument that a demand speaks of, None where the model did not give it."""
    given = dict(node.kwargs).get(demand.arg)
    if given is None:
        fn = find(node.op)
        names = parameters(fn) if fn is not None else ()
        at = names.index(demand.arg) if demand.arg in names else len(node.args)
        given = node.args[at] if at < len(node.args) else None
    if demand.index is not None and isinstance(given, tuple):
        return given[demand.index] if demand.index < len(given) else None
    return given


def _numbers(node: Node) -> Iterator[tuple[str, int | None, Size | Scalar]]:
    """The numbers of known origin in a node's arguments, with the argument's name and index."""
    fn = find(node.op)
    names = parameters(fn) if fn is not None else ()
    named = [(names[i] if i < len(names) else f"argument {i}", a) for i, a in enumerate(node.args)]
    for name, argument in [*named, *node.kwargs]:
        if isinstance(argument, Size | Scalar):
            yield name, None, argument
        elif isinstance(argument, tuple):
            for i, item in enumerate(argument):
                for number in provenanced(item):
                    yield name, i, number


def equations(graph: Graph, walked: Walked, grouping: Grouping, target: str) -> Equations:
    """The equations that bind a plan for ``target``: "module" or "graph"."""
    builder = _Builder(graph, walked, grouping, target)
    builder.balances()
    builder.equals()
    builder.plurals()
    builder.multiples()
    builder.widers()
    builder.demands()
    if target == "module":
        builder.comparisons()
    return builder.solve()
