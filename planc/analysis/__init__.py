"""The analysis of a graph: groups, pins with reasons, constraints, cost, predicted shapes.

``analyze`` is a pure function of the graph. The cost model, reasons of pins and size equations are
computed on first use.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from planc.analysis.columns import Shapes
from planc.analysis.cost import CostModel, cost_model, macs_by_module
from planc.analysis.equations import Constraint, Equations, Operation, equations
from planc.analysis.grouping import Grouping, UnitMask, group_units
from planc.analysis.places import Places, places
from planc.analysis.polynomials import Poly, Variable, by_group
from planc.analysis.reasons import Pin, explain, pins
from planc.analysis.walk import Walked, walk
from planc.errors import AnalysisError
from planc.ir.collection import paused_collection
from planc.ir.graph import Graph, Node
from planc.ir.groups import Group, apart, joined
from planc.plan.arguments import a_flag, instance, takes
from planc.rules.labels import Labelled

Gone = NDArray[np.bool_]
"""Mask over all atoms, True for those of removed units."""


@dataclass(frozen=True, slots=True)
class Bound:
    """A condition on the widths of ``groups`` (indices of the analysis's groups).

    ``reason`` names the operator behind it, with its module and line.
    """

    groups: tuple[int, ...]
    text: str
    reason: str

    def __str__(self) -> str:
        return f"{self.text}, for {self.reason}"


@dataclass(frozen=True, eq=False)
class Analysis:
    """The dependency groups of a traced model, its pins and the reasons for both."""

    graph: Graph
    walked: Walked
    grouping: Grouping

    @property
    def groups(self) -> tuple[Group, ...]:
        """The groups, in the order of the model's tensors."""
        return self.grouping.groups

    @property
    def unknown(self) -> tuple[Node, ...]:
        """Operators without a rule; their operands are pinned."""
        return tuple(self.graph.nodes[i] for i in self.walked.facts.unknown)

    @cached_property
    def pins(self) -> tuple[Pin, ...]:
        """The dimensions of tensors with indices that are never removed, with reasons."""
        return pins(self.graph, self.walked, self.grouping)

    @cached_property
    def cost(self) -> CostModel:
        """MACs, parameters and bytes as polynomials in the groups' widths."""
        return cost_model(self.graph, self.walked, self.grouping)

    def macs_by_module(self, kept: Sequence[int]) -> dict[str, int]:
        """MACs of each module by its path, with ``kept[g]`` units in each row of group ``g``."""
        of = by_group(kept)
        return {module: poly.value(of) for module, poly in self._macs.items()}

    @cached_property
    def _macs(self) -> dict[str, Poly]:
        return macs_by_module(self.graph, self.walked, self.grouping)

    @cached_property
    def widths(self) -> tuple[Poly, ...]:
        """The distinct widths of all prunable dimensions of parameters and buffers."""
        of = (
            self.grouping.width(self.walked.labels[tensor.value], dim)
            for tensor in self.graph.tensors
            for dim in range(len(tensor.shape))
        )
        return tuple(dict.fromkeys(poly for poly in of if poly.constant is None))

    @cached_property
    def places(self) -> Places:
        """The units along each dimension of the parameters."""
        return places(self.graph, self.walked.facts.slots, self.grouping)

    @cached_property
    def _equations(self) -> dict[str, Equations]:
        return {}

    def equations(self, target: str) -> Equations:
        """The size equations of plans for ``target`` ("module" or "graph")."""
        if target not in self._equations:
            found = equations(self.graph, self.walked, self.grouping, target)
            self._equations[target] = found
        return self._equations[target]

    def explain(self, tensor: str, dim: int) -> list[str]:
        """Explain the couplings or pins of a tensor's dimension, in lines of text.

        Args:
            tensor: a name of a parameter or buffer.
            dim: a dimension; negative ones count from the end.

        Raises:
            AnalysisError: there is no such tensor or dimension.
        """
        lines = explain(self.graph, self.walked, self.grouping, tensor, dim)
        found = self.graph.tensor(tensor)
        width = self.walked.labels[found.value].targeting(dim % len(found.shape))
        groups = {int(g) for la in width for g in np.unique(self.grouping.group[la.atoms])}
        bound = [bound for bound in self.bounds("module") if groups.intersection(bound.groups)]
        graph = {str(bound) for bound in self.bounds("graph")}
        for entry in bound:
            lines.append(f"{entry}" + ("" if str(entry) in graph else " (for the module only)"))
        followers = {
            ".".join(filter(None, key[:2])): poly.text(self._kept)
            for key, poly in self.equations("module").attributes.items()
            if groups.intersection(poly.variables)
        }
        return lines + [f"attribute {name} is {text}" for name, text in sorted(followers.items())]

    def bounds(self, target: str) -> tuple[Bound, ...]:
        """The conditions on the widths of groups in a plan for ``target`` beyond any attribute's
        reach.
        """
        equations = self.equations(target)
        whole = (
            Bound((g,), f"{self.groups[g].name} stays whole", reason)
            for g, reason in sorted(equations.whole.items())
        )
        constraints = (
            Bound(
                tuple(sorted(constraint.groups)),
                self._statement(constraint),
                constraint.reason,
            )
            for constraint in equations.constraints
        )
        return (*whole, *constraints)

    def _statement(self, constraint: Constraint) -> str:
        left, right = constraint.left, constraint.right
        if isinstance(left, Operation) and left.op == "//" and right == Poly.const(0):
            return f"{left.args[0].text(self._kept)} >= 0"  # the divisor exceeds any value
        return f"{left.text(self._kept)} = {right.text(self._kept)}"

    @property
    def _kept(self) -> Callable[[Variable], str]:
        return by_group([f"kept {group.name}" for group in self.groups])

    def gone(self, removed: Sequence[Sequence[int]]) -> Gone:
        """Boolean mask over atoms, True for those of the units ``removed[g]`` of group ``g``."""
        index = self.grouping.index
        return index.mask(removed)[index.of_atom]

    def shapes(self, gone: Gone) -> list[tuple[int, ...]]:
        """The predicted shape of every value without the atoms ``gone``."""
        index = self.grouping.index
        units = np.zeros(index.count + 1, dtype=bool)
        units[index.of_atom] = gone
        return self.predicted.after(UnitMask(units))

    @cached_property
    def predicted(self) -> Shapes:
        """The shapes of all values as functions of the removed units."""
        return Shapes(self.walked.labels, self.grouping.index)

    def mixing(self, g: int, target: str) -> str:
        """All reasons why removing units of group ``g`` differs from zeroing them, each once.

        Empty if it does not differ.
        """
        of_numbers = apart(self.equations(target).mixing.get(g, ""))
        return joined([*self.grouping.mixing(g, target), *of_numbers])


def predicted_shape(x: Labelled, gone: Gone) -> tuple[int, ...]:
    """The shape of a labelled value without the atoms ``gone``."""
    shape = list(x.shape)
    for dim in {layer.target for layer in x.layers}:
        first, *others = (layer.along() for layer in x.targeting(dim))
        lost = gone[first]
        for line in others:
            lost = lost | gone[line]
        shape[dim] -= int(np.count_nonzero(lost))
    return tuple(shape)


@takes(
    graph=instance(
        "a planc.ir.graph.Graph", Graph, advice="give what planc.trace returns", error=AnalysisError
    ),
    strict=a_flag,
)
def analyze(graph: Graph, strict: bool = False) -> Analysis:
    """Derive the dependency groups of a graph.

    Args:
        graph: a graph from :func:`planc.trace`.
        strict: raise for an operator without a rule instead of pinning its operands.

    Returns:
        The groups, pins, constraints and costs of the model.

    Raises:
        AnalysisError: an operator has no rule (``strict``); names it, the module and the line.
    """
    with paused_collection():
        walked = walk(graph, strict)
        return Analysis(graph, walked, group_units(graph, walked))
