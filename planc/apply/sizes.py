"""The numbers of a rewritten graph: computed from the sizes of its inputs, as the model does it.

In: the expressions behind the numbers of a traced graph, and the shapes that its values have once
they are pruned. Out: fx nodes, or literals where a number is the same for all inputs. A size that
no expression follows is a literal, too, and the graph checks it (:mod:`planc.guards`).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import fx
from torch.fx.node import has_side_effect

from planc.analysis import Analysis
from planc.apply.fixed import Fixed
from planc.apply.trials import Binding
from planc.ir.expressions import (
    OPERATORS,
    Apply,
    Attribute,
    Const,
    Expr,
    Number,
    Scalar,
    Size,
    SizeOf,
    evaluate,
    leaves,
)
from planc.ir.graph import AS_IT_IS, RETURNED, Comparison, Graph
from planc.ir.guards import check
from planc.rules.labels import Labelled
from planc.rules.labels.facts import NEVER

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "//": operator.floordiv,
    "%": operator.mod,
    "/": operator.truediv,
    "**": operator.pow,
    "neg": operator.neg,
    "abs": operator.abs,
    "sqrt": math.sqrt,
    "log": math.log,
    "log2": math.log2,
    "log10": math.log10,
    "ceil": math.ceil,
    "floor": math.floor,
    "trunc": math.trunc,
}

Input = tuple[str, fx.Node, tuple[int, ...]]
has_side_effect(check)  # no optimisation takes it away


class Computed:
    """The numbers of one graph.

    Args:
        shapes: the shapes of all values once they are pruned.
        graph: what it is part of, with its inputs and tensors so far.
        nodes: the graph's node for each value.
        inputs: name, node and traced shape of each input.
    """

    def __init__(
        self,
        analysis: Analysis,
        shapes: Sequence[tuple[int, ...]],
        graph: fx.Graph,
        nodes: Mapping[int, fx.Node],
        inputs: Sequence[Input],
    ) -> None:
        self.analysis, self.graph = analysis, analysis.graph
        self.shapes, self.fx, self.nodes, self.inputs = shapes, graph, nodes, inputs
        self.fixed = Fixed(analysis)
        self._early = set(graph.nodes)
        self._last = next(reversed(graph.nodes))
        self._made: dict[Any, Any] = {}
        self._checked: set[tuple[Any, str, Any]] = set()

    # -- numbers ---------------------------------------------------------------------------------

    def argument(self, number: Size | Scalar) -> Any:
        """An argument that is no width: it is the original's for the inputs at hand."""
        if self.fixed.expr(number.expr):
            return int(number) if isinstance(number, Size) else float(number)
        return self._node(number.expr, self._original)

    held = argument

    def width(self, expr: Expr, labelled: Labelled, dim: int, width: int, sign: int) -> Any:
        """A number that must be ``sign`` times the size of a labelled dimension, which is ``width``
        once it is pruned.
        """
        literal = sign * width
        if self.fixed.dimension(labelled, dim) or self.fixed.expr(expr):
            return literal
        if evaluate(expr, self._pruned_leaf) == literal:
            return self._node(expr, self._pruned)
        traced = labelled.shape[dim]
        original = self._node(expr, self._original)
        if even(labelled, dim):
            return self._scaled(original, width, traced)
        self.require(original, "==", sign * traced, "a size that is pruned unevenly")
        return literal

    def size(self, value: int, dim: int) -> Any:
        """The size of a dimension of a value of the graph, which must be there."""
        if self.fixed.size(value, dim):
            return self.shapes[value][dim]
        key = (value, dim)
        if key not in self._made:
            node = self.nodes[value]  # asked at once: a later question would keep the tensor
            with self.fx.inserting_after(self._last if node in self._early else node):
                self._made[key] = self.fx.call_method("size", (node, dim))
        return self._made[key]

    # -- checks ----------------------------------------------------------------------------------

    def compare(self, comparison: Comparison) -> None:
        """Checks that two sizes are related as they were when the model compared them."""
        reason = str(comparison)
        left = self._node(comparison.left, self._original)
        if comparison.relation == AS_IT_IS:
            traced = evaluate(comparison.left, self._traced_leaf)
            self.require(left, "==", traced, reason)
            return
        right = self._node(comparison.right, self._original)
        self.require(left, comparison.relation, right, reason)

    def bind(self, bound: Sequence[Binding]) -> None:
        """Checks sizes of inputs."""
        for binding in bound:
            for position, dim in binding.dimensions:
                value = self.graph.inputs[position].id
                self.hold(value, dim, binding.reason)

    def hold(self, value: int, dim: int, reason: str) -> None:
        """Checks that a dimension has the size that the graph holds."""
        self.require(self.size(value, dim), "==", self.shapes[value][dim], reason)

    def require(self, left: Any, relation: str, right: Any, reason: str) -> None:
        """Has the graph check two numbers, unless both are the same for all inputs."""
        key = (left, relation, right)
        if key in self._checked or not any(isinstance(side, fx.Node) for side in (left, right)):
            return
        self._checked.add(key)
        node = self.fx.call_function(check, (left, relation, right, reason, tuple(self.inputs)))
        node.meta["is_wrapped"] = True

    # -- expressions -----------------------------------------------------------------------------

    def _node(self, expr: Expr, leaf: Callable[[SizeOf], Any]) -> Any:
        """What computes an expression, its sizes given by ``leaf``."""
        if isinstance(expr, Const | Attribute):
            return expr.value
        if isinstance(expr, SizeOf):
            return leaf(expr)
        args = tuple(self._node(arg, leaf) for arg in expr.args)
        if not any(isinstance(arg, fx.Node) for arg in args):
            return OPERATORS[expr.op](*args)
        if expr.op == "same":
            return self._same(args)
        return self.call(*_called(expr, args))

    def call(self, function: Callable[..., Any], args: tuple[Any, ...]) -> fx.Node:
        """A function of numbers, called once for equal ones."""
        key = (function, args)
        if key not in self._made:
            self._made[key] = self.fx.call_function(function, args)
        return self._made[key]  # type: ignore[no-any-return]

    def _same(self, numbers: tuple[Any, ...]) -> Any:
        for other in numbers[1:]:
            self.require(other, "==", numbers[0], "numbers that cannot be told apart")
        return numbers[0]

    def _pruned(self, leaf: SizeOf) -> Any:
        return self.size(leaf.value, leaf.dim)

    def _original(self, leaf: SizeOf) -> Any:
        """The size that a dimension has in the original."""
        traced, width = self._traced_leaf(leaf), self._pruned_leaf(leaf)
        if self.fixed.size(leaf.value, leaf.dim):
            return traced
        size = self.size(leaf.value, leaf.dim)
        if traced == width:
            return size
        if even(self.analysis.walked.labels[leaf.value], leaf.dim):
            return self._scaled(size, traced, width)
        self.require(size, "==", width, f"{leaf}, which is pruned unevenly")
        return traced

    def _scaled(self, number: Any, times: int, over: int) -> Any:
        """``number * times // over``, which leaves no remainder."""
        common = math.gcd(times, over)
        return self.call(
            operator.floordiv,
            (self.call(operator.mul, (number, times // common)), over // common),
        )

    def _traced_leaf(self, leaf: Attribute | SizeOf) -> int:
        if isinstance(leaf, Attribute):
            return leaf.value
        return self.graph.values[leaf.value].shape[leaf.dim]

    def _pruned_leaf(self, leaf: Attribute | SizeOf) -> int:
        return leaf.value if isinstance(leaf, Attribute) else self.shapes[leaf.value][leaf.dim]


def even(labelled: Labelled, dim: int) -> bool:
    """Whether a dimension is made of equally many of each of its units, and of nothing else: it
    then loses the same share of any number of them.
    """
    layers = labelled.targeting(dim)
    for layer in layers:
        units, counts = np.unique(layer.along(), return_counts=True)
        if units[0] == NEVER or (counts != counts[0]).any():
            return False
    return bool(layers)


def _called(expr: Apply, args: tuple[Any, ...]) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    if expr.op == "float":
        return operator.mul, (*args, 1.0)
    return _FUNCTIONS[expr.op], args


def comparisons_due(graph: Graph) -> dict[int, list[Comparison]]:
    """The comparisons that can be made once a node has run, by its position; -1 for those that need
    none.
    """
    made = {ref.id: i for i, node in enumerate(graph.nodes) for ref in node.outputs if ref}
    due: dict[int, list[Comparison]] = {}
    for comparison in graph.comparisons:
        if comparison.relation == RETURNED:
            continue  # the graph computes it
        both = (*leaves(comparison.left), *leaves(comparison.right))
        last = max((made.get(x.value, -1) for x in both if isinstance(x, SizeOf)), default=-1)
        due.setdefault(last, []).append(comparison)
    return due


def held(
    numbers: Sequence[Number], shape: tuple[int, ...], kind: torch.dtype, device: torch.device
) -> torch.Tensor:
    """A tensor of that shape that holds numbers, made as a model makes it."""

    def nested(flat: Sequence[Number], shape: tuple[int, ...]) -> Any:
        if not shape:
            return flat[0]
        step = len(flat) // shape[0]
        return [nested(flat[i * step : (i + 1) * step], shape[1:]) for i in range(shape[0])]

    return torch.tensor(nested(numbers, shape), dtype=kind, device=device)
