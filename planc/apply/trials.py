"""Trials: find input sizes bound to a traced graph without an expression showing it.

The model is run again with changed input dimensions, as far as it accepts them. If it then runs
other operators, or has another number in place of a literal of the graph, the graph is bound to the
traced size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import nn

from planc.apply.literals import sizes_in
from planc.ir.expressions import Number, Scalar, Size, evaluate
from planc.ir.graph import AS_IT_IS, RETURNED, Comparison, Graph, Node, Ref
from planc.ir.guards import RELATIONS
from planc.modules.nesting import leaves as nested_leaves
from planc.modules.nesting import map_leaves
from planc.trace.attempts import again
from planc.trace.rebuilding import Rebuilt
from planc.trace.values import holds

Dimension = tuple[int, int]  # of an input: its position among the tensors, and the dimension
Call = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Binding:
    """Dimensions of inputs with sizes held by a graph, and the place in the graph."""

    dimensions: tuple[Dimension, ...]
    reason: str


def bindings(graph: Graph, model: nn.Module, call: Call) -> tuple[Binding, ...]:
    """Return the input sizes bound to the graph of a model, found by trial."""
    if graph.data_dependent:
        return ()
    found: list[Binding] = []
    for dimensions in _together(graph):
        alone = [_tried(graph, model, call, (dimension,)) for dimension in dimensions]
        if None in alone and len(dimensions) > 1:
            alone.append(_tried(graph, model, call, dimensions))
        found.extend(binding for binding in alone if binding is not None and binding.dimensions)
    return tuple(dict.fromkeys(found))


def _together(graph: Graph) -> Iterator[tuple[Dimension, ...]]:
    """Yield groups of input dimensions that may have to change together.

    A group has one size; leading dimensions are apart from the others.
    """

    def kind(dimension: Dimension) -> tuple[bool, int]:
        return dimension[1] == 0, shapes[dimension[0]][dimension[1]]

    shapes = [graph.values[ref.id].shape for ref in graph.inputs]
    every = [(i, dim) for i, shape in enumerate(shapes) for dim in range(len(shape))]
    for _, alike in groupby(sorted(every, key=kind), kind):
        yield tuple(alike)


def _tried(
    graph: Graph, model: nn.Module, call: Call, dimensions: tuple[Dimension, ...]
) -> Binding | None:
    """Return the binding of some dimensions, with no dimensions if unbound; None if unknown.

    It is unknown if the model accepts no other size. A run at a size refused by the graph's own
    comparisons is inconclusive; if all tried sizes are refused, the graph is bound.
    """
    position, dim = dimensions[0]
    size = graph.values[graph.inputs[position].id].shape[dim]
    bound = None
    for tried, new in enumerate(_other_sizes(size, first=dim == 0)):
        if tried > 1 and bound is None:  # the model accepts no other size
            break
        other = again(graph, model, *_resized(call, dimensions, new))
        if other is None:
            continue
        found = _Comparison(graph, other)
        difference = "other operators" if other.data_dependent else found.difference()
        if not difference or not found.seen():
            return Binding(dimensions if difference else (), difference)
        bound = Binding(dimensions, difference)
    return bound


def _other_sizes(size: int, first: bool) -> tuple[int, ...]:
    """Return the sizes to try, in order.

    The first is the next size for a leading dimension and a smaller one for others; the second is
    double the size, which keeps all divisors. The remaining ones are for graphs with size
    comparisons.
    """
    if first or size < 2:
        return size + 1, 2 * size, *(n for n in (size - 1, 3 * size, size + 2) if n > 0)
    near = [n for n in (size - 1, size + 1, size - 2, 3 * size) if n > 0]
    return (size * 3 // 4, 2 * size, *near) if size > 4 else (size - 1, 2 * size, *near[1:])


def _resized(call: Call, dimensions: tuple[Dimension, ...], new: int) -> Call:
    at = -1

    def resized(leaf: Any) -> Any:
        nonlocal at
        if not isinstance(leaf, torch.Tensor):
            return leaf
        at += 1
        for dim in (dim for position, dim in dimensions if position == at):
            repeats = -(-new // max(leaf.shape[dim], 1))
            leaf = torch.cat([leaf] * repeats, dim).narrow(dim, 0, new)
        return leaf

    args, kwargs = map_leaves(resized, call)
    return args, kwargs


class _Comparison:
    """Comparison of two runs of a model, operator by operator.

    ``values`` maps the value numbers of the first run to those of the second.
    """

    def __init__(self, graph: Graph, other: Graph) -> None:
        self.graph, self.other = graph, other
        self.values = {tensor.value: tensor.value for tensor in graph.tensors}
        self.values |= {ref.id: at.id for ref, at in zip(graph.inputs, other.inputs, strict=True)}
        self._traced = sizes_in(lambda value: graph.values[value].shape)
        self._size = sizes_in(lambda value: other.values[self._value(value)].shape)
        self.aliases: dict[int, int] = {}  # in the other run: results of an idle contiguous()

    def difference(self) -> str:
        ours = [node for node in self.graph.nodes if not self._idle(node)]
        theirs = [node for node in self.other.nodes if not self._idle_there(node)]
        for one, two in zip(ours, theirs, strict=False):
            if not self._same(one, two):
                return str(one)
        if len(ours) != len(theirs):
            return f"the number of operators, {len(ours)} and then {len(theirs)}"
        results = (_numbers_in(run.output_spec) for run in (self.graph, self.other))
        return "" if self._alike(*results) else "a number among the results"

    def seen(self) -> bool:
        """Return True if one of the graph's own comparisons has another result in the other run."""
        return any(map(self._broken, self.graph.comparisons))

    def _broken(self, comparison: Comparison) -> bool:
        relation, right = comparison.relation, comparison.right
        if relation == RETURNED:
            return False
        try:
            left = evaluate(comparison.left, self._size)
            if relation == AS_IT_IS:
                return left != evaluate(right, self._traced)
            return not RELATIONS[relation](left, evaluate(right, self._size))
        except (LookupError, ArithmeticError, ValueError):  # the other run has no such value
            return False

    def _idle(self, node: Node) -> bool:
        """Record an idle ``contiguous()``, an operator in one run and possibly absent from the
        other.
        """
        if node.idle and node.outputs[0] is not None:
            self.values[node.outputs[0].id] = -1 - node.args[0].id
        return node.idle

    def _idle_there(self, node: Node) -> bool:
        if node.idle and node.outputs[0] is not None:
            self.aliases[node.outputs[0].id] = node.args[0].id
        return node.idle

    def _same(self, one: Node, two: Node) -> bool:
        arguments = ((node.args, node.kwargs) for node in (one, two))
        if one.op != two.op or len(one.outputs) != len(two.outputs) or not self._alike(*arguments):
            return False
        for ours, theirs in zip(one.outputs, two.outputs, strict=True):
            if ours is not None and theirs is not None:
                self.values[ours.id] = theirs.id
        return True

    def _alike(self, one: Any, two: Any) -> bool:
        """Return True if an argument of the graph evaluates to the other run's argument."""
        if isinstance(one, Ref):
            return isinstance(two, Ref) and self._same_value(one.id, two.id)
        if isinstance(one, tuple) and isinstance(two, tuple):
            return len(one) == len(two) and all(map(self._alike, one, two))
        if isinstance(one, Size | Scalar):
            return isinstance(two, int | float) and self._number(one) == two
        return repr(one) == repr(two)

    def _same_value(self, one: int, two: int) -> bool:
        if one in self.graph.captured and two in self.other.captured:
            self.values[one] = two
            return self._same_content(one, two)
        return self._value(one) == self._resolved(two)

    def _same_content(self, one: int, two: int) -> bool:
        held, found = self.graph.captured[one].cpu(), self.other.captured[two].cpu()
        if one in self.graph.numbers:
            wanted = tuple(map(self._number, self.graph.numbers[one]))
            return holds(found, wanted)
        if held.shape != found.shape or held.layout != found.layout:
            return False
        return held.data_ptr() == found.data_ptr() or bool(((held == found) | (held != held)).all())

    def _value(self, one: int) -> int:
        """Return the other run's value for one of the graph's."""
        at = self.values[one]
        return self._value(-1 - at) if at < 0 else self._resolved(at)

    def _resolved(self, two: int) -> int:
        while two in self.aliases:
            two = self.aliases[two]
        return two

    def _number(self, number: Number) -> Number:
        if not isinstance(number, Size | Scalar):
            return number
        try:
            return evaluate(number.expr, self._size)
        except (LookupError, ArithmeticError, ValueError):
            return math.nan


def _numbers_in(results: Any) -> tuple[Any, ...]:
    """Return the leaves of nested results; numbers in other objects are compared as sizes."""
    return () if isinstance(results, Rebuilt) else tuple(nested_leaves(results))
