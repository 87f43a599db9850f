"""Origins of bounds: the code and the model, or the inputs of the traced run."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from planc.analysis.grouping.classes import components
from planc.analysis.grouping.literals import is_literal
from planc.analysis.grouping.reads import SPLITS, Read, name_of, numbers_in
from planc.analysis.walk import Walked
from planc.ir.expressions import Apply, Const, Expr, Size, SizeOf, leaves
from planc.ir.graph import Graph, Node, refs
from planc.rules.labels.facts import NEVER


class Origins:
    """Traces the bounds of reads to their origin, by the labels still prunable."""

    def __init__(self, graph: Graph, walked: Walked) -> None:
        self.graph, self.walked = graph, walked
        facts = walked.facts
        self.component = components(facts)
        self.live = np.zeros(int(self.component.max(initial=0)) + 1, dtype=bool)
        for slot in facts.slots:
            self.live[self.component[slot.first : slot.first + slot.count]] = True
        self.live[self.component[NEVER]] = False
        self.tensors = {tensor.value for tensor in graph.tensors}
        self.made = {
            ref.id: node for node in graph.nodes for ref in node.outputs if ref is not None
        }

    def follows_inputs(self, read: Read) -> bool:
        """True if the bounds depend on sizes of inputs."""
        numbers = [number for number, _ in self._numbers(read)]
        return any(isinstance(n, Size) and self._of_inputs(n.expr) for n in numbers)

    def is_fixed(self, read: Read) -> bool:
        """True if the code shows that the bounds are equal for all inputs."""
        node = self.graph.nodes[read.node]
        if name_of(node) in SPLITS and not is_literal(node.source, "select"):
            return False  # the inputs may determine the parts in use
        if read.index is not None and is_literal(node.source, "index"):
            return True
        sources = self._sources(read.index)  # captured positions may have any origin
        known = all(value in self.made or value in self.tensors for value in sources)
        return known and all(self._spelt_out(n, of) for n, of in self._numbers(read))

    def _numbers(self, read: Read) -> Iterator[tuple[int, Node]]:
        """The numbers behind bounds and positions, each with its operator."""
        yield from ((number, self.graph.nodes[read.node]) for number in read.numbers)
        for value in self._sources(read.index):
            if (node := self.made.get(value)) is not None:
                for number in numbers_in((node.args, node.kwargs_values)):
                    yield number, node

    def _sources(self, value: int | None) -> Iterator[int]:
        """A value and every value it is computed from."""
        waiting, seen = [value] if value is not None else [], set[int]()
        while waiting:
            if (at := waiting.pop()) not in seen:
                seen.add(at)
                yield at
                node = self.made.get(at)
                arguments = (node.args, node.kwargs_values) if node is not None else ()
                waiting.extend(ref.id for ref in refs(arguments))

    def _spelt_out(self, number: int, node: Node) -> bool:
        """True for a literal, or a number made of attributes and widths.

        Literals inside such an expression are looked up in the source line.
        """
        if not isinstance(number, Size):
            return is_literal(node.source, name_of(node))
        plain = any(isinstance(part, Const) for part in _parts(number.expr))
        return not plain or is_literal(node.source, name_of(node), attributes=True)

    def _of_inputs(self, expr: Expr) -> bool:
        """True if the expression has a size that belongs to no tensor of the model and cannot
        shrink.
        """
        return any(
            isinstance(leaf, SizeOf) and leaf.value not in self.tensors and not self._shrinks(leaf)
            for leaf in leaves(expr)
        )

    def _shrinks(self, size: SizeOf) -> bool:
        layers = self.walked.labels[size.value].targeting(size.dim)
        return any(self.live[self.component[layer.atoms]].any() for layer in layers)


def _parts(expr: Expr) -> Iterator[Expr]:
    yield expr
    if isinstance(expr, Apply):
        for arg in expr.args:
            yield from _parts(arg)
