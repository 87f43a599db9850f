"""Computed numbers of a rewritten graph: fx nodes evaluating the model's size expressions.

A number that is the same for all inputs becomes a literal. A size without an expression is also a
literal, and the graph checks it (:mod:`planc.ir.guards`).
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
from planc.apply.literals import sizes_in
from planc.apply.trials import Binding
from planc.ir.expressions import (
    OPERATORS,
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

Input = tuple[str, fx.Node, tuple[int, ...]]
has_side_effect(check)  # keeps checks from being eliminated as dead code


class Computed:
    """The numbers of one graph.

    Args:
        shapes: the shapes of all values after pruning.
        graph: the fx graph under construction, with its inputs and tensors.
        nodes: the fx node of each value.
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
        self._traced_leaf = sizes_in(lambda value: analysis.graph.values[value].shape)
        self._pruned_leaf = sizes_in(lambda value: shapes[value])
        self._early = set(graph.nodes)
        self._last = next(reversed(graph.nodes))
        self._made: dict[Any, Any] = {}
        self._checked: set[tuple[Any, str, Any]] = set()

    # -- numbers ---------------------------------------------------------------------------------

    def argument(self, number: Size | Scalar) -> Any:
        """Return an argument other than a width: the original's number for the inputs at hand."""
        if self.fixed.expr(number.expr):
            return int(number) if isinstance(number, Size) else float(number)
        return self._node(number.expr, self._original)

    held = argument

    def width(self, expr: Expr, labelled: Labelled, dim: int, width: int, sign: int) -> Any:
        """Return a number constrained to ``sign`` times the size of a labelled dimension, pruned to
        ``width``.
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
        """Return the size of a dimension of a value already in the graph."""
        if self.fixed.size(value, dim):
            return self.shapes[value][dim]
        key = (value, dim)
        if key not in self._made:
            node = self.nodes[value]  # read at once: a later read would keep the tensor alive
            with self.fx.inserting_after(self._last if node in self._early else node):
                self._made[key] = self.fx.call_method("size", (node, dim))
        return self._made[key]

    # -- checks ----------------------------------------------------------------------------------

    def compare(self, comparison: Comparison) -> None:
        """Check two sizes for the relation observed when the model compared them."""
        reason = str(comparison)
        left = self._node(comparison.left, self._original)
        if comparison.relation == AS_IT_IS:
            traced = evaluate(comparison.left, self._traced_leaf)
            self.require(left, "==", traced, reason)
            return
        right = self._node(comparison.right, self._original)
        self.require(left, comparison.relation, right, reason)

    def bind(self, bound: Sequence[Binding]) -> None:
        """Check sizes of inputs."""
        for binding in bound:
            for position, dim in binding.dimensions:
                value = self.graph.inputs[position].id
                self.hold(value, dim, binding.reason)

    def hold(self, value: int, dim: int, reason: str) -> None:
        """Check a dimension for the size held by the graph."""
        self.require(self.size(value, dim), "==", self.shapes[value][dim], reason)

    def require(self, left: Any, relation: str, right: Any, reason: str) -> None:
        """Add a check of two numbers to the graph, unless both are the same for all inputs."""
        key = (left, relation, right)
        if key in self._checked or not any(isinstance(side, fx.Node) for side in (left, right)):
            return
        self._checked.add(key)
        node = self.fx.call_function(check, (left, relation, right, reason, tuple(self.inputs)))
        node.meta["is_wrapped"] = True

    # -- expressions -----------------------------------------------------------------------------

    def _node(self, expr: Expr, leaf: Callable[[SizeOf], Any]) -> Any:
        """Return the node or number computing an expression, with sizes given by ``leaf``."""
        if isinstance(expr, Const | Attribute):
            return expr.value
        if isinstance(expr, SizeOf):
            return leaf(expr)
        args = tuple(self._node(arg, leaf) for arg in expr.args)
        if not any(isinstance(arg, fx.Node) for arg in args):
            return OPERATORS[expr.op](*args)
        if expr.op == "same":
            return self._same(args)
        if expr.op == "float":
            return self.call(operator.mul, (*args, 1.0))
        return self.call(OPERATORS[expr.op], args)

    def call(self, function: Callable[..., Any], args: tuple[Any, ...]) -> fx.Node:
        """Call a function of numbers, once for equal arguments."""
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
        """Return the size of a dimension in the original."""
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
        """Return ``number * times // over``, a division without remainder."""
        common = math.gcd(times, over)
        return self.call(
            operator.floordiv,
            (self.call(operator.mul, (number, times // common)), over // common),
        )


def even(labelled: Labelled, dim: int) -> bool:
    """Return True if a dimension consists of equally many coordinates of each unit, and no others.

    Removing any number of units then removes their share of it.
    """
    layers = labelled.targeting(dim)
    for layer in layers:
        units, counts = np.unique(layer.along(), return_counts=True)
        if units[0] == NEVER or (counts != counts[0]).any():
            return False
    return bool(layers)


def comparisons_due(graph: Graph) -> dict[int, list[Comparison]]:
    """Return the comparisons by the position of the last node they depend on; -1 if they depend on
    none.
    """
    made = {ref.id: i for i, node in enumerate(graph.nodes) for ref in node.outputs if ref}
    due: dict[int, list[Comparison]] = {}
    for comparison in graph.comparisons:
        if comparison.relation == RETURNED:
            continue  # computed by the graph
        both = (*leaves(comparison.left), *leaves(comparison.right))
        last = max((made.get(x.value, -1) for x in both if isinstance(x, SizeOf)), default=-1)
        due.setdefault(last, []).append(comparison)
    return due


def held(
    numbers: Sequence[Number], shape: tuple[int, ...], kind: torch.dtype, device: torch.device
) -> torch.Tensor:
    """Return a tensor of the given shape made from numbers, as the model makes it."""

    def nested(flat: Sequence[Number], shape: tuple[int, ...]) -> Any:
        if not shape:
            return flat[0]
        step = len(flat) // shape[0]
        return [nested(flat[i * step : (i + 1) * step], shape[1:]) for i in range(shape[0])]

    return torch.tensor(nested(numbers, shape), dtype=kind, device=device)
