"""The analysis of a graph: groups, pins with reasons, constraints, cost, predicted shapes.

``analyze`` is a pure function of the graph; what takes time and is not always asked for (the cost
model, reasons of pins, size equations) is computed when first looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from planc.collection import paused_collection
from planc.cost import CostModel, cost_model
from planc.equations import Equations, equations
from planc.explain import Pin, explain, pins
from planc.grouping import PINNED, Grouping, group_units
from planc.groups import Group
from planc.ir import Graph, Node
from planc.labels import Labelled
from planc.places import Places, places
from planc.walk import Walked, walk
from planc.widths import Poly

Gone = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Analysis:
    """What can be removed from a traced model together, and what cannot be and why."""

    graph: Graph
    walked: Walked
    grouping: Grouping

    @property
    def groups(self) -> tuple[Group, ...]:
        """The groups, in the order of the model's tensors."""
        return self.grouping.groups

    @property
    def unknown(self) -> tuple[Node, ...]:
        """Operators without a rule: what they touch is pinned."""
        return tuple(self.graph.nodes[i] for i in self.walked.facts.unknown)

    @cached_property
    def pins(self) -> tuple[Pin, ...]:
        """The dimensions of tensors that are never removed, whole or in part, with reasons."""
        return pins(self.graph, self.walked, self.grouping)

    @cached_property
    def cost(self) -> CostModel:
        """MACs, parameters and bytes as polynomials in the groups' widths."""
        return cost_model(self.graph, self.walked, self.grouping)

    @cached_property
    def widths(self) -> tuple[Poly, ...]:
        """The widths of all dimensions of parameters and buffers that can shrink, each once."""
        of = (
            self.grouping.width(self.walked.labels[tensor.value], dim)
            for tensor in self.graph.tensors
            for dim in range(len(tensor.shape))
        )
        return tuple(dict.fromkeys(poly for poly in of if poly.constant is None))

    @cached_property
    def places(self) -> Places:
        """Where the units of all groups stand in the parameters."""
        return places(self.graph, self.walked.facts.slots, self.grouping)

    @cached_property
    def _equations(self) -> dict[str, Equations]:
        return {}

    def equations(self, target: str) -> Equations:
        """The size equations that bind a plan for ``target`` ("module" or "graph")."""
        if target not in self._equations:
            found = equations(self.graph, self.walked, self.grouping, target)
            self._equations[target] = found
        return self._equations[target]

    def explain(self, tensor: str, dim: int) -> list[str]:
        """Why a dimension of a tensor is coupled to others, or pinned: lines for people.

        Raises:
            AnalysisError: there is no such tensor or dimension.
        """
        return explain(self.graph, self.walked, self.grouping, tensor, dim)

    def gone(self, removed: Sequence[Sequence[int]]) -> Gone:
        """Which atoms vanish when ``removed[g]`` are the units that group ``g`` loses."""
        offsets = np.cumsum([0, *(group.size for group in self.groups)])
        lost = np.zeros(int(offsets[-1]) + 1, dtype=bool)
        for g, units in enumerate(removed):
            lost[offsets[g] + np.asarray(units, dtype=np.int64)] = True
        flat = offsets[np.maximum(self.grouping.group, 0)] + self.grouping.unit
        flat[self.grouping.group == PINNED] = len(lost) - 1
        return lost[flat]

    def shapes(self, gone: Gone) -> list[tuple[int, ...]]:
        """The predicted shape of every value once the atoms ``gone`` have vanished."""
        return [predicted_shape(labelled, gone) for labelled in self.walked.labels]

    def mixing(self, g: int, target: str) -> str:
        """Why removing units of group ``g`` is not the same as zeroing them, empty where it is."""
        reason = self.groups[g].mixing
        if not reason:
            return self.equations(target).mixing.get(g, "")
        if reason.startswith("module: "):
            return "" if target == "graph" else reason.removeprefix("module: ")
        return reason


def predicted_shape(x: Labelled, gone: Gone) -> tuple[int, ...]:
    """The shape of a labelled value once the atoms ``gone`` have vanished."""
    if not x.layers:
        return x.shape
    shape = list(x.shape)
    for dim in {layer.target for layer in x.layers}:
        lost = np.zeros(x.shape[dim], dtype=bool)
        for layer in x.targeting(dim):
            lost |= gone[layer.along()]
        shape[dim] -= int(lost.sum())
    return tuple(shape)


def analyze(graph: Graph, strict: bool = False) -> Analysis:
    """Derives the dependency groups of a graph.

    Args:
        graph: what :func:`planc.trace` returns.
        strict: an operator without a rule is an error rather than a pin.

    Raises:
        AnalysisError: an operator has no rule (``strict``); names it, the module and the line.
    """
    with paused_collection():
        walked = walk(graph, strict)
        return Analysis(graph, walked, group_units(graph, walked))
