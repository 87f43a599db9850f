"""The graph without some blocks, and the comparison of a run with it, operator by operator."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from planc.analysis.blocks.find import Block
from planc.ir.expressions import Apply, Const, Expr, Scalar, Size, SizeOf
from planc.ir.graph import Decision, Graph, Node, Ref


def bypassed(graph: Graph, blocks: Iterable[Block]) -> Graph:
    """The graph without the operators of ``blocks``: what left each of them is what entered it.

    Sizes of values inside a removed block become plain numbers.
    """
    return _Bypass(graph, tuple(blocks)).graph()


class _Bypass:
    def __init__(self, graph: Graph, blocks: tuple[Block, ...]) -> None:
        self.old, self.through = graph, {block.exit: block.entry for block in blocks}
        self.paths = tuple(f"{block.path}." for block in blocks)
        left = [node for node in graph.nodes if not self._inside(node.module)]
        self.nodes = tuple(left)
        made = {ref.id for node in graph.nodes for ref in node.outputs if ref is not None}
        kept = {ref.id for node in left for ref in node.outputs if ref is not None}
        self.gone = made - kept

    def graph(self) -> Graph:
        if not self.paths:
            return self.old
        nodes = tuple(
            replace(
                node,
                args=self._argument(node.args),
                kwargs=tuple((key, self._argument(value)) for key, value in node.kwargs),
            )
            for node in self.nodes
        )
        comparisons = (
            replace(c, left=self._expression(c.left), right=self._expression(c.right))
            for c in self.old.comparisons
            if not self._inside(c.module)
        )
        return replace(
            self.old,
            nodes=nodes,
            outputs=tuple(Ref(self.source(ref.id)) for ref in self.old.outputs),
            output_spec=_mapped(self.old.output_spec, self.source),
            comparisons=tuple(comparisons),
            numbers={v: self._argument(given) for v, given in self.old.numbers.items()},
            decisions=tuple(self._decisions()),
        )

    def _decisions(self) -> Iterator[Decision]:
        """The decisions outside the removed blocks, by their new nodes."""
        places = [i for i, node in enumerate(self.old.nodes) if not self._inside(node.module)]
        moved = {old: new for new, old in enumerate(places)}
        for decision in self.old.decisions:
            if decision.node in moved:
                inputs = tuple(map(self.source, decision.inputs))
                yield replace(decision, node=moved[decision.node], inputs=inputs)

    def source(self, value: int) -> int:
        """The value in the place of another one."""
        while value in self.through:
            value = self.through[value]
        return value

    def _inside(self, module: str) -> bool:
        return f"{module}.".startswith(self.paths) if self.paths else False

    def _argument(self, argument: Any) -> Any:
        if isinstance(argument, Ref):
            return Ref(self.source(argument.id))
        if isinstance(argument, Size | Scalar):
            return type(argument)(argument, self._expression(argument.expr))  # type: ignore[arg-type]
        return tuple(map(self._argument, argument)) if type(argument) is tuple else argument

    def _expression(self, expr: Expr) -> Expr:
        if isinstance(expr, Apply):
            return replace(expr, args=tuple(map(self._expression, expr.args)))
        if isinstance(expr, SizeOf):
            value = self.source(expr.value)
            if value in self.gone:
                return Const(self.old.values[value].shape[expr.dim])
            return replace(expr, value=value)
        return expr


def _mapped(spec: Any, source: Callable[[int], int]) -> Any:
    """A specification of results with other values."""
    if isinstance(spec, Ref):
        return Ref(source(spec.id))
    if isinstance(spec, dict):
        mapped = copy.copy(spec)
        for key, value in spec.items():
            mapped[key] = _mapped(value, source)
        return mapped
    if type(spec) in (tuple, list):
        return type(spec)(_mapped(value, source) for value in spec)
    return spec


def run_difference(expected: Graph, found: Graph, renamed: Callable[[str], str | None]) -> str:
    """The first difference of a run from the expected one, in words; empty if there is none.

    Operators, their order, arguments, modules, the shapes of results, constants and outputs are
    compared; the numbers of values may differ. Operators that compute constants are compared by
    their results, where these are read.

    Args:
        expected: the original's graph without the removed blocks.
        found: the run of the model without them.
        renamed: the new name of a module or tensor, None for a removed one.
    """
    return next(_Comparison(expected, found, renamed).differences(), "")


class _Comparison:
    def __init__(self, expected: Graph, found: Graph, renamed: Callable[[str], str | None]) -> None:
        self.expected, self.found, self.renamed = expected, found, renamed
        self.pairs: dict[int, int] = {}

    def differences(self) -> Iterator[str]:
        yield from self._tensors()
        for want, have in zip(self.expected.inputs, self.found.inputs, strict=False):
            self.pairs[want.id] = have.id
        for one, other in zip(self.expected.lasting, self.found.lasting, strict=False):
            yield from self._node(one, other)
        counts = len(self.expected.lasting), len(self.found.lasting)
        if counts[0] != counts[1]:
            yield f"{counts[1]} operators, expected {counts[0]}"
        if not self._alike(self.expected.outputs, self.found.outputs):
            yield "other results are returned"

    def _tensors(self) -> Iterator[str]:
        there = {tensor.names: tensor for tensor in self.found.tensors}
        for tensor in self.expected.tensors:
            names = tuple(filter(None, map(self.renamed, tensor.names)))
            if not names:
                continue
            if names not in there:
                yield f"{names[0]}: no such tensor, or tied to others"
                return
            self.pairs[tensor.value] = there[names].value

    def _node(self, want: Node, have: Node) -> Iterator[str]:
        arguments = (want.args, want.kwargs), (have.args, have.kwargs)
        if want.op != have.op or self.renamed(want.module) != have.module:
            yield f"{have}, expected {want}"
        elif not self._alike(*arguments):
            yield f"{have}: other arguments than {want}"
        for ref, at in zip(want.outputs, have.outputs, strict=False):
            if ref is None or at is None:
                continue
            self.pairs[ref.id] = at.id
            one, other = self.expected.values[ref.id], self.found.values[at.id]
            if (one.shape, one.dtype) != (other.shape, other.dtype):
                yield f"{have}: a result of {other.shape}, expected {one.shape}"

    def _alike(self, want: Any, have: Any) -> bool:
        if isinstance(want, Ref) and isinstance(have, Ref):
            if want.id not in self.pairs:  # a constant
                self.pairs[want.id] = have.id
                return self._same_constant(want.id, have.id)
            return self.pairs[want.id] == have.id
        if isinstance(want, tuple) and isinstance(have, tuple):
            return len(want) == len(have) and all(map(self._alike, want, have))
        return type(want) is type(have) and repr(want) == repr(have)  # NaN equals NaN

    def _same_constant(self, want: int, have: int) -> bool:
        one, other = self.expected.values[want], self.found.values[have]
        if (one.shape, one.dtype) != (other.shape, other.dtype):
            return False
        first, second = (
            graph.constants.get(value)
            for graph, value in ((self.expected, want), (self.found, have))
        )
        if first is not None and second is not None:
            return bool(np.array_equal(first, second, equal_nan=first.dtype.kind in "fc"))
        return first is None and second is None
