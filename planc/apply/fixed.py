"""Fixed sizes: those that a model has for all inputs, because its parameters say so.

A dimension is fixed if its coordinates are those of a dimension of parameters, each once, which the
labels say. It is not if the run chose them by sizes (``positions[:x.shape[1]]``): all that these
labels reach is then taken to follow the inputs. What is not fixed need not vary.
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
_ANY = -1  # in a shape: as many as are left


class Fixed:
    """The fixed sizes of one graph."""

    def __init__(self, analysis: Analysis) -> None:
        self.graph, self.labels = analysis.graph, analysis.walked.labels
        self.owned = {*self.graph.captured, *(tensor.value for tensor in self.graph.tensors)}
        self._chosen = np.zeros(analysis.walked.facts.next_atom, dtype=bool)
        self._sized: set[int] = set()  # constants that are made of sizes
        for node in self.graph.nodes:
            self._follow(node)

    def expr(self, expr: Expr) -> bool:
        """Whether a number is the same for all inputs."""
        return all(
            self.size(leaf.value, leaf.dim) for leaf in leaves(expr) if isinstance(leaf, SizeOf)
        )

    def size(self, value: int, dim: int) -> bool:
        return value in self.owned or self.dimension(self.labels[value], dim)

    def dimension(self, labelled: Labelled, dim: int) -> bool:
        """Whether its labels fix a size; those of one coordinate do not say who else is there."""
        return labelled.shape[dim] > 1 and any(
            self._distinct(layer) for layer in labelled.targeting(dim)
        )

    def _distinct(self, layer: Layer) -> bool:
        atoms = layer.along()
        if (atoms == NEVER).any() or self._chosen[atoms].any():
            return False
        return len(np.unique(atoms)) == len(atoms)

    def _follow(self, node: Node) -> None:
        """Notes what a node chooses by sizes that follow the inputs."""
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
        """The dimensions of a result that a node makes of others, or gives sizes that follow the
        inputs; None if it does not say.
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
