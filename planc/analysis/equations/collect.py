"""Equations between quantities, collected from the demands, comparisons and balances of a walk."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from planc.analysis.equations.quantities import Constraint, Key, Operation, Quantity, operation
from planc.analysis.grouping import PINNED, Grouping
from planc.analysis.polynomials import Poly
from planc.analysis.walk import Walked
from planc.ir.expressions import (
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
from planc.ir.graph import AS_IT_IS, RETURNED, Graph, Node, provenanced
from planc.ir.layers import derived
from planc.rules import find, parameters
from planc.rules.labels import Labelled, Layer
from planc.rules.labels.facts import Demand, Relation


class Collector:
    """Collects the equations of one target.

    ``found`` are the equations. ``whole`` maps groups without a polynomial width to the reason;
    they are not pruned. ``numbers`` maps attributes used as numbers to the operator.
    """

    def __init__(self, graph: Graph, walked: Walked, grouping: Grouping, target: str) -> None:
        self.graph, self.walked, self.grouping, self.target = graph, walked, grouping, target
        self.whole: dict[int, str] = {}
        self.found: list[Constraint] = []
        self.numbers: dict[Key, str] = {}
        self._widths: dict[tuple[int, int], tuple[Labelled, Poly | None]] = {}

    def width(self, x: Labelled, dim: int, reason: str) -> Poly | None:
        """The width of a dimension; None, with its groups left whole, if it is no polynomial."""
        key = (id(x), dim)
        if key not in self._widths:  # x is kept alive, or its id could be reused
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
        """The quantity of an expression, None for a fraction or a width without a polynomial."""
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
        """The size of a layer's tensor behind one of its attributes, None if there is none."""
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

    def demands(self) -> None:
        """Add an equation for every width given to an operator; fix its other sizes."""
        nodes = self.graph.nodes
        covered: set[tuple[int, str, int | None]] = set(self.walked.facts.ignored)
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
                if isinstance(given, Size):  # a bound beyond the end: no width, unchanged
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
        for number in provenanced(tuple(self.graph.numbers.values())):
            self._used_as_number(number.expr)

    def _bound(self, node: Node) -> bool:
        """True if a node computes its numbers itself.

        All nodes of a module do. A graph has constants, rewritten by the plan, except inside leaf
        modules.
        """
        return self.target == "module" or node.leaf

    def _unchanged(self, node: Node, arg: str, number: Size | Scalar) -> None:
        """Fix a number used by the operator for something other than a width."""
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

    def comparisons(self) -> None:
        """Add the constraints that keep every traced comparison of sizes as it was."""
        for comparison in self.graph.comparisons:
            reason = str(comparison)
            both = (comparison.left, comparison.right)
            plain = comparison.relation in (AS_IT_IS, RETURNED)
            if plain or not all(map(self._whole_number, both)):
                for leaf in {leaf: None for expr in both for leaf in leaves(expr)}:
                    self._as_it_is(leaf, reason)
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
                quotient = Operation("//", (more, Poly.const(most)))  # negative if less
                self.found.append(Constraint(quotient, Poly.const(0), reason))

    def _as_it_is(self, expr: Expr, reason: str) -> None:
        quantity = self.quantity(expr, reason)
        if quantity is not None:
            value = evaluate(expr, self._leaf)
            self.found.append(Constraint(quantity, Poly.const(int(value)), reason))

    def _traced(self, expr: Expr) -> int:
        """The distance of an expression from zero in the traced run, rounded up."""
        return math.ceil(abs(evaluate(expr, self._leaf)))

    def _whole_number(self, expr: Expr) -> bool:
        return isinstance(evaluate(expr, self._leaf), int)

    def _leaf(self, of: Attribute | SizeOf) -> int:
        return of.value if isinstance(of, Attribute) else self.graph.values[of.value].shape[of.dim]

    def relations(self) -> None:
        """Add constraints for all relations between widths."""
        facts = self.walked.facts
        for relation in (
            *facts.related("equal"),
            *facts.related("more"),
            *facts.related("multiple"),
            *facts.related("share"),
        ):
            if self.target == "module" or not relation.module_only:
                self._relate(relation)

    def _relate(self, relation: Relation) -> None:
        """Of n coordinates, v remain more than w if (v - w - 1) // (n + 1) = 0, and v remain a
        multiple of w if v % w = 0.
        """
        (x, dim), right, node = relation.left, relation.right, self.graph.nodes[relation.node]
        among = "one coordinate" if right == 1 else f"{right} coordinates"
        among = among if isinstance(right, int) else "the other's coordinates"
        reason = {
            "equal": f"equal parts of {node}",
            "more": f"more than {among} for {node}",
            "multiple": f"multiples of {right} for {node}",
            "share": f"parts of {node}",
        }[relation.op]
        v = self.width(x, dim, reason)
        w = Poly.const(right) if isinstance(right, int) else self.width(*right, reason)
        if v is None or w is None:
            return
        if relation.op == "equal":
            self.found.append(Constraint(v, w, reason))
        elif relation.op == "share":
            whole = w + Poly.const(relation.plus)
            quantity = operation("//", (whole, Poly.const(relation.parts)))
            self.found.append(Constraint(quantity, v, reason))
        elif relation.op == "multiple":
            self.found.append(Constraint(operation("%", (v, w)), Poly.const(0), reason))
        elif not isinstance(right, int) or v.value(lambda _: 1) <= right:
            quotient = Operation("//", (v - w - Poly.const(1), Poly.const(x.shape[dim] + 1)))
            self.found.append(Constraint(quotient, Poly.const(0), reason))

    def balances(self) -> None:
        """Add equations between the rows of each ragged dimension."""
        group = self.grouping.group
        for balance in self.walked.facts.related("balanced"):
            x, dim = balance.left
            layers = x.targeting(dim)
            if len(layers) == 1:  # equal groups make equal lengths
                sets = np.sort(group[layers[0].lines()], axis=1)
                if (sets == sets[0]).all():
                    continue
            node = balance.node
            reason = f"equal rows of {self.graph.nodes[node]}" if node >= 0 else "equal rows"
            distinct = dict.fromkeys(self._lines(x, dim, reason))
            polys = [poly for poly in distinct if poly is not None]
            for poly in polys[1:]:
                self.found.append(Constraint(polys[0], poly, reason))

    def _lines(self, x: Labelled, dim: int, reason: str) -> Iterator[Poly | None]:
        """The width of each distinct line of a ragged dimension, by all layers targeting it."""
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


def _equality(left: Quantity, right: Quantity, reason: str) -> Constraint:
    """An equality as a constraint, with attributes to solve for on the left."""
    named = [any(not isinstance(v, int) for v in side.variables) for side in (left, right)]
    if isinstance(left, Poly) and (named[1] > named[0] or not isinstance(right, Poly)):
        left, right = right, left
    if isinstance(right, Poly):
        return Constraint(left, right, reason)
    return Constraint(Operation("-", (left, right)), Poly.const(0), reason)


def _argument(node: Node, demand: Demand) -> Any:
    """The argument of a demand, None if the model did not give it."""
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
