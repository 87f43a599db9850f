"""Followers: structural attributes that change with what groups keep, by the table of layers and by
the size equations.

In: a graph, the equations of a target, and which dimensions of its tensors can shrink. Out:
:class:`Followers`, which gives the attributes of any plan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from planc.analysis.arrays import Kept, Polynomials
from planc.analysis.equations import Equations, Key
from planc.ir.graph import Graph
from planc.ir.layers import derived, quotients
from planc.plan.plan import AttributeChange

Attribute = tuple[str, str]
"""The path of a module, and the name of its attribute."""


class Followers:
    """The attributes of one graph that may change, compiled.

    Args:
        shapes: for each name of a tensor the numbers of its dimensions' sizes.
        shrinking: the numbers of the sizes that may change.
    """

    def __init__(
        self,
        graph: Graph,
        equations: Equations,
        shapes: Mapping[str, Sequence[int]],
        shrinking: frozenset[int],
        whole: Kept,
    ) -> None:
        found: dict[Attribute, None] = {}
        solved = {key: w for key, w in equations.attributes.items() if w.constant is None}
        self._equations = [((path, name), index) for path, name, index in solved]
        found.update(dict.fromkeys(key for key, _ in self._equations))
        self._values = Polynomials(list(solved.values()), whole)
        self._sized: list[tuple[Attribute, int, int]] = []
        self._scaled: list[tuple[Attribute, int, Attribute]] = []
        self._quotients: list[tuple[Attribute, Attribute, Attribute]] = []
        for path, module in graph.modules.items():
            for entry in derived(module):
                source, key = entry.source(module, graph.shapes), (path, entry.name)
                if source is None:
                    continue
                number, times = shapes[source][entry.dim], (path, entry.times)
                if times in found:
                    self._scaled.append((key, number, times))
                elif number in shrinking or key in found:
                    factor = module.attributes[entry.times] if entry.times else 1
                    self._sized.append((key, number, factor))
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

    def changes(self, kept: Kept, sizes: Sequence[int]) -> tuple[AttributeChange, ...]:
        """The attributes that change when each group keeps so many units in a row, in order.

        Args:
            sizes: by their numbers.
        """
        new: dict[Attribute, Any] = {}

        def current(key: Attribute) -> Any:
            return new.get(key, self._traced[key])

        for (key, index), value in zip(
            self._equations, self._values.values(kept).tolist(), strict=True
        ):
            new[key] = _replaced(current(key), index, value) if index else value
        new.update({key: sizes[number] * factor for key, number, factor in self._sized})
        for key, number, times in self._scaled:
            new[key] = sizes[number] * current(times)
        for key, dividend, divisor in self._quotients:
            new[key] = current(dividend) // current(divisor)
        return tuple(
            [  # of a list: a generator would be resumed for each of thousands
                AttributeChange(path, name, before, value)
                for (path, name), before in self.traced.items()
                if (value := new[path, name]) != before
            ]
        )


def _replaced(value: Any, index: Key | tuple[int, ...], leaf: int) -> Any:
    """A nested tuple with one leaf replaced."""
    if not index:
        return leaf
    return tuple(
        _replaced(item, index[1:], leaf) if i == index[0] else item for i, item in enumerate(value)
    )
