"""Fixed sizes: sizes independent of the inputs, because parameters determine them.

By the labels, a dimension is fixed if its coordinates are those of a parameter dimension, each
exactly once. It is not fixed if the run selected them by sizes (``positions[:x.shape[1]]``): every
dimension reached by these labels is then assumed to follow the inputs. The test is conservative; a
size may be constant without being found fixed.
"""

from __future__ import annotations

import numpy as np

from planc.analysis import Analysis
from planc.ir.expressions import Expr, Size, SizeOf, leaves
from planc.ir.graph import Node, provenanced, refs
from planc.rules.labels import Labelled, Layer
from planc.rules.labels.facts import NEVER

_SHAPED = ("aten.view.default", "aten.reshape.default", "aten.expand.default", "aten.repeat.")
_FLATTENED = "aten.flatten."
_ANY = -1  # an inferred size in a shape


class Fixed:
    def __init__(self, analysis: Analysis) -> None:
        self.graph, self.labels = analysis.graph, analysis.walked.labels
        self.owned = {*self.graph.captured, *(tensor.value for tensor in self.graph.tensors)}
        self._chosen = np.zeros(analysis.walked.facts.next_atom, dtype=bool)
        self._sized: set[int] = set()  # constants computed from sizes
        for node in self.graph.nodes:
            self._follow(node)

    def expr(self, expr: Expr) -> bool:
        """Return True if a number is the same for all inputs."""
        return all(
            self.size(leaf.value, leaf.dim) for leaf in leaves(expr) if isinstance(leaf, SizeOf)
        )

    def size(self, value: int, dim: int) -> bool:
        return value in self.owned or self.dimension(self.labels[value], dim)

    def dimension(self, labelled: Labelled, dim: int) -> bool:
        """Return True if the labels fix a size; the labels of a single coordinate never do."""
        return labelled.shape[dim] > 1 and any(
            self._distinct(layer) for layer in labelled.targeting(dim)
        )

    def _distinct(self, layer: Layer) -> bool:
        atoms = layer.along()
        if (atoms == NEVER).any() or self._chosen[atoms].any():
            return False
        return len(np.unique(atoms)) == len(atoms)

    def _follow(self, node: Node) -> None:
        """Record the atoms selected by sizes that follow the inputs."""
        arguments = (node.args, node.kwargs_values)
        used = [ref.id for ref in refs(arguments)]
        held = tuple(self.graph.numbers.get(value, ()) for value in used)
        follows = any(not self.expr(n.expr) for n in provenanced((arguments, held)))
        sized = follows or bool(self._sized.intersection(used))
        for ref in node.outputs:
            if ref is None:
                continue
            if sized and ref.id in self.graph.constants:
                self._sized.add(ref.id)
            dims = self._shaped(node)
            for layer in self.labels[ref.id].layers if sized or dims else ():
                if dims is None or layer.target in dims:
                    self._chosen[layer.atoms] = True

    def _shaped(self, node: Node) -> set[int] | None:
        """Return the result dimensions merged from others or given input-dependent sizes, None if
        unknown.
        """
        arguments = [*node.args[1:], *node.kwargs_values]
        if node.op.startswith(_FLATTENED):
            first = arguments[0] if arguments else 0
            return {int(first) % len(self.graph.values[node.args[0].id].shape)}
        if not node.op.startswith(_SHAPED) or not isinstance(arguments[0], tuple):
            return None
        return {
            dim
            for dim, size in enumerate(arguments[0])
            if int(size) == _ANY or (isinstance(size, Size) and not self.expr(size.expr))
        }
