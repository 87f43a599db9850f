"""Structural attributes that change with kept units, by the table of layers and the size equations.

:class:`Followers` is made of a graph, the equations of a target and the prunable dimensions of the
graph's tensors; it gives the attributes of any plan.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

from planc.analysis.arrays import Kept, Polynomials
from planc.analysis.equations import Equations
from planc.ir.graph import Graph
from planc.ir.layers import derived, quotients
from planc.ir.plain import with_leaf
from planc.plan.plan import AttributeChange

Attribute = tuple[str, str]
"""The path of a module, and the name of its attribute."""
Size = tuple[str, int]
"""The name of a tensor, and a dimension."""


class Followers:
    """The variable attributes of one graph, compiled to arrays.

    Args:
        prunable: the dimensions of tensors that may shrink, with the tensor's name.
        whole: the units of each group per row, with nothing removed.
    """

    def __init__(
        self,
        graph: Graph,
        equations: Equations,
        prunable: Container[tuple[str, int]],
        whole: Kept,
    ) -> None:
        found: dict[Attribute, None] = {}
        solved = {key: w for key, w in equations.attributes.items() if w.constant is None}
        self._equations = [((path, name), index) for path, name, index in solved]
        found.update(dict.fromkeys(key for key, _ in self._equations))
        self._values = Polynomials(list(solved.values()), whole)
        self._sized: list[tuple[Attribute, Size, int]] = []
        self._scaled: list[tuple[Attribute, Size, Attribute]] = []
        self._quotients: list[tuple[Attribute, Attribute, Attribute]] = []
        for path, module in graph.modules.items():
            for entry in derived(module):
                source, key = entry.source(module, graph.shapes), (path, entry.name)
                if source is None:
                    continue
                size, times = (source, entry.dim), (path, entry.times)
                if times in found:
                    self._scaled.append((key, size, times))
                elif size in prunable or key in found:
                    factor = module.attributes[entry.times] if entry.times else 1
                    self._sized.append((key, size, factor))
                else:
                    continue
                found[key] = None
            for name, *operands in quotients(module):
                dividend, divisor = ((path, operand) for operand in operands)
                if dividend in found or divisor in found:
                    self._quotients.append(((path, name), dividend, divisor))
                    found[path, name] = None
        self._traced = {
            (path, name): value
            for path, module in graph.modules.items()
            for name, value in module.attributes.items()
        }
        self.traced = {key: self._traced[key] for key in sorted(found)}

    def changes(
        self, kept: Kept, shapes: Mapping[str, Sequence[int]]
    ) -> tuple[AttributeChange, ...]:
        """The changed attributes for ``kept`` units of each group per row, in order.

        Args:
            kept: the units kept by each group in each row.
            shapes: of the pruned tensors, by all their names.
        """
        new: dict[Attribute, Any] = {}

        def current(key: Attribute) -> Any:
            return new.get(key, self._traced[key])

        for (key, index), value in zip(
            self._equations, self._values.values(kept).tolist(), strict=True
        ):
            new[key] = with_leaf(current(key), index, value) if index else value
        for key, (name, dim), factor in self._sized:
            new[key] = shapes[name][dim] * factor
        for key, (name, dim), times in self._scaled:
            new[key] = shapes[name][dim] * current(times)
        for key, dividend, divisor in self._quotients:
            new[key] = current(dividend) // current(divisor)
        return tuple(
            [  # from a list: faster than resuming a generator thousands of times
                AttributeChange(path, name, before, value)
                for (path, name), before in self.traced.items()
                if (value := new[path, name]) != before
            ]
        )
